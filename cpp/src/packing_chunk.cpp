#include "packing_chunk.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "secateur/simd.hpp"

#if SECATEUR_X86
#include <immintrin.h>
#if !defined(__clang__)
// GCC 12 warns of its own intrinsics: they start from a register that is left undefined on purpose.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#endif

namespace secateur {
namespace {

static_assert(std::endian::native == std::endian::little, "bit masks are stored as little-endian");

// The bits that make a number non-zero: all, or all but the sign.
template <class T>
constexpr T significant(Zero zero) {
  return zero == Zero::by_value ? static_cast<T>(std::numeric_limits<T>::max() / 2)
                                : std::numeric_limits<T>::max();
}

// Not memcpy as it stands: an empty vector's data may be null, which memcpy may not be given.
SECATEUR_INLINE void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes != 0) std::memcpy(to, from, bytes);
}

constexpr std::size_t room_left(std::size_t room, std::size_t used) {
  return room > used ? room - used : 0;
}

// ---- Bodies in plain C++: inlined into each instruction set's function ----

// Sums short runs in the item's own width, so that the compiler compares and adds full vectors.
template <class T>
SECATEUR_INLINE std::size_t count_body(const void* items, std::size_t size, Zero zero) {
  constexpr std::size_t kRun = 128;
  const T* in = static_cast<const T*>(items);
  const T mask = significant<T>(zero);
  std::size_t total = 0;
  std::size_t i = 0;
  for (; i + kRun <= size; i += kRun) {
    T run = 0;
    for (std::size_t j = 0; j < kRun; ++j) {
      run = static_cast<T>(run + static_cast<T>((in[i + j] & mask) != 0));
    }
    total += run;
  }
  for (; i < size; ++i) total += (in[i] & mask) != 0;
  return total;
}

// From item `i`, a multiple of 64, to the end; `used` values are already written.
template <class T>
SECATEUR_INLINE std::size_t compress_rest(const T* in, std::size_t i, std::size_t size, T mask,
                                          T* values, std::size_t room, std::size_t used,
                                          std::uint64_t* words) {
  for (; i < size; i += 64) {
    std::uint64_t word = 0;
    const std::size_t end = std::min<std::size_t>(64, size - i);
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

template <class T>
SECATEUR_INLINE void expand_rest(const std::uint64_t* words, std::size_t i, std::size_t size,
                                 const T* values, std::size_t num_values, std::size_t used,
                                 T* out) {
  for (; i < size; i += 64) {
    const std::uint64_t word = words[i / 64];
    const std::size_t end = std::min<std::size_t>(64, size - i);
    for (std::size_t j = 0; j < end; ++j) {
      const bool set = (word >> j & 1U) != 0 && used < num_values;
      out[i + j] = set ? values[used] : T{0};
      used += set;
    }
  }
}

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

template <class T>
std::size_t count_scalar(const void* items, std::size_t size, Zero zero) {
  return count_body<T>(items, size, zero);
}

template <class T>
std::size_t compress_scalar(const void* items, std::size_t size, Zero zero, void* values,
                            std::size_t room, std::uint64_t* words) {
  return compress_rest(static_cast<const T*>(items), 0, size, significant<T>(zero),
                       static_cast<T*>(values), room, 0, words);
}

template <class T>
void expand_scalar(const std::uint64_t* words, std::size_t size, const void* values,
                   std::size_t num_values, void* out) {
  expand_rest(words, 0, size, static_cast<const T*>(values), num_values, 0, static_cast<T*>(out));
}

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

template <class T>
void compress_to_csr32_scalar(const void* items, std::size_t size, CsrChunk to,
                              std::uint64_t* words) {
  compress_scalar<T>(items, size, Zero::by_value, to.values, to.room, words);
  columns_scalar(words, size, to.first_col, to.cols, to.indices, to.room);
}

#if SECATEUR_X86

template <class T>
SECATEUR_TARGET_AVX2 std::size_t count_avx2(const void* items, std::size_t size, Zero zero) {
  return count_body<T>(items, size, zero);
}

template <class T>
SECATEUR_TARGET_AVX512 std::size_t count_avx512(const void* items, std::size_t size, Zero zero) {
  return count_body<T>(items, size, zero);
}

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

// ---- AVX2: eight 32-bit lanes (or four of 64 bits); narrower items are widened ----

using Lanes8 = std::array<std::uint8_t, 8>;

// compress: lane k of the result comes from the k-th set bit.
constexpr std::array<Lanes8, 256> make_compress_table() {
  std::array<Lanes8, 256> table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    unsigned used = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      if ((mask >> lane & 1U) != 0) table[mask][used++] = static_cast<std::uint8_t>(lane);
    }
  }
  return table;
}

// expand: a lane whose bit is set takes the next packed one; 0x80 marks a lane that becomes zero.
constexpr std::array<Lanes8, 256> make_expand_table() {
  std::array<Lanes8, 256> table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    unsigned used = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      const bool set = (mask >> lane & 1U) != 0;
      table[mask][lane] = static_cast<std::uint8_t>(set ? used++ : 0x80U);
    }
  }
  return table;
}

constexpr auto kCompress = make_compress_table();
constexpr auto kExpand = make_expand_table();

template <class T>
inline constexpr unsigned kLanes256 = sizeof(T) == 8 ? 4 : 8;

template <class T>
SECATEUR_TARGET_AVX2 SECATEUR_INLINE __m256i load256(const T* in) {
  if constexpr (sizeof(T) >= 4) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
  } else if constexpr (sizeof(T) == 2) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
  } else {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(in)));
  }
}

template <class T>
SECATEUR_TARGET_AVX2 SECATEUR_INLINE void store256(T* out, __m256i lanes) {
  if constexpr (sizeof(T) >= 4) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), lanes);
  } else {
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    if constexpr (sizeof(T) == 2) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), words);
    } else {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(words, words));
    }
  }
}

template <class T>
SECATEUR_TARGET_AVX2 SECATEUR_INLINE void store_some256(T* out, __m256i lanes, std::size_t count) {
  std::array<T, kLanes256<T>> buffer;
  store256(buffer.data(), lanes);
  copy_bytes(out, buffer.data(), count * sizeof(T));
}

template <class T>
SECATEUR_TARGET_AVX2 SECATEUR_INLINE __m256i load_some256(const T* in, std::size_t count) {
  std::array<T, kLanes256<T>> buffer{};
  copy_bytes(buffer.data(), in, count * sizeof(T));
  return load256(buffer.data());
}

template <class T>
SECATEUR_TARGET_AVX2 SECATEUR_INLINE unsigned nonzero256(__m256i lanes, T mask) {
  const __m256i zero = _mm256_setzero_si256();
  if constexpr (sizeof(T) == 8) {
    const __m256i kept = _mm256_and_si256(lanes, _mm256_set1_epi64x(static_cast<long long>(mask)));
    const __m256i equal = _mm256_cmpeq_epi64(kept, zero);
    return static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(equal))) ^ 0xFU;
  } else {
    const __m256i kept = _mm256_and_si256(lanes, _mm256_set1_epi32(static_cast<int>(mask)));
    const __m256i equal = _mm256_cmpeq_epi32(kept, zero);
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(equal))) ^ 0xFFU;
  }
}

// Four 64-bit lanes are moved as eight halves.
template <class T>
SECATEUR_TARGET_AVX2 SECATEUR_INLINE unsigned lane_mask256(unsigned mask) {
  return sizeof(T) == 8 ? _pdep_u32(mask, 0x55U) * 3U : mask;
}

SECATEUR_TARGET_AVX2 SECATEUR_INLINE __m128i table_row(const Lanes8& row) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row.data()));
}

template <class T>
SECATEUR_TARGET_AVX2 std::size_t compress_avx2(const void* items, std::size_t size, Zero zero,
                                               void* packed, std::size_t room,
                                               std::uint64_t* words) {
  constexpr unsigned kLanes = kLanes256<T>;
  const T* in = static_cast<const T*>(items);
  T* values = static_cast<T*>(packed);
  const T mask = significant<T>(zero);
  std::size_t used = 0;
  std::size_t i = 0;
  for (; i + 64 <= size; i += 64) {
    std::uint64_t word = 0;
    for (unsigned j = 0; j < 64; j += kLanes) {
      const __m256i lanes = load256(in + i + j);
      const unsigned set = nonzero256<T>(lanes, mask);
      const __m256i order = _mm256_cvtepu8_epi32(table_row(kCompress[lane_mask256<T>(set)]));
      const __m256i kept = _mm256_permutevar8x32_epi32(lanes, order);
      const auto count = static_cast<std::size_t>(std::popcount(set));
      const std::size_t left = room_left(room, used);
      if (left >= kLanes) {
        store256(values + used, kept);
      } else {
        store_some256(values + (room - left), kept, std::min(count, left));
      }
      word |= std::uint64_t{set} << j;
      used += count;
    }
    words[i / 64] = word;
  }
  return compress_rest(in, i, size, mask, values, room, used, words);
}

template <class T>
SECATEUR_TARGET_AVX2 void expand_avx2(const std::uint64_t* words, std::size_t size,
                                      const void* packed, std::size_t num_values, void* dense) {
  constexpr unsigned kLanes = kLanes256<T>;
  constexpr unsigned kAll = (1U << kLanes) - 1;
  const T* values = static_cast<const T*>(packed);
  T* out = static_cast<T*>(dense);
  std::size_t used = 0;
  std::size_t i = 0;
  for (; i + 64 <= size; i += 64) {
    const std::uint64_t word = words[i / 64];
    for (unsigned j = 0; j < 64; j += kLanes) {
      const unsigned set = static_cast<unsigned>(word >> j) & kAll;
      const std::size_t left = room_left(num_values, used);
      const T* next = values + (num_values - left);
      const __m256i kept = left >= kLanes ? load256(next) : load_some256(next, left);
      const __m256i order = _mm256_cvtepi8_epi32(table_row(kExpand[lane_mask256<T>(set)]));
      const __m256i moved = _mm256_permutevar8x32_epi32(kept, order);
      store256(out + i + j, _mm256_andnot_si256(_mm256_srai_epi32(order, 31), moved));
      used += static_cast<std::size_t>(std::popcount(set));
    }
  }
  expand_rest(words, i, size, values, num_values, std::min(used, num_values), out);
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
    const std::size_t left = room_left(room, used);
    if (left >= 8) {
      store256(to + used, found);
    } else {
      store_some256(to + (room - left), found, std::min(count, left));
    }
    used += count;
    columns = next_columns256(columns, step, row);
  }
}

template <class T>
SECATEUR_TARGET_AVX2 void compress_to_csr32_avx2(const void* items, std::size_t size, CsrChunk to,
                                                 std::uint64_t* words) {
  compress_avx2<T>(items, size, Zero::by_value, to.values, to.room, words);
  columns32_avx2(words, size, to.first_col, to.cols, to.indices, to.room);
}

// ---- AVX-512: sixteen 32-bit lanes (or eight of 64 bits); narrower items are widened, because
// their own compress needs VBMI2. Compress and expand work on registers: the forms that go straight
// to and from memory take some 25 times as long on Zen 4, and the zero-masked expand twice the
// merging one. ----

template <class T>
inline constexpr unsigned kLanes512 = sizeof(T) == 8 ? 8 : 16;

template <class T>
SECATEUR_TARGET_AVX512 SECATEUR_INLINE __m512i load512(const T* in) {
  if constexpr (sizeof(T) >= 4) {
    return _mm512_loadu_si512(in);
  } else if constexpr (sizeof(T) == 2) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)));
  } else {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
  }
}

template <class T>
SECATEUR_TARGET_AVX512 SECATEUR_INLINE void store512(T* out, __m512i lanes) {
  if constexpr (sizeof(T) >= 4) {
    _mm512_storeu_si512(out, lanes);
  } else if constexpr (sizeof(T) == 2) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(lanes));
  } else {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(lanes));
  }
}

// Lanes that are masked off are neither written nor read: no fault past the end.
template <class T>
SECATEUR_TARGET_AVX512 SECATEUR_INLINE void store_some512(T* out, __m512i lanes,
                                                          std::size_t count) {
  const auto first = static_cast<__mmask16>((1U << count) - 1);
  if constexpr (sizeof(T) == 8) {
    _mm512_mask_storeu_epi64(out, static_cast<__mmask8>(first), lanes);
  } else if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_epi32(out, first, lanes);
  } else if constexpr (sizeof(T) == 2) {
    _mm256_mask_storeu_epi16(out, first, _mm512_cvtepi32_epi16(lanes));
  } else {
    _mm_mask_storeu_epi8(out, first, _mm512_cvtepi32_epi8(lanes));
  }
}

template <class T>
SECATEUR_TARGET_AVX512 SECATEUR_INLINE __m512i load_some512(const T* in, std::size_t count) {
  const auto first = static_cast<__mmask16>((1U << count) - 1);
  if constexpr (sizeof(T) == 8) {
    return _mm512_maskz_loadu_epi64(static_cast<__mmask8>(first), in);
  } else if constexpr (sizeof(T) == 4) {
    return _mm512_maskz_loadu_epi32(first, in);
  } else if constexpr (sizeof(T) == 2) {
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first, in));
  } else {
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first, in));
  }
}

template <class T>
SECATEUR_TARGET_AVX512 SECATEUR_INLINE unsigned nonzero512(__m512i lanes, T mask) {
  if constexpr (sizeof(T) == 8) {
    return _mm512_test_epi64_mask(lanes, _mm512_set1_epi64(static_cast<long long>(mask)));
  } else {
    return _mm512_test_epi32_mask(lanes, _mm512_set1_epi32(static_cast<int>(mask)));
  }
}

template <class T>
SECATEUR_TARGET_AVX512 SECATEUR_INLINE __m512i compress512(unsigned set, __m512i lanes) {
  if constexpr (sizeof(T) == 8) {
    return _mm512_maskz_compress_epi64(static_cast<__mmask8>(set), lanes);
  } else {
    return _mm512_maskz_compress_epi32(static_cast<__mmask16>(set), lanes);
  }
}

template <class T>
SECATEUR_TARGET_AVX512 SECATEUR_INLINE __m512i expand512(unsigned set, __m512i lanes) {
  const __m512i zero = _mm512_setzero_si512();
  if constexpr (sizeof(T) == 8) {
    return _mm512_mask_expand_epi64(zero, static_cast<__mmask8>(set), lanes);
  } else {
    return _mm512_mask_expand_epi32(zero, static_cast<__mmask16>(set), lanes);
  }
}

template <class T>
SECATEUR_TARGET_AVX512 SECATEUR_INLINE void append512(T* out, std::size_t room, std::size_t used,
                                                      __m512i lanes, std::size_t count) {
  const std::size_t left = room_left(room, used);
  if (left >= kLanes512<T>) {
    store512(out + used, lanes);
  } else {
    store_some512(out + (room - left), lanes, std::min(count, left));
  }
}

template <class T>
SECATEUR_TARGET_AVX512 std::size_t compress_avx512(const void* items, std::size_t size, Zero zero,
                                                   void* packed, std::size_t room,
                                                   std::uint64_t* words) {
  constexpr unsigned kLanes = kLanes512<T>;
  const T* in = static_cast<const T*>(items);
  T* values = static_cast<T*>(packed);
  const T mask = significant<T>(zero);
  std::size_t used = 0;
  std::size_t i = 0;
  for (; i + 64 <= size; i += 64) {
    std::uint64_t word = 0;
    for (unsigned j = 0; j < 64; j += kLanes) {
      const __m512i lanes = load512(in + i + j);
      const unsigned set = nonzero512<T>(lanes, mask);
      const auto count = static_cast<std::size_t>(std::popcount(set));
      append512(values, room, used, compress512<T>(set, lanes), count);
      word |= std::uint64_t{set} << j;
      used += count;
    }
    words[i / 64] = word;
  }
  return compress_rest(in, i, size, mask, values, room, used, words);
}

template <class T>
SECATEUR_TARGET_AVX512 void expand_avx512(const std::uint64_t* words, std::size_t size,
                                          const void* packed, std::size_t num_values, void* dense) {
  constexpr unsigned kLanes = kLanes512<T>;
  constexpr unsigned kAll = (1U << kLanes) - 1;
  const T* values = static_cast<const T*>(packed);
  T* out = static_cast<T*>(dense);
  std::size_t used = 0;
  std::size_t i = 0;
  for (; i + 64 <= size; i += 64) {
    const std::uint64_t word = words[i / 64];
    for (unsigned j = 0; j < 64; j += kLanes) {
      const unsigned set = static_cast<unsigned>(word >> j) & kAll;
      const std::size_t left = room_left(num_values, used);
      const T* next = values + (num_values - left);
      const __m512i kept = left >= kLanes ? load512(next) : load_some512(next, left);
      store512(out + i + j, expand512<T>(set, kept));
      used += static_cast<std::size_t>(std::popcount(set));
    }
  }
  expand_rest(words, i, size, values, num_values, std::min(used, num_values), out);
}

SECATEUR_TARGET_AVX512 SECATEUR_INLINE __m512i iota512() {
  return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
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

// The columns of sixteen elements in a row, or of the first `lanes` of them. As next_columns256.
struct Columns512 {
  SECATEUR_TARGET_AVX512 SECATEUR_INLINE Columns512(std::size_t first_col, std::size_t cols,
                                                    std::size_t lanes) {
    std::array<std::uint32_t, 16> first;
    for (std::size_t lane = 0; lane < 16; ++lane) {
      first[lane] = static_cast<std::uint32_t>((first_col + lane) % cols);
    }
    now = load512(first.data());
    step = _mm512_set1_epi32(static_cast<int>(lanes % cols));
    row = _mm512_set1_epi32(static_cast<int>(cols));
  }

  SECATEUR_TARGET_AVX512 SECATEUR_INLINE void advance() {
    const __m512i moved = _mm512_add_epi32(now, step);
    now = _mm512_min_epu32(moved, _mm512_sub_epi32(moved, row));
  }

  __m512i now, step, row;
};

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

template <class T>
ChunkKernels kernels_for() {
#if SECATEUR_X86
  return {
      pick(&count_scalar<T>, &count_avx2<T>, &count_avx512<T>),
      pick(&compress_scalar<T>, &compress_avx2<T>, &compress_avx512<T>),
      pick(&expand_scalar<T>, &expand_avx2<T>, &expand_avx512<T>),
      pick(&compress_to_csr32_scalar<T>, &compress_to_csr32_avx2<T>, &compress_to_csr32_avx512<T>)};
#else
  return {&count_scalar<T>, &compress_scalar<T>, &expand_scalar<T>, &compress_to_csr32_scalar<T>};
#endif
}

}  // namespace

ChunkKernels chunk_kernels(std::size_t item_size) {
  switch (item_size) {
    case 1:
      return kernels_for<std::uint8_t>();
    case 2:
      return kernels_for<std::uint16_t>();
    case 4:
      return kernels_for<std::uint32_t>();
    case 8:
      return kernels_for<std::uint64_t>();
    default:
      throw std::invalid_argument("items must have 1, 2, 4 or 8 bytes");
  }
}

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
