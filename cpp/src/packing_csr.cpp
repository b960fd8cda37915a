// Items of a chunk straight into CSR.
#include <array>
#include <bit>
#include <cstdint>

#include "packing_bodies.hpp"
#include "packing_chunk.hpp"
#include "packing_lanes.hpp"

namespace secateur {
namespace {

template <class T>
void in_two_steps(const void* items, std::size_t size, CsrChunk to, std::uint64_t* words) {
  chunk_kernels(sizeof(T)).compress(items, size, Zero::by_value, to.values, to.room, words);
  index_kernels().columns32(words, size, to.first_col, to.cols, to.indices, to.room);
}

#if SECATEUR_X86

// One loop does both: while it waits for the matrix, the columns cost nothing.
template <class T>
SECATEUR_TARGET_AVX512 void compress_to_csr32_avx512(const void* items, std::size_t size,
                                                     CsrChunk to, std::uint64_t* words) {
  constexpr unsigned kLanes = kLanes512<T>;
  const T* in = static_cast<const T*>(items);
  T* values = static_cast<T*>(to.values);
  const T mask = significant<T>(Zero::by_value);
  Columns512 columns(to.first_col, to.cols, kLanes);
  std::size_t used = 0;
  std::size_t i = 0;
  for (; i + 64 <= size; i += 64) {
    std::uint64_t word = 0;
    for (unsigned j = 0; j < 64; j += kLanes) {
      const __m512i lanes = load512(in + i + j);
      const unsigned set = nonzero512<T>(lanes, mask);
      const auto count = static_cast<std::size_t>(std::popcount(set));
      append512(values, to.room, used, compress512<T>(set, lanes), count);
      append512(to.indices, to.room, used, compress512<std::int32_t>(set, columns.now), count);
      columns.advance();
      word |= std::uint64_t{set} << j;
      used += count;
    }
    words[i / 64] = word;
  }
  compress_rest(in, i, size, mask, values, to.room, used, words);
  const std::size_t left = room_left(to.room, used);
  columns_body(words + i / 64, size - i, (to.first_col + i) % to.cols, to.cols,
               to.indices + (to.room - left), left);
}

#endif  // SECATEUR_X86

}  // namespace

CompressToCsr32 csr32_kernel(std::size_t item_size) {
  return with_item(item_size, [](auto item) -> CompressToCsr32 {
    using T = decltype(item);
#if SECATEUR_X86
    return pick(&in_two_steps<T>, &in_two_steps<T>, &compress_to_csr32_avx512<T>);
#else
    return &in_two_steps<T>;
#endif
  });
}

}  // namespace secateur
