// Loops in plain C++ that more than one family of chunk kernels is made of: inlined into each
// instruction set's function.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>

#include "packing_chunk.hpp"
#include "secateur/simd.hpp"

namespace secateur {

// The bits that make a number non-zero: all, or all but the sign.
template <class T>
constexpr T significant(Zero zero) {
  return zero == Zero::by_value ? static_cast<T>(std::numeric_limits<T>::max() / 2)
                                : std::numeric_limits<T>::max();
}

// From item `i`, a multiple of 64, to the end; `used` values are already written.
template <class T>
SECATEUR_INLINE std::size_t compress_rest(const T* in, std::size_t i, std::size_t size, T mask,
                                          T* values, std::size_t room, std::size_t used,
                                          std::uint64_t* words) {
  for (; i < size; i += 64) {
    std::uint64_t word = 0;
    const std::size_t end = std::min<std::size_t>(64, size - i);
    if (end == 64 && used + 64 <= room) {
      // Without a branch, which would be guessed wrongly as often as there are zeros.
      for (std::size_t j = 0; j < 64; ++j) {
        const bool set = (in[i + j] & mask) != 0;
        values[used] = in[i + j];
        word |= std::uint64_t{set} << j;
        used += set;
      }
      words[i / 64] = word;
      continue;
    }
    for (std::size_t j = 0; j < end; ++j) {
      if ((in[i + j] & mask) == 0) continue;
      word |= std::uint64_t{1} << j;
      if (used < room) values[used] = in[i + j];
      ++used;
    }
    words[i / 64] = word;
  }
  return used;
}

template <class Index>
SECATEUR_INLINE void columns_body(const std::uint64_t* words, std::size_t size,
                                  std::size_t first_col, std::size_t cols, Index* out,
                                  std::size_t room) {
  std::size_t used = 0;
  std::size_t row = 0;  // first_col + position, less `row`, is the column
  for (std::size_t i = 0; i < size; i += 64) {
    for (std::uint64_t word = words[i / 64]; word != 0 && used < room; word &= word - 1) {
      const std::size_t flat = first_col + i + static_cast<unsigned>(std::countr_zero(word));
      if (flat - row >= cols) row = flat - flat % cols;
      out[used++] = static_cast<Index>(flat - row);
    }
  }
}

// Calls visit with a number of the type that has `item_size` bytes.
template <class Visit>
auto with_item(std::size_t item_size, const Visit& visit) {
  switch (item_size) {
    case 1:
      return visit(std::uint8_t{});
    case 2:
      return visit(std::uint16_t{});
    case 4:
      return visit(std::uint32_t{});
    case 8:
      return visit(std::uint64_t{});
    default:
      throw std::invalid_argument("items must have 1, 2, 4 or 8 bytes");
  }
}

}  // namespace secateur
