#include "secateur/saliency.hpp"

#include <atomic>
#include <bit>
#include <cmath>
#include <vector>

#include "formats.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

constexpr std::size_t kSegment = 4096;  // elements that one call of a body handles at most

template <class Bits>
struct Run {
  const Bits* data;
  std::size_t size;
};

template <class Format>
struct LargestMagnitude {
  using Bits = typename Format::Bits;
  static SECATEUR_INLINE Bits run(const Run<Bits>& args) {
    Bits largest = 0;
    for (std::size_t i = 0; i < args.size; ++i) {
      largest = std::max<Bits>(largest, args.data[i] & kMagnitudeBits<Bits>);
    }
    return largest;
  }
};

template <class Format>
bool all_finite_as(const Matrix& matrix) {
  using Bits = typename Format::Bits;
  const auto* data = static_cast<const Bits*>(matrix.data);
  const std::size_t size = matrix.outer * matrix.inner;
  const auto largest = variant<LargestMagnitude<Format>, Run<Bits>>();
  std::atomic<bool> finite{true};
  parallel_spans(ceil_div(size, kSegment), kSegment, [&](std::size_t begin, std::size_t end) {
    const std::size_t first = begin * kSegment;
    const std::size_t last = std::min(size, end * kSegment);
    if (largest({data + first, last - first}) >= Format::infinity) finite = false;
  });
  return finite;
}

SECATEUR_INLINE double add_lanes(double* lanes, std::size_t stride) {
  for (std::size_t half = kSumLanes / 2; half > 0; half /= 2) {
    for (std::size_t lane = 0; lane < half; ++lane) {
      lanes[lane * stride] += lanes[(lane + half) * stride];
    }
  }
  return lanes[0];
}

template <class Bits>
struct InnerSum {
  const Bits* data;
  std::size_t size;
  const double* weights;
};

template <class Format, bool kWeighted>
struct SumInner {
  using Bits = typename Format::Bits;

  static SECATEUR_INLINE double term(const InnerSum<Bits>& args, std::size_t i) {
    const double value = Format::widen(args.data[i]);
    if constexpr (kWeighted) return value * value * args.weights[i];
    return value * value;
  }

  static SECATEUR_INLINE double run(const InnerSum<Bits>& args) {
    double lanes[kSumLanes] = {};
    std::size_t i = 0;
    for (; i + kSumLanes <= args.size; i += kSumLanes) {
      for (std::size_t lane = 0; lane < kSumLanes; ++lane) lanes[lane] += term(args, i + lane);
    }
    for (std::size_t lane = 0; i + lane < args.size; ++lane) lanes[lane] += term(args, i + lane);
    return add_lanes(lanes, 1);
  }
};

constexpr std::size_t kTile = 256;  // columns summed at a time: 16 lanes of them fill 32 KiB

template <class Bits>
struct OuterSum {
  const Bits* data;
  std::size_t stride;
  std::size_t rows;
  std::size_t cols;  // at most kTile
  const double* weights;
  double* sums;
};

template <class Format>
struct SumOuter {
  using Bits = typename Format::Bits;
  static SECATEUR_INLINE int run(const OuterSum<Bits>& args) {
    double lanes[kSumLanes * kTile] = {};
    for (std::size_t r = 0; r < args.rows; ++r) {
      const Bits* row = args.data + r * args.stride;
      double* lane = lanes + (r % kSumLanes) * kTile;
      const double weight = args.weights == nullptr ? 1.0 : args.weights[r];
      for (std::size_t c = 0; c < args.cols; ++c) {
        const double value = Format::widen(row[c]);
        lane[c] += value * value * weight;
      }
    }
    for (std::size_t c = 0; c < args.cols; ++c) args.sums[c] = add_lanes(lanes + c, kTile);
    return 0;
  }
};

// partial[chunk * kept + i] -> sums[i]
bool add_chunks(const std::vector<double>& partial, std::size_t kept, double* sums) {
  std::fill(sums, sums + kept, 0.0);
  for (std::size_t start = 0; start < partial.size(); start += kept) {
    for (std::size_t i = 0; i < kept; ++i) sums[i] += partial[start + i];
  }
  return std::all_of(sums, sums + kept, [](double sum) { return std::isfinite(sum); });
}

template <class Format>
bool sum_inner(const Matrix& matrix, const double* weights, double* sums) {
  using Bits = typename Format::Bits;
  const auto* data = static_cast<const Bits*>(matrix.data);
  const std::size_t chunks = ceil_div(matrix.inner, kSumChunk);
  std::vector<double> partial(chunks * matrix.outer);
  const auto sum = weights == nullptr ? variant<SumInner<Format, false>, InnerSum<Bits>>()
                                      : variant<SumInner<Format, true>, InnerSum<Bits>>();
  parallel_spans(partial.size(), std::min(matrix.inner, kSumChunk),
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t item = begin; item < end; ++item) {
                     const std::size_t row = item / chunks;
                     const std::size_t chunk = item % chunks;
                     const std::size_t first = chunk * kSumChunk;
                     const std::size_t size = std::min(kSumChunk, matrix.inner - first);
                     partial[chunk * matrix.outer + row] =
                         sum({data + row * matrix.inner + first, size,
                              weights == nullptr ? nullptr : weights + first});
                   }
                 });
  return add_chunks(partial, matrix.outer, sums);
}

template <class Format>
bool sum_outer(const Matrix& matrix, const double* weights, double* sums) {
  using Bits = typename Format::Bits;
  const auto* data = static_cast<const Bits*>(matrix.data);
  const std::size_t chunks = ceil_div(matrix.outer, kSumChunk);
  const std::size_t tiles = ceil_div(matrix.inner, kTile);
  std::vector<double> partial(chunks * matrix.inner);
  const auto sum = variant<SumOuter<Format>, OuterSum<Bits>>();
  parallel_spans(
      chunks * tiles, std::min(matrix.outer, kSumChunk) * kTile,
      [&](std::size_t begin, std::size_t end) {
        for (std::size_t item = begin; item < end; ++item) {
          const std::size_t row = item / tiles * kSumChunk;
          const std::size_t col = item % tiles * kTile;
          sum({data + row * matrix.inner + col, matrix.inner,
               std::min(kSumChunk, matrix.outer - row), std::min(kTile, matrix.inner - col),
               weights == nullptr ? nullptr : weights + row,
               partial.data() + item / tiles * matrix.inner + col});
        }
      });
  return add_chunks(partial, matrix.inner, sums);
}

// One run of weights that share their outer factor.
template <class Format>
struct ScaledRun {
  const typename Format::Bits* data;
  std::size_t size;
  double outer;
  const double* inner;  // null: a factor of 1, a term of 0
  bool inner_first;     // which factor is the row's, and so the first to be multiplied
  Combine combine;
  typename Format::Score* out;
};

template <class Format>
struct ScaleRun {
  using Score = typename Format::Score;

  // Each branch is a loop of its own, for the vectoriser's sake.
  static SECATEUR_INLINE bool run(const ScaledRun<Format>& args) {
    if (args.combine == Combine::root_sum) {
      return args.inner == nullptr ? each<3>(args) : each<2>(args);
    }
    if (args.inner == nullptr) return each<4>(args);
    return args.inner_first ? each<1>(args) : each<0>(args);
  }

  template <int kForm>
  static SECATEUR_INLINE bool each(const ScaledRun<Format>& args) {
    using Bits = std::conditional_t<sizeof(Score) == 4, std::uint32_t, std::uint64_t>;
    Bits largest = 0;
    for (std::size_t i = 0; i < args.size; ++i) {
      const double magnitude = std::fabs(Format::widen(args.data[i]));
      const auto score = static_cast<Score>(magnitude_scaled<kForm>(magnitude, args, i));
      args.out[i] = score;
      const Bits bits = std::bit_cast<Bits>(score) & kMagnitudeBits<Bits>;
      largest = std::max(largest, bits);
    }
    using Result = std::conditional_t<sizeof(Score) == 4, Float32, Float64>;
    return largest < Result::infinity;
  }

  template <int kForm>
  static SECATEUR_INLINE double magnitude_scaled(double magnitude, const ScaledRun<Format>& args,
                                                 std::size_t i) {
    if constexpr (kForm == 0) return magnitude * args.outer * args.inner[i];
    if constexpr (kForm == 1) return magnitude * args.inner[i] * args.outer;
    if constexpr (kForm == 2) return magnitude * std::sqrt(args.inner[i] + args.outer);
    if constexpr (kForm == 3) return magnitude * std::sqrt(args.outer);
    return magnitude * args.outer;
  }
};

template <class Format>
bool scaled_magnitude_as(const Matrix& matrix, bool transposed, const Scales& scales, void* out) {
  const auto* data = static_cast<const typename Format::Bits*>(matrix.data);
  auto* scores = static_cast<typename Format::Score*>(out);
  const double* outer = transposed ? scales.col : scales.row;
  const double* inner = transposed ? scales.row : scales.col;
  const double missing = scales.combine == Combine::product ? 1.0 : 0.0;
  const std::size_t segments = ceil_div(matrix.inner, kSegment);
  const auto scale = variant<ScaleRun<Format>, ScaledRun<Format>>();
  std::atomic<bool> finite{true};
  parallel_spans(matrix.outer * segments, std::min(matrix.inner, kSegment),
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t item = begin; item < end; ++item) {
                     const std::size_t row = item / segments;
                     const std::size_t first = item % segments * kSegment;
                     const std::size_t start = row * matrix.inner + first;
                     if (!scale({data + start, std::min(kSegment, matrix.inner - first),
                                 outer == nullptr ? missing : outer[row],
                                 inner == nullptr ? nullptr : inner + first, transposed,
                                 scales.combine, scores + start})) {
                       finite = false;
                     }
                   }
                 });
  return finite;
}

}  // namespace

bool all_finite(const Matrix& matrix) {
  return with_format(matrix.dtype,
                     [&](auto format) { return all_finite_as<decltype(format)>(matrix); });
}

bool squared_sums(const Matrix& matrix, bool reduce_inner, const double* weights, double* sums) {
  return with_format(matrix.dtype, [&](auto format) {
    using Format = decltype(format);
    return reduce_inner ? sum_inner<Format>(matrix, weights, sums)
                        : sum_outer<Format>(matrix, weights, sums);
  });
}

bool scaled_magnitude(const Matrix& matrix, bool transposed, const Scales& scales, void* out) {
  return with_format(matrix.dtype, [&](auto format) {
    return scaled_magnitude_as<decltype(format)>(matrix, transposed, scales, out);
  });
}

}  // namespace secateur
