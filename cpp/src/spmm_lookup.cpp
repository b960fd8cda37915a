// Very few samples: sixteen outputs side by side, inputs looked up in two registers.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "secateur/spmm.hpp"
#include "spmm_tasks.hpp"
#include "spmm_vector.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

// Samples that one pass over the weights serves.
constexpr std::size_t kMaxSamples = 4;

struct LookupPlain {
  // The next values on the lanes of the mask's set bits.
  static SECATEUR_INLINE void expand(const float* values, std::uint32_t mask, Floats& to) {
    float lanes[kLanes] = {};
    for (std::uint32_t bits = mask; bits != 0; bits &= bits - 1) {
      lanes[std::countr_zero(bits)] = *values++;
    }
    load(to, lanes);
  }

  // window[indices[lane]] for every lane.
  static SECATEUR_INLINE void find(const float* window, const std::uint8_t* indices, Floats& to) {
    float lanes[kLanes];
    for (std::size_t i = 0; i < kLanes; ++i) lanes[i] = window[indices[i]];
    load(to, lanes);
  }
};

#if SECATEUR_X86
struct Lookup512 {
  static SECATEUR_TARGET_FMA512 inline void expand(const float* values, std::uint32_t mask,
                                                   Floats& to) {
    const __m512 moved = expand_lanes(values, mask);
    std::memcpy(&to, &moved, sizeof(to));
  }

  static SECATEUR_TARGET_FMA512 inline void find(const float* window, const std::uint8_t* indices,
                                                 Floats& to) {
    const __m512i lanes =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(indices)));
    const __m512 found =
        _mm512_permutex2var_ps(_mm512_loadu_ps(window), lanes, _mm512_loadu_ps(window + kLanes));
    std::memcpy(&to, &found, sizeof(to));
  }
};
#endif

struct LookupArgs {
  const Lookup* weights;
  const Samples* samples;
  std::size_t first_row;
  std::size_t first_group;
  std::size_t last_group;
};

// Where each sample's windows lie; the last, if it is not whole, in a copy with zeros behind.
template <std::size_t Num>
struct Windows {
  const float* whole[Num];
  float rest[Num][kLookupWindow];
  std::size_t last;

  explicit Windows(const LookupArgs& args) : last(args.weights->inputs / kLookupWindow) {
    const std::size_t inputs = args.weights->inputs;
    for (std::size_t m = 0; m < Num; ++m) {
      whole[m] = args.samples->x + (args.first_row + m) * inputs;
      const std::size_t here = inputs % kLookupWindow;
      if (here > 0) std::memcpy(rest[m], whole[m] + inputs - here, here * sizeof(float));
      std::fill(rest[m] + here, rest[m] + kLookupWindow, 0.0F);
    }
  }

  const float* at(std::size_t sample, std::size_t window) const noexcept {
    return window == last ? rest[sample] : whole[sample] + window * kLookupWindow;
  }
};

template <class Level, std::size_t Num>
struct MultiplyGroups {
  static SECATEUR_INLINE void run(const LookupArgs& args) {
    const Lookup& w = *args.weights;
    const Windows<Num> windows(args);
    for (std::size_t group = args.first_group; group < args.last_group; ++group) {
      const float* values = w.values + w.starts[group].value;
      Floats sums[Num] = {};
      for (std::uint64_t step = w.starts[group].step; step < w.starts[group + 1].step; ++step) {
        const std::uint32_t mask = w.masks[step];
        Floats weight;
        prefetch_ahead(values);
        prefetch_ahead(w.indices + step * kLanes);
        Level::expand(values, mask, weight);
        values += std::popcount(mask);
#pragma GCC unroll 4
        for (std::size_t m = 0; m < Num; ++m) {
          Floats samples;
          Level::find(windows.at(m, w.windows[step]), w.indices + step * kLanes, samples);
          sums[m] += weight * samples;
        }
      }
      const std::size_t first = group * kLanes;
      for (std::size_t m = 0; m < Num; ++m) {
        store_some(args.samples->y + (args.first_row + m) * w.outputs + first, sums[m],
                   std::min(kLanes, w.outputs - first));
      }
    }
  }
};

using GroupKernel = void (*)(const LookupArgs&);

template <std::size_t Num>
GroupKernel lookup_kernel() {
#if SECATEUR_X86
  return pick(&run_plain<MultiplyGroups<LookupPlain, Num>, LookupArgs>,
              &run_fma256<MultiplyGroups<LookupPlain, Num>, LookupArgs>,
              &run_fma512<MultiplyGroups<Lookup512, Num>, LookupArgs>);
#else
  return &run_plain<MultiplyGroups<LookupPlain, Num>, LookupArgs>;
#endif
}

GroupKernel lookup_kernel(std::size_t num) {
  switch (num) {
    case 1:
      return lookup_kernel<1>();
    case 2:
      return lookup_kernel<2>();
    case 3:
      return lookup_kernel<3>();
    default:
      return lookup_kernel<4>();
  }
}

}  // namespace

void multiply_lookup(const Lookup& weights, const Samples& samples, const Finish& finish) {
  const std::size_t groups = ceil_div(weights.outputs, kLanes);
  const std::size_t step =
      outputs_per_task(weights.outputs, 8 * weights.starts[groups].step) / kLanes;
  parallel_for(ceil_div(groups, step), [&](std::size_t task) {
    const std::size_t begin = task * step;
    const std::size_t end = std::min(groups, begin + step);
    for (std::size_t row = 0; row < samples.rows; row += kMaxSamples) {
      const std::size_t num = std::min(kMaxSamples, samples.rows - row);
      lookup_kernel(num)({&weights, &samples, row, begin, end});
    }
    finish_block({&samples, &finish, weights.outputs, 0, samples.rows, begin * kLanes,
                  std::min(weights.outputs, end * kLanes)});
  });
}

}  // namespace secateur
