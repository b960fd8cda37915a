// n:m groups inside one register: rotate every group against itself by 1 ... m - 1, compare, and
// count for each element how many of its group beat it. It is kept if fewer than n do.
//
// m - 1 rotations of four instructions each cost less than memory lets wait for up to m = 16 in
// float32 (about 2 cycles each, where 16 floats take about 20 to arrive), and nothing has to be
// transposed.
#include "patterns_groups.hpp"

#if SECATEUR_X86

// GCC 12 takes the deliberately undefined operands inside its own AVX-512 header for mistakes.
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>

namespace secateur {
namespace {

// For rotation r: which lane each lane looks at, and -1 where that lane is the later one. A later
// element also wins if it is equal: partner >= self is partner > self - 1.
template <class Int, int kLanes>
struct Rotations {
  alignas(64) Int partner[kMaxGroup][kLanes];
  alignas(64) Int later[kMaxGroup][kLanes];

  explicit Rotations(int m) {
    for (int r = 1; r < m; ++r) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const int position = lane % m;
        const int from = lane - position + (position + r) % m;
        partner[r][lane] = static_cast<Int>(from < kLanes ? from : lane);
        later[r][lane] = static_cast<Int>(position + r < m ? -1 : 0);
      }
    }
  }
};

template <int kBits>
struct Zmm;

// The widths differ in nothing but the names of their intrinsics.
#define SECATEUR_ZMM(BITS, LANES)                                                               \
  template <>                                                                                   \
  struct Zmm<BITS> {                                                                            \
    using Int = std::int##BITS##_t;                                                             \
    using Lanes = LANES;                                                                        \
    SECATEUR_TARGET_AVX512 static SECATEUR_INLINE __m512i set(Int value) {                      \
      return _mm512_set1_epi##BITS(value);                                                      \
    }                                                                                           \
    SECATEUR_TARGET_AVX512 static SECATEUR_INLINE __m512i load(Lanes lanes, const void* data) { \
      return _mm512_maskz_loadu_epi##BITS(lanes, data);                                         \
    }                                                                                           \
    SECATEUR_TARGET_AVX512 static SECATEUR_INLINE __m512i larger(__m512i a, __m512i b) {        \
      return _mm512_max_epi##BITS(a, b);                                                        \
    }                                                                                           \
    SECATEUR_TARGET_AVX512 static SECATEUR_INLINE __m512i negate_if(__m512i a, __m512i signs) { \
      const __m512i all = _mm512_srai_epi##BITS(signs, (BITS) - 1);                             \
      return _mm512_sub_epi##BITS(_mm512_xor_si512(a, all), all);                               \
    }                                                                                           \
    SECATEUR_TARGET_AVX512 static SECATEUR_INLINE __m512i keep(Lanes lanes, __m512i a,          \
                                                               Int otherwise) {                 \
      return _mm512_mask_blend_epi##BITS(lanes, set(otherwise), a);                             \
    }                                                                                           \
    SECATEUR_TARGET_AVX512 static SECATEUR_INLINE __m512i permute(__m512i from, __m512i a) {    \
      return _mm512_permutexvar_epi##BITS(from, a);                                             \
    }                                                                                           \
    SECATEUR_TARGET_AVX512 static SECATEUR_INLINE Lanes above(__m512i a, __m512i b) {           \
      return _mm512_cmpgt_epi##BITS##_mask(a, b);                                               \
    }                                                                                           \
    SECATEUR_TARGET_AVX512 static SECATEUR_INLINE __m512i add(__m512i a, __m512i b) {           \
      return _mm512_add_epi##BITS(a, b);                                                        \
    }                                                                                           \
    SECATEUR_TARGET_AVX512 static SECATEUR_INLINE __m512i add_if(Lanes lanes, __m512i a,        \
                                                                 __m512i b) {                   \
      return _mm512_mask_add_epi##BITS(a, lanes, a, b);                                         \
    }                                                                                           \
  }
SECATEUR_ZMM(16, __mmask32);
SECATEUR_ZMM(32, __mmask16);
SECATEUR_ZMM(64, __mmask8);
#undef SECATEUR_ZMM

template <class Lanes>
SECATEUR_TARGET_AVX512 SECATEUR_INLINE void store_bytes(std::uint8_t* mask, Lanes lanes,
                                                        Lanes kept) {
  if constexpr (sizeof(Lanes) == 4) {
    _mm256_mask_storeu_epi8(mask, lanes, _mm256_maskz_set1_epi8(kept, 1));
  } else {
    _mm_mask_storeu_epi8(mask, lanes, _mm_maskz_set1_epi8(kept, 1));
  }
}

template <class Bits>
SECATEUR_TARGET_AVX512 SECATEUR_INLINE Bits largest_lane(__m512i values) {
  alignas(64) Bits lanes[64 / sizeof(Bits)];
  _mm512_store_si512(lanes, values);
  return *std::max_element(std::begin(lanes), std::end(lanes));
}

struct Ymm {
  __m256i keys;
  __m256i magnitudes;
};

// float16 and bfloat16 become the upper half of 32 bits, which changes neither order nor ties.
template <class Bits>
SECATEUR_TARGET_AVX2 SECATEUR_INLINE __m256i load_lanes(const Bits* data, std::size_t count) {
  Bits buffer[kKeysAvx2] = {};
  if (count < static_cast<std::size_t>(kKeysAvx2)) {
    std::memcpy(buffer, data, count * sizeof(*data));
    data = buffer;
  }
  if constexpr (sizeof(Bits) == 2) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
    return _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
  } else {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
  }
}

SECATEUR_TARGET_AVX2 SECATEUR_INLINE Ymm keys_of(__m256i bits, std::size_t count, Order order) {
  const __m256i magnitudes = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
  __m256i keys = magnitudes;
  if (order == Order::value) {
    const __m256i signs = _mm256_srai_epi32(bits, 31);
    keys = _mm256_sub_epi32(_mm256_xor_si256(keys, signs), signs);
  }
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i present = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
  const __m256i missing = _mm256_set1_epi32(INT32_MIN);
  return {_mm256_blendv_epi8(missing, keys, present), magnitudes};
}

SECATEUR_TARGET_AVX2 SECATEUR_INLINE void store_lanes(std::uint8_t* mask, std::size_t count,
                                                      __m256i kept) {
  const __m128i halves =
      _mm_packs_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
  const __m128i bytes = _mm_and_si128(_mm_packs_epi16(halves, halves), _mm_set1_epi8(1));
  if (count == static_cast<std::size_t>(kKeysAvx2)) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(mask), bytes);
  } else {
    alignas(16) std::uint8_t buffer[16];
    _mm_store_si128(reinterpret_cast<__m128i*>(buffer), bytes);
    std::memcpy(mask, buffer, count);
  }
}

}  // namespace

template <class Bits>
SECATEUR_TARGET_AVX512 Bits rotate_avx512(const GroupRun<Bits>& run) {
  using V = Zmm<8 * sizeof(Bits)>;
  using Int = typename V::Int;
  using Lanes = typename V::Lanes;
  constexpr int kLanes = kKeysAvx512<Bits>;
  const int m = run.rule.m;
  const Rotations<Int, kLanes> rotations(m);
  const auto group = static_cast<std::size_t>(m);
  const std::size_t step = kLanes / group * group;
  const __m512i magnitude_bits = V::set(static_cast<Int>(kMagnitudeBits<Bits>));
  const __m512i one = V::set(1);
  const __m512i kept_ranks = V::set(static_cast<Int>(run.rule.n));
  __m512i largest = _mm512_setzero_si512();
  for (std::size_t i = 0; i < run.size; i += step) {
    const std::size_t count = std::min(step, run.size - i);
    const auto lanes = static_cast<Lanes>(~std::uint64_t{0} >> (64 - count));
    const __m512i bits = V::load(lanes, run.data + i);
    const __m512i magnitudes = _mm512_and_si512(bits, magnitude_bits);
    largest = V::larger(largest, magnitudes);
    __m512i keys = run.rule.order == Order::value ? V::negate_if(magnitudes, bits) : magnitudes;
    keys = V::keep(lanes, keys, std::numeric_limits<Int>::min());
    __m512i beaten_by = _mm512_setzero_si512();
    for (int r = 1; r < m; ++r) {
      const __m512i partners = V::permute(_mm512_load_si512(rotations.partner[r]), keys);
      const __m512i selves = V::add(keys, _mm512_load_si512(rotations.later[r]));
      beaten_by = V::add_if(V::above(partners, selves), beaten_by, one);
    }
    store_bytes<Lanes>(run.mask + i, lanes, V::above(kept_ranks, beaten_by));
  }
  return largest_lane<Bits>(largest);
}

template <class Bits>
SECATEUR_TARGET_AVX2 Bits rotate_avx2(const GroupRun<Bits>& run) {
  const int m = run.rule.m;
  const Rotations<std::int32_t, kKeysAvx2> rotations(m);
  const auto group = static_cast<std::size_t>(m);
  const std::size_t step = kKeysAvx2 / group * group;
  const __m256i kept_ranks = _mm256_set1_epi32(run.rule.n);
  __m256i largest = _mm256_setzero_si256();
  for (std::size_t i = 0; i < run.size; i += step) {
    const std::size_t count = std::min(step, run.size - i);
    const Ymm lanes = keys_of(load_lanes<Bits>(run.data + i, count), count, run.rule.order);
    largest = _mm256_max_epi32(largest, lanes.magnitudes);
    __m256i beaten_by = _mm256_setzero_si256();
    for (int r = 1; r < m; ++r) {
      const auto* partner = reinterpret_cast<const __m256i*>(rotations.partner[r]);
      const auto* later = reinterpret_cast<const __m256i*>(rotations.later[r]);
      const __m256i partners = _mm256_permutevar8x32_epi32(lanes.keys, _mm256_load_si256(partner));
      const __m256i selves = _mm256_add_epi32(lanes.keys, _mm256_load_si256(later));
      beaten_by = _mm256_sub_epi32(beaten_by, _mm256_cmpgt_epi32(partners, selves));
    }
    store_lanes(run.mask + i, count, _mm256_cmpgt_epi32(kept_ranks, beaten_by));
  }
  alignas(32) std::uint32_t lanes[kKeysAvx2];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest);
  const std::uint32_t top = *std::max_element(std::begin(lanes), std::end(lanes));
  return static_cast<Bits>(top >> (32 - 8 * sizeof(Bits)));
}

template std::uint16_t rotate_avx512(const GroupRun<std::uint16_t>&);
template std::uint32_t rotate_avx512(const GroupRun<std::uint32_t>&);
template std::uint64_t rotate_avx512(const GroupRun<std::uint64_t>&);
template std::uint16_t rotate_avx2(const GroupRun<std::uint16_t>&);
template std::uint32_t rotate_avx2(const GroupRun<std::uint32_t>&);

}  // namespace secateur

#endif
