// What a network does along the rows of an activation matrix besides products: one pass over data
// that is in cache, split by rows, vectors along the row.
#pragma once

#include <cstddef>
#include <cstdint>

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

// (batch, time, heads, width): strides of the first three in elements, the last axis contiguous.
struct Heads {
  float* data;
  std::size_t batch_stride;
  std::size_t time_stride;
  std::size_t head_stride;

  float* at(std::size_t batch, std::size_t time, std::size_t head) const noexcept {
    return data + batch * batch_stride + time * time_stride + head * head_stride;
  }
};

// softmax(Q K^T) V for every head; the scale is in the query already. Tasks are 64 queries of one
// head: their scores stay in cache and are never written unless asked for.
struct Attention {
  Heads query;  // (batch, queries, heads, width)
  Heads key;    // (batch, keys, heads, width)
  Heads value;  // (batch, keys, heads, value_width)
  Heads out;    // (batch, queries, heads, value_width), written
  std::size_t batch;
  std::size_t queries;
  std::size_t keys;  // at least 1
  std::size_t heads;
  std::size_t width;
  std::size_t value_width;
  // (batch, heads, queries, keys), bytes: 0 where a query may not look; null for none. Strides in
  // bytes, 0 where it does not vary.
  const std::uint8_t* mask;
  std::size_t mask_strides[4];
  float masked;    // the score of what a query may not look at
  float* weights;  // (batch, heads, queries, keys), written; null if nobody reads them
};

void attend(const Attention& attention);

}  // namespace secateur
