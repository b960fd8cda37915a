// Saliencies that need no data: magnitudes, scaled magnitudes, sums of squares and block norms.
//
// Every result is defined down to the last bit: sums run in float64 in an order that depends on the
// shape alone, so that neither threads nor instruction sets can change which weights are pruned.
#pragma once

#include <cstddef>

#include "secateur/dtype.hpp"

namespace secateur {

// A matrix as it lies in memory: `outer` runs of `inner` consecutive elements. An (out, in) matrix
// in C order has outer = out; in Fortran order it is the other way round, and called transposed.
struct Matrix {
  const void* data;
  DType dtype;
  std::size_t outer;
  std::size_t inner;
};

enum class Norm : int { l1 = 0, l2 = 1 };

// product: |w| * row * col, a missing factor is 1. root_sum: |w| * sqrt(row + col), a missing term
// is 0.
enum class Combine : int { product = 0, root_sum = 1 };

// Sums of squares are taken in chunks of this many elements along the reduced axis. Inside a chunk
// element i goes to lane i % kSumLanes, lanes are added as a tree (l and l + 8, l + 4, l + 2, l +
// 1), chunks from first to last.
inline constexpr std::size_t kSumChunk = 8192;
inline constexpr std::size_t kSumLanes = 16;

bool all_finite(const Matrix& matrix);

// sums[kept] = sum over the reduced axis of x * x * weights[reduced] (weights may be null: all
// one). `sums` holds `outer` values if the inner axis is reduced, else `inner`. False if one is not
// finite.
bool squared_sums(const Matrix& matrix, bool reduce_inner, const double* weights, double* sums);

// The factors of one weight: its row's and its column's, as float64 vectors or null.
struct Scales {
  const double* row;
  const double* col;
  Combine combine;
};

// Writes float32 (float64 for float64 input), one per element, in the same memory order.
// False if a result is not finite.
bool scaled_magnitude(const Matrix& matrix, bool transposed, const Scales& scales, void* out);

// The shape of a block as the matrix lies in memory.
struct BlockShape {
  std::size_t outer;
  std::size_t inner;
};

// Norms of blocks, float32 (float64 for float64 input), as a C-order (block rows, block columns)
// array. Each column of a block is summed down its rows, then the columns from left to right.
// False if a result is not finite.
bool block_scores(const Matrix& matrix, bool transposed, BlockShape block, Norm norm, void* scores);

}  // namespace secateur
