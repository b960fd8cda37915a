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
// Words of a step.
constexpr std::size_t kWords = 4;
// From so many samples on, two outputs share each that is loaded, where registers suffice.
constexpr std::size_t kMinPaired = 3;

// `Expand::word(values, mask, to)` spreads the next values over the mask's set bits;
// `Expand::add_product(weight, samples, sum)` is a multiply-add of a word.
struct ExpandPlain {
  static constexpr std::size_t kSide = 1;
  using Word = Floats;

  static SECATEUR_INLINE void add_product(const Floats& weight, const float* samples, Floats& sum) {
    Floats x;
    load(x, samples);
    sum += weight * x;
  }

  static SECATEUR_INLINE void add(const Floats& other, Floats& sum) { sum += other; }

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

// For each byte of mask: where in the next eight values each lane finds its own; below zero for
// lanes without one.
struct LaneTable {
  alignas(64) std::int8_t lanes[256][8];
};

constexpr LaneTable make_lane_table() {
  LaneTable table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    std::int8_t next = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      const bool here = ((mask >> lane) & 1U) != 0;
      table.lanes[mask][lane] = here ? next : std::int8_t{-1};
      if (here) ++next;
    }
  }
  return table;
}

constexpr LaneTable kLaneTable = make_lane_table();

// Two registers: what the compiler makes of one vector of their size goes through memory.
struct Halves {
  __m256 low;
  __m256 high;
};

struct ExpandAvx2 {
  static constexpr std::size_t kSide = 1;
  using Word = Halves;

  static SECATEUR_TARGET_FMA256 inline void add_product(const Halves& weight, const float* samples,
                                                        Halves& sum) {
    sum.low = _mm256_fmadd_ps(weight.low, _mm256_loadu_ps(samples), sum.low);
    sum.high = _mm256_fmadd_ps(weight.high, _mm256_loadu_ps(samples + 8), sum.high);
  }

  static SECATEUR_TARGET_FMA256 inline void add(const Halves& other, Halves& sum) {
    sum.low = _mm256_add_ps(sum.low, other.low);
    sum.high = _mm256_add_ps(sum.high, other.high);
  }

  static SECATEUR_TARGET_FMA256 inline __m256 half(const float* values, std::uint32_t mask) {
    const __m256i lanes = _mm256_cvtepi8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kLaneTable.lanes[mask])));
    const __m256 moved = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), lanes);
    return _mm256_blendv_ps(moved, _mm256_setzero_ps(), _mm256_castsi256_ps(lanes));
  }

  static SECATEUR_TARGET_FMA256 inline void word(const float* values, std::uint32_t mask,
                                                 Halves& to) {
    const std::uint32_t low = mask & 0xFFU;
    to.low = half(values, low);
    to.high = half(values + std::popcount(low), mask >> 8U);
  }
};

struct ExpandAvx512 {
  static constexpr std::size_t kSide = 2;
  using Word = __m512;

  static SECATEUR_TARGET_FMA512 inline void add_product(const __m512& weight, const float* samples,
                                                        __m512& sum) {
    sum = _mm512_fmadd_ps(weight, _mm512_loadu_ps(samples), sum);
  }

  static SECATEUR_TARGET_FMA512 inline void add(const __m512& other, __m512& sum) {
    sum = _mm512_add_ps(sum, other);
  }

  static SECATEUR_TARGET_FMA512 inline void word(const float* values, std::uint32_t mask,
                                                 __m512& to) {
    to = expand_lanes(values, mask);
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

// Some outputs whose weights meet the same samples while these are in registers.
template <std::size_t Side>
struct Outputs {
  const float* values[Side];
  const std::uint16_t* masks[Side];
};

// Sums of Side outputs and Num samples, some of them in several chains, so that no FMA waits for
// the one before.
template <class Expand, std::size_t Side, std::size_t Num>
struct Sums {
  static constexpr std::size_t kChains = std::max<std::size_t>(1, kWords / (Side * Num));
  typename Expand::Word chains[kChains][Side][Num];
};

// The weights of one word of each output, times the samples.
template <class Expand, std::size_t Side, std::size_t Num>
SECATEUR_INLINE void add_products(const RowArgs& args, const typename Expand::Word (&weights)[Side],
                                  std::size_t input, typename Expand::Word (&sums)[Side][Num]) {
  const float* x = args.samples->x + args.first_row * args.weights->inputs + input;
#pragma GCC unroll 8
  for (std::size_t m = 0; m < Num; ++m) {
#pragma GCC unroll 2
    for (std::size_t side = 0; side < Side; ++side) {
      Expand::add_product(weights[side], x + m * args.weights->inputs, sums[side][m]);
    }
  }
}

SECATEUR_INLINE std::size_t values_of(const Bitmask& weights, std::uint64_t masks,
                                      std::size_t words) {
  return weights.per_word > 0 ? words * weights.per_word
                              : static_cast<std::size_t>(std::popcount(masks));
}

// Four words; where the values of each begin is counted from the first of them, so that none waits
// for the one before.
template <class Expand, std::size_t Side, std::size_t Num>
SECATEUR_INLINE void add_words(const RowArgs& args, Outputs<Side>& outputs, std::size_t word,
                               Sums<Expand, Side, Num>& sums) {
  static_assert(std::endian::native == std::endian::little);
  const Bitmask& w = *args.weights;
  std::uint64_t all[Side];
#pragma GCC unroll 2
  for (std::size_t side = 0; side < Side; ++side) {
    std::memcpy(&all[side], outputs.masks[side] + word, sizeof(all[side]));
    prefetch_ahead(outputs.values[side]);
    prefetch_ahead(outputs.values[side] + kLanes);
  }
#pragma GCC unroll 4
  for (std::size_t c = 0; c < kWords; ++c) {
    typename Expand::Word weights[Side];
#pragma GCC unroll 2
    for (std::size_t side = 0; side < Side; ++side) {
      const std::uint64_t before = all[side] & ((std::uint64_t{1} << (c * kLanes)) - 1);
      const auto mask = static_cast<std::uint32_t>(all[side] >> (c * kLanes)) & 0xFFFFU;
      Expand::word(outputs.values[side] + values_of(w, before, c), mask, weights[side]);
    }
    constexpr std::size_t kChains = Sums<Expand, Side, Num>::kChains;
    add_products<Expand>(args, weights, (word + c) * kLanes, sums.chains[c % kChains]);
  }
#pragma GCC unroll 2
  for (std::size_t side = 0; side < Side; ++side) {
    outputs.values[side] += values_of(w, all[side], kWords);
  }
}

template <class Expand, std::size_t Side, std::size_t Num>
SECATEUR_INLINE void add_word(const RowArgs& args, Outputs<Side>& outputs, std::size_t word,
                              Sums<Expand, Side, Num>& sums) {
  typename Expand::Word weights[Side];
  for (std::size_t side = 0; side < Side; ++side) {
    const std::uint32_t mask = outputs.masks[side][word];
    Expand::word(outputs.values[side], mask, weights[side]);
    outputs.values[side] += values_of(*args.weights, mask, 1);
  }
  add_products<Expand>(args, weights, word * kLanes, sums.chains[0]);
}

// The products of the inputs behind the last whole word.
SECATEUR_INLINE float add_rest(const Bitmask& weights, const float* values, std::uint32_t mask,
                               const float* x) {
  float total = 0;
  for (std::size_t i = 0; i < weights.inputs % kLanes; ++i) {
    if (((mask >> i) & 1U) != 0) total += *values++ * x[i];
  }
  return total;
}

// Outputs first and first + 1 if Side is 2; past the last it is the last once more.
template <class Expand, std::size_t Side, std::size_t Num>
SECATEUR_INLINE void multiply_side(const RowArgs& args, std::size_t first,
                                   float (&totals)[Side][Num]) {
  using All = Sums<Expand, Side, Num>;
  const Bitmask& w = *args.weights;
  const std::size_t words = w.inputs / kLanes;
  Outputs<Side> outputs;
  for (std::size_t side = 0; side < Side; ++side) {
    const std::size_t output = std::min(first + side, args.last_output - 1);
    outputs.values[side] = w.values + w.starts[output];
    outputs.masks[side] = w.masks + output * ceil_div(w.inputs, kLanes);
  }
  All sums{};
  std::size_t word = 0;
  for (; word + kWords <= words; word += kWords) add_words<Expand>(args, outputs, word, sums);
  for (; word < words; ++word) add_word<Expand>(args, outputs, word, sums);
#pragma GCC unroll 2
  for (std::size_t side = 0; side < Side; ++side) {
#pragma GCC unroll 8
    for (std::size_t m = 0; m < Num; ++m) {
#pragma GCC unroll 4
      for (std::size_t c = 1; c < All::kChains; ++c) {
        Expand::add(sums.chains[c][side][m], sums.chains[0][side][m]);
      }
      Floats total;
      std::memcpy(&total, &sums.chains[0][side][m], sizeof(total));
      totals[side][m] = sum_lanes(total);
    }
  }
  if (w.inputs % kLanes == 0) return;
  for (std::size_t side = 0; side < Side; ++side) {
    for (std::size_t m = 0; m < Num; ++m) {
      const float* x = args.samples->x + (args.first_row + m) * w.inputs + words * kLanes;
      totals[side][m] += add_rest(w, outputs.values[side], outputs.masks[side][words], x);
    }
  }
}

template <class Expand, std::size_t Num>
SECATEUR_INLINE void multiply_outputs(const RowArgs& args) {
  constexpr std::size_t kSide = Num < kMinPaired ? 1 : Expand::kSide;
  const std::size_t all = args.weights->outputs;
  for (std::size_t first = args.first_output; first < args.last_output; first += kLanes) {
    const std::size_t here = std::min(kLanes, args.last_output - first);
    float totals[Num][kLanes] = {};
    for (std::size_t i = 0; i < here; i += kSide) {
      float found[kSide][Num];
      multiply_side<Expand>(args, first + i, found);
      for (std::size_t side = 0; side < kSide; ++side) {
        for (std::size_t m = 0; m < Num; ++m) totals[m][i + side] = found[side][m];
      }
    }
    for (std::size_t m = 0; m < Num; ++m) {
      Floats sums;
      load(sums, totals[m]);
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
