// Few samples: outputs one after another, the weights in the vector direction.
#include <algorithm>
#include <bit>
#include <cstdint>

#include "secateur/spmm.hpp"
#include "spmm_tasks.hpp"
#include "spmm_vector.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

// Samples that one expansion of the weights serves.
constexpr std::size_t kMaxSamples = 8;
// Words in flight, so that an FMA need not wait for the one before.
constexpr std::size_t kChains = 4;

// `Expand::words(values, mask, to)` spreads the next values over the mask's set bits.
struct ExpandPlain {
  static SECATEUR_INLINE void word(const float* values, std::uint32_t mask, Floats& to) {
    float lanes[kLanes];
    for (std::size_t i = 0; i < kLanes; ++i) {
      const bool here = ((mask >> i) & 1U) != 0;
      lanes[i] = here ? *values : 0.0F;
      values += here ? 1 : 0;
    }
    load(to, lanes);
  }
};

#if SECATEUR_X86

// For each byte of mask: where in the next eight values each lane finds its own.
struct LaneTable {
  alignas(64) std::uint8_t lanes[256][8];
};

constexpr LaneTable make_lane_table() {
  LaneTable table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    std::uint8_t next = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      table.lanes[mask][lane] = next;
      if (((mask >> lane) & 1U) != 0) ++next;
    }
  }
  return table;
}

constexpr LaneTable kLaneTable = make_lane_table();

struct ExpandAvx2 {
  static SECATEUR_TARGET_FMA256 inline __m256 half(const float* values, std::uint32_t mask) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set =
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bits), bits);
    const __m256i lanes = _mm256_cvtepu8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kLaneTable.lanes[mask])));
    const __m256 moved = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), lanes);
    return _mm256_and_ps(moved, _mm256_castsi256_ps(set));
  }

  static SECATEUR_TARGET_FMA256 inline void word(const float* values, std::uint32_t mask,
                                                 Floats& to) {
    const std::uint32_t low = mask & 0xFFU;
    const __m256 parts[2] = {half(values, low), half(values + std::popcount(low), mask >> 8U)};
    std::memcpy(&to, parts, sizeof(to));
  }
};

struct ExpandAvx512 {
  static SECATEUR_TARGET_FMA512 inline void word(const float* values, std::uint32_t mask,
                                                 Floats& to) {
    const __m512 moved = expand_lanes(values, mask);
    std::memcpy(&to, &moved, sizeof(to));
  }
};

#endif

struct RowArgs {
  const Bitmask* weights;
  const Samples* samples;
  std::size_t first_row;
  std::size_t first_output;
  std::size_t last_output;
};

template <std::size_t Num, std::size_t Chains>
struct Sums {
  Floats acc[Chains][Num];
};

template <class Expand, std::size_t Num, std::size_t Chains>
SECATEUR_INLINE void add_word(const RowArgs& args, const float*& values, std::uint32_t mask,
                              std::size_t input, std::size_t chain, Sums<Num, Chains>& sums) {
  Floats weight;
  Expand::word(values, mask, weight);
  const std::size_t fixed = args.weights->per_word;
  values += fixed > 0 ? fixed : static_cast<std::size_t>(std::popcount(mask));
  const float* x = args.samples->x + args.first_row * args.weights->inputs + input;
#pragma GCC unroll 8
  for (std::size_t m = 0; m < Num; ++m) {
    Floats samples;
    load(samples, x + m * args.weights->inputs);
    sums.acc[chain][m] += weight * samples;
  }
}

template <class Expand, std::size_t Num>
SECATEUR_INLINE void multiply_output(const RowArgs& args, std::size_t output, float* totals) {
  constexpr std::size_t kHere = std::max<std::size_t>(1, kChains / Num);
  const Bitmask& w = *args.weights;
  const std::size_t words = w.inputs / kLanes;
  const std::uint16_t* masks = w.masks + output * ceil_div(w.inputs, kLanes);
  const float* values = w.values + w.starts[output];
  Sums<Num, kHere> sums{};
  std::size_t word = 0;
  for (; word + kHere <= words; word += kHere) {
#pragma GCC unroll 4
    for (std::size_t c = 0; c < kHere; ++c) {
      add_word<Expand>(args, values, masks[word + c], (word + c) * kLanes, c, sums);
    }
  }
  for (; word < words; ++word) {
    add_word<Expand>(args, values, masks[word], word * kLanes, 0, sums);
  }
  for (std::size_t m = 0; m < Num; ++m) {
    for (std::size_t c = 1; c < kHere; ++c) sums.acc[0][m] += sums.acc[c][m];
    float total = sum_lanes(sums.acc[0][m]);
    const float* x = args.samples->x + (args.first_row + m) * w.inputs;
    const float* next = values;
    for (std::size_t input = words * kLanes; input < w.inputs; ++input) {
      if (((masks[words] >> (input % kLanes)) & 1U) != 0) total += *next++ * x[input];
    }
    totals[m * kLanes] = total;
  }
}

template <class Expand, std::size_t Num>
SECATEUR_INLINE void multiply_outputs(const RowArgs& args) {
  const std::size_t all = args.weights->outputs;
  for (std::size_t first = args.first_output; first < args.last_output; first += kLanes) {
    const std::size_t here = std::min(kLanes, args.last_output - first);
    float totals[Num * kLanes] = {};
    for (std::size_t i = 0; i < here; ++i) {
      multiply_output<Expand, Num>(args, first + i, totals + i);
    }
    for (std::size_t m = 0; m < Num; ++m) {
      Floats sums;
      load(sums, totals + m * kLanes);
      store_some(args.samples->y + (args.first_row + m) * all + first, sums, here);
    }
  }
}

template <class Expand, std::size_t Num>
struct MultiplyOutputs {
  static SECATEUR_INLINE void run(const RowArgs& args) { multiply_outputs<Expand, Num>(args); }
};

using RowKernel = void (*)(const RowArgs&);

template <std::size_t Num>
RowKernel bitmask_kernel() {
#if SECATEUR_X86
  return pick(&run_plain<MultiplyOutputs<ExpandPlain, Num>, RowArgs>,
              &run_fma256<MultiplyOutputs<ExpandAvx2, Num>, RowArgs>,
              &run_fma512<MultiplyOutputs<ExpandAvx512, Num>, RowArgs>);
#else
  return &run_plain<MultiplyOutputs<ExpandPlain, Num>, RowArgs>;
#endif
}

RowKernel bitmask_kernel(std::size_t num) {
  switch (num) {
    case 1:
      return bitmask_kernel<1>();
    case 2:
      return bitmask_kernel<2>();
    case 3:
      return bitmask_kernel<3>();
    case 4:
      return bitmask_kernel<4>();
    case 5:
      return bitmask_kernel<5>();
    case 6:
      return bitmask_kernel<6>();
    case 7:
      return bitmask_kernel<7>();
    default:
      return bitmask_kernel<8>();
  }
}

// ---- CSR: sixteen inputs gathered at a time ----

struct CsrArgs {
  const ShortCsr* weights;
  const Samples* samples;
  std::size_t row;
  std::size_t first_output;
  std::size_t last_output;
};

struct GatherPlain {
  static SECATEUR_INLINE void lanes(const float* x, const std::uint16_t* columns, Floats& to) {
    float found[kLanes];
    for (std::size_t i = 0; i < kLanes; ++i) found[i] = x[columns[i]];
    load(to, found);
  }
};

#if SECATEUR_X86
struct GatherAvx512 {
  static SECATEUR_TARGET_FMA512 inline void lanes(const float* x, const std::uint16_t* columns,
                                                  Floats& to) {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns)));
    const __m512 found = _mm512_i32gather_ps(wide, x, 4);
    std::memcpy(&to, &found, sizeof(to));
  }
};
#endif

template <class Gather>
SECATEUR_INLINE float csr_output(const CsrArgs& args, std::size_t output) {
  const ShortCsr& w = *args.weights;
  const float* x = args.samples->x + args.row * w.inputs;
  std::size_t at = w.starts[output];
  const std::size_t end = w.starts[output + 1];
  Floats sums[2] = {};
  for (; at + 2 * kLanes <= end; at += 2 * kLanes) {
#pragma GCC unroll 2
    for (std::size_t c = 0; c < 2; ++c) {
      Floats samples;
      Floats values;
      Gather::lanes(x, w.columns + at + c * kLanes, samples);
      load(values, w.values + at + c * kLanes);
      sums[c] += values * samples;
    }
  }
  sums[0] += sums[1];
  float total = sum_lanes(sums[0]);
  for (; at < end; ++at) total += w.values[at] * x[w.columns[at]];
  return total;
}

template <class Gather>
struct CsrOutputs {
  static SECATEUR_INLINE void run(const CsrArgs& args) {
    for (std::size_t first = args.first_output; first < args.last_output; first += kLanes) {
      const std::size_t here = std::min(kLanes, args.last_output - first);
      float totals[kLanes] = {};
      for (std::size_t i = 0; i < here; ++i) totals[i] = csr_output<Gather>(args, first + i);
      Floats sums;
      load(sums, totals);
      store_some(args.samples->y + args.row * args.weights->outputs + first, sums, here);
    }
  }
};

auto csr_kernel() {
#if SECATEUR_X86
  return pick(&run_plain<CsrOutputs<GatherPlain>, CsrArgs>,
              &run_fma256<CsrOutputs<GatherPlain>, CsrArgs>,
              &run_fma512<CsrOutputs<GatherAvx512>, CsrArgs>);
#else
  return &run_plain<CsrOutputs<GatherPlain>, CsrArgs>;
#endif
}

struct FinishBlock {
  static SECATEUR_INLINE void run(const FinishArgs& args) {
    for (std::size_t row = args.first_row; row < args.last_row; ++row) {
      const std::size_t offset = row * args.outputs;
      Floats sums;
      for (std::size_t n = args.first_output; n < args.last_output; n += kLanes) {
        const std::size_t here = std::min(kLanes, args.last_output - n);
        load_some(sums, args.samples->y + offset + n, here);
        finish_some(sums, *args.finish, n, offset + n, here, args.samples->y);
      }
    }
  }
};

}  // namespace

void finish_block(const FinishArgs& args) {
  const Finish& finish = *args.finish;
  const bool is_nothing = finish.bias == nullptr && finish.residual == nullptr &&
                          finish.activation == Activation::linear;
  if (!is_nothing) fma_variant<FinishBlock, FinishArgs>()(args);
}

void multiply_bitmask(const Bitmask& weights, const Samples& samples, const Finish& finish) {
  const std::uint64_t words = weights.outputs * ceil_div(weights.inputs, kLanes);
  const std::uint64_t work = weights.starts[weights.outputs] + 4 * words;
  const std::size_t step = outputs_per_task(weights.outputs, work);
  parallel_for(ceil_div(weights.outputs, step), [&](std::size_t task) {
    const std::size_t begin = task * step;
    const std::size_t end = std::min(weights.outputs, begin + step);
    for (std::size_t row = 0; row < samples.rows; row += kMaxSamples) {
      const std::size_t num = std::min(kMaxSamples, samples.rows - row);
      bitmask_kernel(num)({&weights, &samples, row, begin, end});
    }
    finish_block({&samples, &finish, weights.outputs, 0, samples.rows, begin, end});
  });
}

void multiply_short_csr(const ShortCsr& weights, const Samples& samples, const Finish& finish) {
  const auto kernel = csr_kernel();
  const std::size_t step = outputs_per_task(weights.outputs, weights.starts[weights.outputs]);
  parallel_for(ceil_div(weights.outputs, step), [&](std::size_t task) {
    const std::size_t begin = task * step;
    const std::size_t end = std::min(weights.outputs, begin + step);
    for (std::size_t row = 0; row < samples.rows; ++row) {
      kernel({&weights, &samples, row, begin, end});
    }
    finish_block({&samples, &finish, weights.outputs, 0, samples.rows, begin, end});
  });
}

void finish_rows(const Samples& samples, std::size_t outputs, const Finish& finish) {
  parallel_spans(samples.rows, 4 * outputs, [&](std::size_t begin, std::size_t end) {
    finish_block({&samples, &finish, outputs, begin, end, 0, outputs});
  });
}

}  // namespace secateur
