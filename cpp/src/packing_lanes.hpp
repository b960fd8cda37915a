// Vectors of items: loaded, stored, squeezed and spread, in each instruction set. Shared by the
// kernels that work on chunks.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

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

// Not memcpy as it stands: an empty vector's data may be null, which memcpy may not be given.
SECATEUR_INLINE void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes != 0) std::memcpy(to, from, bytes);
}

constexpr std::size_t room_left(std::size_t room, std::size_t used) {
  return room > used ? room - used : 0;
}

#if SECATEUR_X86

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

inline constexpr auto kCompress = make_compress_table();
inline constexpr auto kExpand = make_expand_table();

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

SECATEUR_TARGET_AVX2 SECATEUR_INLINE __m128i table_row(const Lanes8& row) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row.data()));
}

// Writes the first `count` lanes as entries `used`, ... of `out`, or what there is room for.
template <class T>
SECATEUR_TARGET_AVX2 SECATEUR_INLINE void append256(T* out, std::size_t room, std::size_t used,
                                                    __m256i lanes, std::size_t count) {
  const std::size_t left = room_left(room, used);
  if (left >= kLanes256<T>) {
    store256(out + used, lanes);
  } else {
    store_some256(out + (room - left), lanes, std::min(count, left));
  }
}

// The lanes from entry `used` on, of those that there are.
template <class T>
SECATEUR_TARGET_AVX2 SECATEUR_INLINE __m256i next256(const T* in, std::size_t size,
                                                     std::size_t used) {
  const std::size_t left = room_left(size, used);
  const T* next = in + (size - left);
  return left >= kLanes256<T> ? load256(next) : load_some256(next, left);
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
SECATEUR_TARGET_AVX512 SECATEUR_INLINE __m512i next512(const T* in, std::size_t size,
                                                       std::size_t used) {
  const std::size_t left = room_left(size, used);
  const T* next = in + (size - left);
  return left >= kLanes512<T> ? load512(next) : load_some512(next, left);
}

SECATEUR_TARGET_AVX512 SECATEUR_INLINE __m512i iota512() {
  return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
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

#endif  // SECATEUR_X86

}  // namespace secateur
