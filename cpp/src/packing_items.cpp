// Items of a chunk: counted, squeezed into their non-zeros and a bit mask, and spread again.
#include <array>
#include <bit>
#include <cstdint>

#include "packing_bodies.hpp"
#include "packing_chunk.hpp"
#include "packing_lanes.hpp"

namespace secateur {
namespace {

static_assert(std::endian::native == std::endian::little, "bit masks are stored as little-endian");

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

template <class T>
SECATEUR_INLINE void expand_rest(const std::uint64_t* words, std::size_t i, std::size_t size,
                                 const T* values, std::size_t num_values, std::size_t used,
                                 T* out) {
  for (; i < size; i += 64) {
    const std::uint64_t word = words[i / 64];
    const std::size_t end = std::min<std::size_t>(64, size - i);
    if (end == 64 && used + 64 <= num_values) {  // no branch, as in compress_rest
      for (std::size_t j = 0; j < 64; ++j) {
        const bool set = (word >> j & 1U) != 0;
        out[i + j] = static_cast<T>(values[used] & (T{0} - T{set}));
        used += set;
      }
      continue;
    }
    for (std::size_t j = 0; j < end; ++j) {
      const bool set = (word >> j & 1U) != 0 && used < num_values;
      out[i + j] = set ? values[used] : T{0};
      used += set;
    }
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

#if SECATEUR_X86

template <class T>
SECATEUR_TARGET_AVX2 std::size_t count_avx2(const void* items, std::size_t size, Zero zero) {
  return count_body<T>(items, size, zero);
}

template <class T>
SECATEUR_TARGET_AVX512 std::size_t count_avx512(const void* items, std::size_t size, Zero zero) {
  return count_body<T>(items, size, zero);
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
      append256(values, room, used, kept, count);
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
      const __m256i kept = next256(values, num_values, used);
      const __m256i order = _mm256_cvtepi8_epi32(table_row(kExpand[lane_mask256<T>(set)]));
      const __m256i moved = _mm256_permutevar8x32_epi32(kept, order);
      store256(out + i + j, _mm256_andnot_si256(_mm256_srai_epi32(order, 31), moved));
      used += static_cast<std::size_t>(std::popcount(set));
    }
  }
  expand_rest(words, i, size, values, num_values, std::min(used, num_values), out);
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
      store512(out + i + j, expand512<T>(set, next512(values, num_values, used)));
      used += static_cast<std::size_t>(std::popcount(set));
    }
  }
  expand_rest(words, i, size, values, num_values, std::min(used, num_values), out);
}

#endif  // SECATEUR_X86

template <class T>
ChunkKernels kernels_for() {
#if SECATEUR_X86
  return {pick(&count_scalar<T>, &count_avx2<T>, &count_avx512<T>),
          pick(&compress_scalar<T>, &compress_avx2<T>, &compress_avx512<T>),
          pick(&expand_scalar<T>, &expand_avx2<T>, &expand_avx512<T>)};
#else
  return {&count_scalar<T>, &compress_scalar<T>, &expand_scalar<T>};
#endif
}

}  // namespace

ChunkKernels chunk_kernels(std::size_t item_size) {
  return with_item(item_size, [](auto item) { return kernels_for<decltype(item)>(); });
}

}  // namespace secateur
