// The yardstick of the runtime's kernels: what the FMA units do when nothing else holds them up.
#pragma once

namespace secateur {

// Best float32 FLOP/s of all threads together over some rounds of about a millisecond each, by FMAs
// (a multiplication and an addition on the scalar level) between registers alone.
double measure_peak_flops(int rounds);

}  // namespace secateur
