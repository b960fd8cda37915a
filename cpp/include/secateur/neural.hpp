// What a network does along the rows of an activation matrix besides products: one pass over data
// that is in cache, split by rows, vectors along the row.
#pragma once

#include <cstddef>

namespace secateur {

struct Rows {
  const float* x;  // (rows, width)
  float* y;        // the same shape; may be x
  std::size_t rows;
  std::size_t width;
};

// y = softmax of each row of x. A row whose largest is -infinity becomes NaN, as everywhere.
void softmax_rows(const Rows& rows);

enum class RowNorm : int {
  layer = 0,  // (x - mean) / sqrt(variance + epsilon) * scale + offset
  rms = 1,    // x / sqrt(mean of squares + epsilon) * scale
};

// Null pointers for no scale or offset. Mean and variance are taken in two passes: the row is in
// L1, and the one-pass formula cancels.
void normalize_rows(const Rows& rows, RowNorm norm, const float* scale, const float* offset,
                    float epsilon);

}  // namespace secateur
