// Softmax of one row, for whoever has rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>

#include "spmm_vector.hpp"

namespace secateur {

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

// y may be x.
SECATEUR_INLINE void softmax_row(const float* x, float* y, std::size_t width) {
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

}  // namespace secateur
