// The kernels that work on one chunk of at most kPackingChunk items, in every instruction set.
// packing.cpp and sparse.cpp put the chunks together.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "secateur/packing.hpp"
#include "secateur/threads.hpp"

namespace secateur {

// One bit per item of a chunk. Bits past the chunk's end are 0.
using Words = std::array<std::uint64_t, kPackingChunk / 64>;

// Where a chunk lies in the flat matrix, and how many non-zeros stand before it.
struct Place {
  std::size_t begin;
  std::size_t size;
  std::uint64_t offset;
};

// Where a chunk of a matrix is written to in CSR. Its first element stands in `first_col` < cols.
struct CsrChunk {
  void* values;
  std::int32_t* indices;
  std::size_t room;
  std::size_t first_col;
  std::size_t cols;
};

// `room` is how many entries may be written. It equals the number of non-zeros, unless another
// thread changes the array while we read it: then the result is wrong, but nothing else is
// overwritten.
struct ChunkKernels {
  std::size_t (*count)(const void* items, std::size_t size, Zero zero);
  std::size_t (*compress)(const void* items, std::size_t size, Zero zero, void* values,
                          std::size_t room, std::uint64_t* words);
  // Reads at most `num_values` values.
  void (*expand)(const std::uint64_t* words, std::size_t size, const void* values,
                 std::size_t num_values, void* out);
};

// item_size: 1, 2, 4 or 8.
ChunkKernels chunk_kernels(std::size_t item_size);

// compress by value and columns32 (see below) in one.
using CompressToCsr32 = void (*)(const void* items, std::size_t size, CsrChunk to,
                                 std::uint64_t* words);

CompressToCsr32 csr32_kernel(std::size_t item_size);

struct IndexKernels {
  std::size_t (*count_bits)(const std::uint64_t* words, std::size_t num_words);
  void (*positions16)(const std::uint64_t* words, std::size_t size, std::uint16_t* out,
                      std::size_t room);
  // Columns of the set bits, the first bit standing at `first_col` < cols.
  void (*columns32)(const std::uint64_t* words, std::size_t size, std::size_t first_col,
                    std::size_t cols, std::int32_t* out, std::size_t room);
  void (*columns64)(const std::uint64_t* words, std::size_t size, std::size_t first_col,
                    std::size_t cols, std::int64_t* out, std::size_t room);
  // Writes indptr for every row that starts inside the chunk.
  void (*row_starts32)(const std::uint64_t* words, Place place, std::size_t cols,
                       std::int32_t* indptr);
  void (*row_starts64)(const std::uint64_t* words, Place place, std::size_t cols,
                       std::int64_t* indptr);
};

IndexKernels index_kernels();

constexpr Place chunk_place(std::size_t chunk, std::size_t size, const std::uint64_t* offsets) {
  const std::size_t begin = chunk * kPackingChunk;
  const std::size_t left = size - begin;
  return {begin, left < kPackingChunk ? left : kPackingChunk, offsets[chunk]};
}

enum class Walk : std::uint8_t { forwards, backwards };

// Runs task(0) ... task(count - 1) in parallel, in at most 128 runs of neighbours. The system
// clears new memory in pages of 2 MiB when it is first touched: two threads that meet in one page
// both clear it, and whoever comes back to it later no longer finds it in the cache. `backwards`
// starts with what a `forwards` pass left in the cache.
template <class Task>
void for_each_run(std::size_t count, Walk walk, const Task& task) {
  constexpr std::size_t kRuns = 128;
  const std::size_t length = (count + kRuns - 1) / kRuns;
  const std::size_t runs = length == 0 ? 0 : (count + length - 1) / length;
  parallel_for(runs, [&](std::size_t i) {
    const std::size_t run = walk == Walk::forwards ? i : runs - 1 - i;
    const std::size_t end = std::min(count, (run + 1) * length);
    for (std::size_t index = run * length; index < end; ++index) task(index);
  });
}

template <class Index>
void chunk_row_starts(const IndexKernels& kernels, const std::uint64_t* words, Place place,
                      std::size_t cols, Index* indptr) {
  if constexpr (sizeof(Index) == 4) {
    kernels.row_starts32(words, place, cols, indptr);
  } else {
    kernels.row_starts64(words, place, cols, indptr);
  }
}

// The chunk's share of the index arrays, from its bits.
template <class Index>
void chunk_to_csr(const IndexKernels& kernels, const std::uint64_t* words, Place place,
                  std::size_t num_nonzeros, MatrixShape shape, Index* indices, Index* indptr) {
  const std::size_t first_col = place.begin % shape.cols;
  Index* out = indices + place.offset;
  if constexpr (sizeof(Index) == 4) {
    kernels.columns32(words, place.size, first_col, shape.cols, out, num_nonzeros);
  } else {
    kernels.columns64(words, place.size, first_col, shape.cols, out, num_nonzeros);
  }
  chunk_row_starts(kernels, words, place, shape.cols, indptr);
}

// Chunks write the start of each row they hold; without columns there are no chunks.
template <class Index>
void close_indptr(MatrixShape shape, std::uint64_t num_nonzeros, Index* indptr) {
  if (shape.cols == 0) std::memset(indptr, 0, shape.rows * sizeof(Index));
  indptr[shape.rows] = static_cast<Index>(num_nonzeros);
}

constexpr std::size_t num_words(std::size_t size) { return (size + 63) / 64; }
constexpr std::size_t num_bytes(std::size_t size) { return (size + 7) / 8; }

inline const std::byte* at(const void* base, std::size_t index, std::size_t item_size) {
  return static_cast<const std::byte*>(base) + index * item_size;
}

inline std::byte* at(void* base, std::size_t index, std::size_t item_size) {
  return static_cast<std::byte*>(base) + index * item_size;
}

// counts[c + 1] of chunk c become running totals.
inline std::uint64_t accumulate(std::uint64_t* counts, std::size_t chunks) {
  counts[0] = 0;
  for (std::size_t c = 0; c < chunks; ++c) counts[c + 1] += counts[c];
  return counts[chunks];
}

}  // namespace secateur
