#include <algorithm>
#include <cmath>

#include "neural_softmax.hpp"
#include "secateur/neural.hpp"
#include "spmm_vector.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

struct SoftmaxArgs {
  const Rows* rows;
  std::size_t begin;
  std::size_t end;
};

struct SoftmaxRows {
  static SECATEUR_INLINE void run(const SoftmaxArgs& args) {
    const std::size_t width = args.rows->width;
    for (std::size_t row = args.begin; row < args.end; ++row) {
      softmax_row(args.rows->x + row * width, args.rows->y + row * width, width);
    }
  }
};

struct NormArgs {
  const Rows* rows;
  RowNorm norm;
  const float* scale;
  const float* offset;
  float epsilon;
  std::size_t begin;
  std::size_t end;
};

SECATEUR_INLINE float mean_of(const float* x, std::size_t width, float middle, bool squared) {
  Floats total{};
  float rest = 0;
  const std::size_t whole = width / kLanes * kLanes;
  for (std::size_t i = 0; i < whole; i += kLanes) {
    Floats value;
    load(value, x + i);
    value = value - middle;
    total = total + (squared ? value * value : value);
  }
  for (std::size_t i = whole; i < width; ++i) {
    const float value = x[i] - middle;
    rest += squared ? value * value : value;
  }
  return (sum_lanes(total) + rest) / static_cast<float>(width);
}

struct NormalizeRows {
  static SECATEUR_INLINE void run(const NormArgs& args) {
    const std::size_t width = args.rows->width;
    for (std::size_t row = args.begin; row < args.end; ++row) {
      const float* x = args.rows->x + row * width;
      float* y = args.rows->y + row * width;
      const float mean = args.norm == RowNorm::layer ? mean_of(x, width, 0, false) : 0;
      const float factor = 1.0F / std::sqrt(mean_of(x, width, mean, true) + args.epsilon);
      for (std::size_t i = 0; i < width; i += kLanes) {
        const std::size_t here = std::min(kLanes, width - i);
        Floats value;
        Floats other;
        load_some(value, x + i, here);
        value = (value - mean) * factor;
        if (args.scale != nullptr) {
          load_some(other, args.scale + i, here);
          value = value * other;
        }
        if (args.offset != nullptr) {
          load_some(other, args.offset + i, here);
          value = value + other;
        }
        store_some(y + i, value, here);
      }
    }
  }
};

}  // namespace

void softmax_rows(const Rows& rows) {
  const auto kernel = fma_variant<SoftmaxRows, SoftmaxArgs>();
  parallel_spans(rows.rows, 4 * rows.width,
                 [&](std::size_t begin, std::size_t end) { kernel({&rows, begin, end}); });
}

void normalize_rows(const Rows& rows, RowNorm norm, const float* scale, const float* offset,
                    float epsilon) {
  const auto kernel = fma_variant<NormalizeRows, NormArgs>();
  parallel_spans(rows.rows, 4 * rows.width, [&](std::size_t begin, std::size_t end) {
    kernel({&rows, norm, scale, offset, epsilon, begin, end});
  });
}

}  // namespace secateur
