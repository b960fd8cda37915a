// How the outputs of a product are shared out where samples are few.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "spmm_vector.hpp"
#include "variants.hpp"

namespace secateur {

// Outputs per task, in whole vectors of outputs: 16 to 64 Ki weights, so that a matrix makes some
// sixteen tasks if it is large enough. Fewer and larger ones would not even out, and of more the
// beginnings, which no prefetch foresaw, would count.
inline std::size_t outputs_per_task(std::size_t outputs, std::uint64_t work) {
  constexpr std::uint64_t kLeast = std::uint64_t{1} << 14;
  constexpr std::uint64_t kMost = std::uint64_t{1} << 16;
  const std::uint64_t task = std::clamp(work / 16, kLeast, kMost);
  const std::uint64_t each = std::max<std::uint64_t>(1, work / std::max<std::size_t>(1, outputs));
  return ceil_div(std::max<std::size_t>(1, task / each), kLanes) * kLanes;
}

// Asks for what is read once, in turn, some way behind `now`. The processor's own prefetcher
// follows a single stream too slowly: weights from memory came at 11 GB/s without this, at 40 with
// it.
SECATEUR_INLINE void prefetch_ahead(const void* now) noexcept {
  constexpr std::size_t kAhead = 8192;
  // The address may lie past the end of the array, where pointer arithmetic may not go.
  const auto address = reinterpret_cast<std::uintptr_t>(now) + kAhead;
  __builtin_prefetch(reinterpret_cast<const void*>(address));  // NOLINT(performance-no-int-to-ptr)
}

struct FinishArgs {
  const Samples* samples;
  const Finish* finish;
  std::size_t outputs;  // of y
  std::size_t first_row;
  std::size_t last_row;
  std::size_t first_output;
  std::size_t last_output;
};

// Finishes the sums that stand in a part of y. Apart from the kernels, so that every activation is
// compiled once per instruction set and not once per shape of the sums.
void finish_block(const FinishArgs& args);

}  // namespace secateur
