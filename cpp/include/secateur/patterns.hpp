// Masks of patterns: n:m groups and blocks. A mask is one byte per weight, 1 = keep.
#pragma once

#include <cstddef>
#include <cstdint>

#include "secateur/dtype.hpp"

namespace secateur {

inline constexpr int kMaxGroup = 32;

// Elements seen as (outer, length, inner) in C order; groups run along `length`. An (out, in)
// matrix in C order is (out, in, 1), in Fortran order (1, in, out).
struct Grouped {
  const void* data;
  DType dtype;
  std::size_t outer;
  std::size_t length;
  std::size_t inner;
};

// n of every m consecutive elements stay.
struct GroupRule {
  int n;  // 0 <= n <= m
  int m;  // 1 <= m <= kMaxGroup
  Order order;
};

// Keeps the n largest keys of each group; of equal keys the later ones. A last group shorter than m
// keeps its n largest, or all it has. False if a magnitude is not finite or a value is NaN; the
// mask then means nothing.
bool nm_mask(const Grouped& elements, GroupRule rule, std::uint8_t* mask);

// The extents of a matrix and of its blocks, as they lie in memory.
struct BlockGrid {
  std::size_t outer, inner;
  std::size_t block_outer, block_inner;
};

// Gives every element the mask of its block. `blocks` is the C-order array (block rows, block
// columns) of the matrix; if the matrix is transposed in memory its outer axis runs along block
// columns.
void expand_blocks(const std::uint8_t* blocks, bool transposed, const BlockGrid& grid,
                   std::uint8_t* mask);

}  // namespace secateur
