#include <algorithm>
#include <cmath>
#include <limits>

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

SECATEUR_INLINE float largest(const float* x, std::size_t width) {
  const std::size_t whole = width / kLanes * kLanes;
  float found = -std::numeric_limits<float>::infinity();
  if (whole > 0) {
    Floats most;
    load(most, x);
    for (std::size_t i = kLanes; i < whole; i += kLanes) {
      Floats next;
      load(next, x + i);
      most = most > next ? most : next;
    }
    found = max_lanes(most);
  }
  for (std::size_t i = whole; i < width; ++i) found = found > x[i] ? found : x[i];
  return found;
}

struct SoftmaxRows {
  static SECATEUR_INLINE void run(const SoftmaxArgs& args) {
    const std::size_t width = args.rows->width;
    for (std::size_t row = args.begin; row < args.end; ++row) {
      const float* x = args.rows->x + row * width;
      float* y = args.rows->y + row * width;
      const float most = largest(x, width);
      Floats total{};
      float rest = 0;
      for (std::size_t i = 0; i < width; i += kLanes) {
        const std::size_t here = std::min(kLanes, width - i);
        Floats e;
        load_some(e, x + i, here);
        e = e - most;
        exponential_of(e);
        store_some(y + i, e, here);
        if (here == kLanes) {
          total = total + e;
        } else {
          for (std::size_t j = 0; j < here; ++j) rest += y[i + j];
        }
      }
      const float scale = 1.0F / (sum_lanes(total) + rest);
      for (std::size_t i = 0; i < width; i += kLanes) {
        const std::size_t here = std::min(kLanes, width - i);
        Floats e;
        load_some(e, y + i, here);
        e = e * scale;
        store_some(y + i, e, here);
      }
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
