// Registers of numbers: what the selection kernels need of AVX-512 and AVX2, for each width of
// number, under the same names.
#pragma once

#include "secateur/simd.hpp"
#include "select_keys.hpp"

#if SECATEUR_X86
// GCC 12 takes the "undefined" operands of its own intrinsics for mistakes (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace secateur::select {

#define SECATEUR_LANE_512 static SECATEUR_INLINE SECATEUR_TARGET_AVX512
#define SECATEUR_LANE_256 static SECATEUR_INLINE SECATEUR_TARGET_AVX2

// 16 lanes of 32 bits, for 32-bit numbers and, sign-extended, for 16-bit ones.
template <class U>
struct Lanes512 {
  using Reg = __m512i;
  using Mask = __mmask16;
  static constexpr std::size_t kWidth = 16;

  SECATEUR_LANE_512 Reg zero() { return _mm512_setzero_si512(); }
  SECATEUR_LANE_512 Reg set(std::int32_t x) { return _mm512_set1_epi32(x); }
  SECATEUR_LANE_512 Mask first(std::size_t n) { return static_cast<Mask>((1U << n) - 1U); }

  SECATEUR_LANE_512 Reg load(const U* p) {
    if constexpr (sizeof(U) == 4) return _mm512_loadu_si512(p);
    return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  SECATEUR_LANE_512 Reg load(const U* p, Mask lanes) {
    if constexpr (sizeof(U) == 4) return _mm512_maskz_loadu_epi32(lanes, p);
    return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(lanes, p));
  }
  SECATEUR_LANE_512 void store(U* p, Reg x) {
    if constexpr (sizeof(U) == 4) return _mm512_storeu_si512(p, x);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x));
  }
  SECATEUR_LANE_512 void store(U* p, Mask lanes, Reg x) {
    if constexpr (sizeof(U) == 4) return _mm512_mask_storeu_epi32(p, lanes, x);
    _mm256_mask_storeu_epi16(p, lanes, _mm512_cvtepi32_epi16(x));
  }
  SECATEUR_LANE_512 void store_bytes(std::uint8_t* p, Mask ones) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_maskz_set1_epi8(ones, 1));
  }
  SECATEUR_LANE_512 void store_bytes(std::uint8_t* p, Mask lanes, Mask ones) {
    _mm_mask_storeu_epi8(p, lanes, _mm_maskz_set1_epi8(ones, 1));
  }

  SECATEUR_LANE_512 Reg magnitude(Reg bits) {
    return _mm512_and_si512(bits, _mm512_set1_epi32(static_cast<std::int32_t>(kMagnitudeBits<U>)));
  }
  SECATEUR_LANE_512 Reg negate_like(Reg magnitude, Reg bits) {
    const Reg sign = _mm512_srai_epi32(bits, 31);
    return _mm512_sub_epi32(_mm512_xor_si512(magnitude, sign), sign);
  }
  SECATEUR_LANE_512 Mask less(Mask lanes, Reg a, Reg b) {
    return _mm512_mask_cmplt_epi32_mask(lanes, a, b);
  }
  SECATEUR_LANE_512 Mask equal(Mask lanes, Reg a, Reg b) {
    return _mm512_mask_cmpeq_epi32_mask(lanes, a, b);
  }
  SECATEUR_LANE_512 Reg count(Reg counts, Mask lanes) {
    return _mm512_mask_add_epi32(counts, lanes, counts, _mm512_set1_epi32(1));
  }
  SECATEUR_LANE_512 Reg max(Reg a, Reg b) { return _mm512_max_epi32(a, b); }
  SECATEUR_LANE_512 Reg max(Reg a, Mask lanes, Reg b) {
    return _mm512_mask_max_epi32(a, lanes, a, b);
  }
  SECATEUR_LANE_512 Reg min(Reg a, Mask lanes, Reg b) {
    return _mm512_mask_min_epi32(a, lanes, a, b);
  }
  SECATEUR_LANE_512 Reg compress(Mask lanes, Reg x) {
    return _mm512_maskz_compress_epi32(lanes, x);
  }
  SECATEUR_LANE_512 Reg keep(Mask lanes, Reg x) { return _mm512_maskz_mov_epi32(lanes, x); }
  SECATEUR_LANE_512 std::uint32_t sum(Reg x) {
    return static_cast<std::uint32_t>(_mm512_reduce_add_epi32(x));
  }
  SECATEUR_LANE_512 std::int32_t max(Reg x) { return _mm512_reduce_max_epi32(x); }
  SECATEUR_LANE_512 std::int32_t min(Reg x) { return _mm512_reduce_min_epi32(x); }
};

// 8 lanes of 64 bits.
template <>
struct Lanes512<std::uint64_t> {
  using U = std::uint64_t;
  using Reg = __m512i;
  using Mask = __mmask8;
  static constexpr std::size_t kWidth = 8;

  SECATEUR_LANE_512 Reg zero() { return _mm512_setzero_si512(); }
  SECATEUR_LANE_512 Reg set(std::int64_t x) { return _mm512_set1_epi64(x); }
  SECATEUR_LANE_512 Mask first(std::size_t n) { return static_cast<Mask>((1U << n) - 1U); }

  SECATEUR_LANE_512 Reg load(const U* p) { return _mm512_loadu_si512(p); }
  SECATEUR_LANE_512 Reg load(const U* p, Mask lanes) { return _mm512_maskz_loadu_epi64(lanes, p); }
  SECATEUR_LANE_512 void store(U* p, Reg x) { _mm512_storeu_si512(p, x); }
  SECATEUR_LANE_512 void store(U* p, Mask lanes, Reg x) { _mm512_mask_storeu_epi64(p, lanes, x); }
  SECATEUR_LANE_512 void store_bytes(std::uint8_t* p, Mask ones) {
    _mm_storeu_si64(p, _mm_maskz_set1_epi8(ones, 1));
  }
  SECATEUR_LANE_512 void store_bytes(std::uint8_t* p, Mask lanes, Mask ones) {
    _mm_mask_storeu_epi8(p, lanes, _mm_maskz_set1_epi8(ones, 1));
  }

  SECATEUR_LANE_512 Reg magnitude(Reg bits) {
    return _mm512_and_si512(bits, _mm512_set1_epi64(static_cast<std::int64_t>(kMagnitudeBits<U>)));
  }
  SECATEUR_LANE_512 Reg negate_like(Reg magnitude, Reg bits) {
    const Reg sign = _mm512_srai_epi64(bits, 63);
    return _mm512_sub_epi64(_mm512_xor_si512(magnitude, sign), sign);
  }
  SECATEUR_LANE_512 Mask less(Mask lanes, Reg a, Reg b) {
    return _mm512_mask_cmplt_epi64_mask(lanes, a, b);
  }
  SECATEUR_LANE_512 Mask equal(Mask lanes, Reg a, Reg b) {
    return _mm512_mask_cmpeq_epi64_mask(lanes, a, b);
  }
  SECATEUR_LANE_512 Reg count(Reg counts, Mask lanes) {
    return _mm512_mask_add_epi64(counts, lanes, counts, _mm512_set1_epi64(1));
  }
  SECATEUR_LANE_512 Reg max(Reg a, Reg b) { return _mm512_max_epi64(a, b); }
  SECATEUR_LANE_512 Reg max(Reg a, Mask lanes, Reg b) {
    return _mm512_mask_max_epi64(a, lanes, a, b);
  }
  SECATEUR_LANE_512 Reg min(Reg a, Mask lanes, Reg b) {
    return _mm512_mask_min_epi64(a, lanes, a, b);
  }
  SECATEUR_LANE_512 Reg compress(Mask lanes, Reg x) {
    return _mm512_maskz_compress_epi64(lanes, x);
  }
  SECATEUR_LANE_512 Reg keep(Mask lanes, Reg x) { return _mm512_maskz_mov_epi64(lanes, x); }
  SECATEUR_LANE_512 std::uint32_t sum(Reg x) {
    return static_cast<std::uint32_t>(_mm512_reduce_add_epi64(x));
  }
  SECATEUR_LANE_512 std::int64_t max(Reg x) { return _mm512_reduce_max_epi64(x); }
  SECATEUR_LANE_512 std::int64_t min(Reg x) { return _mm512_reduce_min_epi64(x); }
};

// 8 lanes of 32 bits. A mask is a register of all-ones lanes, which count() subtracts as -1.
template <class U>
struct Lanes256 {
  using Reg = __m256i;
  static constexpr std::size_t kWidth = 8;

  SECATEUR_LANE_256 Reg zero() { return _mm256_setzero_si256(); }
  SECATEUR_LANE_256 Reg set(std::int32_t x) { return _mm256_set1_epi32(x); }
  SECATEUR_LANE_256 Reg load(const U* p) {
    if constexpr (sizeof(U) == 4) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  SECATEUR_LANE_256 void store(U* p, Reg x) {
    if constexpr (sizeof(U) == 4) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
    const Reg low = _mm256_and_si256(x, _mm256_set1_epi32(0xFFFF));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
  }
  SECATEUR_LANE_256 void store_bytes(std::uint8_t* p, Reg ones) {
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(ones), _mm256_extracti128_si256(ones, 1));
    _mm_storeu_si64(p, _mm_and_si128(_mm_packs_epi16(words, words), _mm_set1_epi8(1)));
  }

  SECATEUR_LANE_256 Reg magnitude(Reg bits) {
    return _mm256_and_si256(bits, _mm256_set1_epi32(static_cast<std::int32_t>(kMagnitudeBits<U>)));
  }
  SECATEUR_LANE_256 Reg negate_like(Reg magnitude, Reg bits) {
    const Reg sign = _mm256_srai_epi32(bits, 31);
    return _mm256_sub_epi32(_mm256_xor_si256(magnitude, sign), sign);
  }
  SECATEUR_LANE_256 Reg less(Reg a, Reg b) { return _mm256_cmpgt_epi32(b, a); }
  SECATEUR_LANE_256 Reg equal(Reg a, Reg b) { return _mm256_cmpeq_epi32(a, b); }
  SECATEUR_LANE_256 Reg both(Reg a, Reg b) { return _mm256_and_si256(a, b); }
  SECATEUR_LANE_256 Reg neither(Reg a) { return _mm256_xor_si256(a, _mm256_set1_epi32(-1)); }
  SECATEUR_LANE_256 Reg choose(Reg lanes, Reg yes, Reg no) {
    return _mm256_blendv_epi8(no, yes, lanes);
  }
  SECATEUR_LANE_256 Reg count(Reg counts, Reg lanes) { return _mm256_sub_epi32(counts, lanes); }
  SECATEUR_LANE_256 Reg max(Reg a, Reg b) { return _mm256_max_epi32(a, b); }
  SECATEUR_LANE_256 Reg min(Reg a, Reg b) { return _mm256_min_epi32(a, b); }
  SECATEUR_LANE_256 unsigned bits(Reg lanes) {
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
  }
};

// 4 lanes of 64 bits.
template <>
struct Lanes256<std::uint64_t> {
  using U = std::uint64_t;
  using Reg = __m256i;
  static constexpr std::size_t kWidth = 4;

  SECATEUR_LANE_256 Reg zero() { return _mm256_setzero_si256(); }
  SECATEUR_LANE_256 Reg set(std::int64_t x) { return _mm256_set1_epi64x(x); }
  SECATEUR_LANE_256 Reg load(const U* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  SECATEUR_LANE_256 void store(U* p, Reg x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
  }
  SECATEUR_LANE_256 void store_bytes(std::uint8_t* p, Reg ones) {
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(ones), _mm256_extracti128_si256(ones, 1));
    const __m128i bytes = _mm_and_si128(_mm_packs_epi16(words, words), _mm_set1_epi8(1));
    // Every lane went in as two equal 32-bit halves, so every byte came out twice.
    _mm_storeu_si32(p, _mm_shuffle_epi8(bytes, _mm_set1_epi32(0x06040200)));
  }

  SECATEUR_LANE_256 Reg magnitude(Reg bits) {
    return _mm256_and_si256(bits, _mm256_set1_epi64x(static_cast<std::int64_t>(kMagnitudeBits<U>)));
  }
  SECATEUR_LANE_256 Reg negate_like(Reg magnitude, Reg bits) {
    const Reg sign = _mm256_cmpgt_epi64(zero(), bits);
    return _mm256_sub_epi64(_mm256_xor_si256(magnitude, sign), sign);
  }
  SECATEUR_LANE_256 Reg less(Reg a, Reg b) { return _mm256_cmpgt_epi64(b, a); }
  SECATEUR_LANE_256 Reg equal(Reg a, Reg b) { return _mm256_cmpeq_epi64(a, b); }
  SECATEUR_LANE_256 Reg both(Reg a, Reg b) { return _mm256_and_si256(a, b); }
  SECATEUR_LANE_256 Reg neither(Reg a) { return _mm256_xor_si256(a, _mm256_set1_epi64x(-1)); }
  SECATEUR_LANE_256 Reg choose(Reg lanes, Reg yes, Reg no) {
    return _mm256_blendv_epi8(no, yes, lanes);
  }
  SECATEUR_LANE_256 Reg count(Reg counts, Reg lanes) { return _mm256_sub_epi64(counts, lanes); }
  SECATEUR_LANE_256 Reg max(Reg a, Reg b) { return choose(less(a, b), b, a); }
  SECATEUR_LANE_256 Reg min(Reg a, Reg b) { return choose(less(a, b), a, b); }
  SECATEUR_LANE_256 unsigned bits(Reg lanes) {
    return static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(lanes)));
  }
};

template <class Lanes, Order order>
SECATEUR_INLINE SECATEUR_TARGET_AVX512 typename Lanes::Reg lane_key_512(
    typename Lanes::Reg magnitude, typename Lanes::Reg bits) {
  if constexpr (order == Order::magnitude) return magnitude;
  return Lanes::negate_like(magnitude, bits);
}

template <class Lanes, Order order>
SECATEUR_INLINE SECATEUR_TARGET_AVX2 typename Lanes::Reg lane_key_256(typename Lanes::Reg magnitude,
                                                                      typename Lanes::Reg bits) {
  if constexpr (order == Order::magnitude) return magnitude;
  return Lanes::negate_like(magnitude, bits);
}

}  // namespace secateur::select
#endif
