#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <vector>

#include "secateur/peak.hpp"
#include "secateur/threads.hpp"
#include "spmm_vector.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

constexpr std::size_t kRepeats = 1U << 18;

struct PeakArgs {
  float factor;
  float term;
  float* result;
};

// Chains of FMAs enough to hide their latency, few enough for the registers.
template <std::size_t Chains>
struct FmaChains {
  static constexpr double kFlops = 2.0 * kRepeats * Chains * kLanes;

  static SECATEUR_INLINE void run(const PeakArgs& args) {
    Floats acc[Chains];
    for (std::size_t i = 0; i < Chains; ++i) acc[i] = static_cast<float>(i) + Floats{};
    const Floats factor = args.factor + Floats{};
    const Floats term = args.term + Floats{};
    for (std::size_t n = 0; n < kRepeats; ++n) {
#pragma GCC unroll 16
      for (std::size_t i = 0; i < Chains; ++i) acc[i] = acc[i] * factor + term;
    }
    for (std::size_t i = 1; i < Chains; ++i) acc[0] += acc[i];
    *args.result = sum_lanes(acc[0]);
  }
};

struct Yardstick {
  void (*run)(const PeakArgs&);
  double flops;
};

Yardstick yardstick() {
  const Yardstick plain{&run_plain<FmaChains<2>, PeakArgs>, FmaChains<2>::kFlops};
#if SECATEUR_X86
  return pick(plain, Yardstick{&run_fma256<FmaChains<6>, PeakArgs>, FmaChains<6>::kFlops},
              Yardstick{&run_fma512<FmaChains<16>, PeakArgs>, FmaChains<16>::kFlops});
#else
  return plain;
#endif
}

double now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(since).count();
}

}  // namespace

// Every thread is timed by itself and its best round counts: rounds of one would wait for the
// others, and measure how the system shares out its cores.
double measure_peak_flops(int rounds) {
  const Yardstick measured = yardstick();
  const auto threads = static_cast<std::size_t>(num_threads());
  std::vector<double> best(threads, 0.0);
  std::vector<float> results(threads);
  std::atomic<std::size_t> here{0};
  parallel_for(threads, [&](std::size_t task) {
    // One task a thread, if all come within a moment.
    ++here;
    const double patience = now() + 0.1;
    while (here.load() < threads && now() < patience) {
    }
    for (int round = 0; round < rounds; ++round) {
      const double start = now();
      measured.run({0.999999F, 1e-9F, &results[task]});
      best[task] = std::max(best[task], measured.flops / (now() - start));
    }
  });
  double total = 0;
  for (const double one : best) total += one;
  return total;
}

}  // namespace secateur
