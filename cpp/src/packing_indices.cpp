// Bits of a chunk turned into indices: positions, columns, and where rows start.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "packing_bodies.hpp"
#include "packing_chunk.hpp"
#include "packing_lanes.hpp"

namespace secateur {
namespace {

SECATEUR_INLINE std::size_t count_bits_body(const std::uint64_t* words, std::size_t num_words) {
  std::size_t total = 0;
  for (std::size_t w = 0; w < num_words; ++w) {
    total += static_cast<std::size_t>(std::popcount(words[w]));
  }
  return total;
}

SECATEUR_INLINE void positions16_body(const std::uint64_t* words, std::size_t size,
                                      std::uint16_t* out, std::size_t room) {
  std::size_t used = 0;
  for (std::size_t i = 0; i < size; i += 64) {
    for (std::uint64_t word = words[i / 64]; word != 0 && used < room; word &= word - 1) {
      out[used++] = static_cast<std::uint16_t>(i + static_cast<unsigned>(std::countr_zero(word)));
    }
  }
}

template <class Index>
SECATEUR_INLINE void row_starts_body(const std::uint64_t* words, Place place, std::size_t cols,
                                     Index* indptr) {
  std::size_t row = place.begin / cols + (place.begin % cols != 0);
  std::uint64_t before = place.offset;
  std::size_t w = 0;
  for (std::size_t start = row * cols - place.begin; start < place.size; start += cols, ++row) {
    for (; w < start / 64; ++w) before += static_cast<unsigned>(std::popcount(words[w]));
    const std::uint64_t below = words[w] & ((std::uint64_t{1} << start % 64) - 1);
    indptr[row] = static_cast<Index>(before + static_cast<unsigned>(std::popcount(below)));
  }
}

// ---- Scalar ----

std::size_t count_bits_scalar(const std::uint64_t* words, std::size_t num_words) {
  return count_bits_body(words, num_words);
}

void positions16_scalar(const std::uint64_t* words, std::size_t size, std::uint16_t* out,
                        std::size_t room) {
  positions16_body(words, size, out, room);
}

template <class Index>
void columns_scalar(const std::uint64_t* words, std::size_t size, std::size_t first_col,
                    std::size_t cols, Index* out, std::size_t room) {
  columns_body(words, size, first_col, cols, out, room);
}

template <class Index>
void row_starts_scalar(const std::uint64_t* words, Place place, std::size_t cols, Index* indptr) {
  row_starts_body(words, place, cols, indptr);
}

#if SECATEUR_X86

SECATEUR_TARGET_AVX2 std::size_t count_bits_popcnt(const std::uint64_t* words,
                                                   std::size_t num_words) {
  return count_bits_body(words, num_words);
}

template <class Index>
SECATEUR_TARGET_AVX2 void row_starts_popcnt(const std::uint64_t* words, Place place,
                                            std::size_t cols, Index* indptr) {
  row_starts_body(words, place, cols, indptr);
}

// A column per set bit is written; a vector of 64-bit columns gains too little over that.
SECATEUR_TARGET_AVX2 void columns64_popcnt(const std::uint64_t* words, std::size_t size,
                                           std::size_t first_col, std::size_t cols,
                                           std::int64_t* out, std::size_t room) {
  columns_body(words, size, first_col, cols, out, room);
}

SECATEUR_TARGET_AVX2 void positions16_avx2(const std::uint64_t* words, std::size_t size,
                                           std::uint16_t* out, std::size_t room) {
  std::size_t used = 0;
  for (std::size_t i = 0; i < size; i += 8) {
    const unsigned set = static_cast<unsigned>(words[i / 64] >> i % 64) & 0xFFU;
    const __m128i base = _mm_set1_epi16(static_cast<short>(i));
    const __m128i found = _mm_add_epi16(_mm_cvtepu8_epi16(table_row(kCompress[set])), base);
    const auto count = static_cast<std::size_t>(std::popcount(set));
    const std::size_t left = room_left(room, used);
    if (left >= 8) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + used), found);
    } else {
      std::array<std::uint16_t, 8> buffer;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(buffer.data()), found);
      copy_bytes(out + (room - left), buffer.data(), std::min(count, left) * sizeof(buffer[0]));
    }
    used += count;
  }
}

// The next lanes' columns: a step, less the row's length where that leaves the row. The unsigned
// minimum chooses, since a column that is still inside the row wraps to a huge number.
SECATEUR_TARGET_AVX2 SECATEUR_INLINE __m256i next_columns256(__m256i columns, __m256i step,
                                                             __m256i cols) {
  const __m256i moved = _mm256_add_epi32(columns, step);
  return _mm256_min_epu32(moved, _mm256_sub_epi32(moved, cols));
}

SECATEUR_TARGET_AVX2 void columns32_avx2(const std::uint64_t* words, std::size_t size,
                                         std::size_t first_col, std::size_t cols, std::int32_t* out,
                                         std::size_t room) {
  std::array<std::uint32_t, 8> first;
  for (std::size_t lane = 0; lane < 8; ++lane) {
    first[lane] = static_cast<std::uint32_t>((first_col + lane) % cols);
  }
  __m256i columns = load256(first.data());
  const __m256i step = _mm256_set1_epi32(static_cast<int>(8 % cols));
  const __m256i row = _mm256_set1_epi32(static_cast<int>(cols));
  auto* to = reinterpret_cast<std::uint32_t*>(out);
  std::size_t used = 0;
  for (std::size_t i = 0; i < size; i += 8) {
    const unsigned set = static_cast<unsigned>(words[i / 64] >> i % 64) & 0xFFU;
    const __m256i order = _mm256_cvtepu8_epi32(table_row(kCompress[set]));
    const __m256i found = _mm256_permutevar8x32_epi32(columns, order);
    const auto count = static_cast<std::size_t>(std::popcount(set));
    append256(to, room, used, found, count);
    used += count;
    columns = next_columns256(columns, step, row);
  }
}

SECATEUR_TARGET_AVX512 void positions16_avx512(const std::uint64_t* words, std::size_t size,
                                               std::uint16_t* out, std::size_t room) {
  __m512i positions = iota512();
  std::size_t used = 0;
  for (std::size_t i = 0; i < size; i += 16) {
    const unsigned set = static_cast<unsigned>(words[i / 64] >> i % 64) & 0xFFFFU;
    const auto count = static_cast<std::size_t>(std::popcount(set));
    append512(out, room, used, compress512<std::uint16_t>(set, positions), count);
    positions = _mm512_add_epi32(positions, _mm512_set1_epi32(16));
    used += count;
  }
}

SECATEUR_TARGET_AVX512 void columns32_avx512(const std::uint64_t* words, std::size_t size,
                                             std::size_t first_col, std::size_t cols,
                                             std::int32_t* out, std::size_t room) {
  Columns512 columns(first_col, cols, 16);
  std::size_t used = 0;
  for (std::size_t i = 0; i < size; i += 16) {
    const unsigned set = static_cast<unsigned>(words[i / 64] >> i % 64) & 0xFFFFU;
    const auto count = static_cast<std::size_t>(std::popcount(set));
    append512(out, room, used, compress512<std::int32_t>(set, columns.now), count);
    columns.advance();
    used += count;
  }
}

#endif  // SECATEUR_X86

}  // namespace

IndexKernels index_kernels() {
  using I32 = std::int32_t;
  using I64 = std::int64_t;
#if SECATEUR_X86
  return {pick(&count_bits_scalar, &count_bits_popcnt, &count_bits_popcnt),
          pick(&positions16_scalar, &positions16_avx2, &positions16_avx512),
          pick(&columns_scalar<I32>, &columns32_avx2, &columns32_avx512),
          pick(&columns_scalar<I64>, &columns64_popcnt, &columns64_popcnt),
          pick(&row_starts_scalar<I32>, &row_starts_popcnt<I32>, &row_starts_popcnt<I32>),
          pick(&row_starts_scalar<I64>, &row_starts_popcnt<I64>, &row_starts_popcnt<I64>)};
#else
  return {&count_bits_scalar,   &positions16_scalar,     &columns_scalar<I32>,
          &columns_scalar<I64>, &row_starts_scalar<I32>, &row_starts_scalar<I64>};
#endif
}

}  // namespace secateur
