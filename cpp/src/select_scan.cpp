#include "select_scan.hpp"

#include <atomic>
#include <cstring>

#include "secateur/select.hpp"
#include "secateur/threads.hpp"
#include "select_keys.hpp"

namespace secateur {
namespace select {
namespace {

template <class U>
SECATEUR_INLINE U max_magnitude(const U* data, std::size_t size) {
  U best = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const U magnitude = data[i] & kMagnitudeBits<U>;
    best = magnitude > best ? magnitude : best;
  }
  return best;
}

// Through memcpy because float32 data need not be aligned to 8 bytes.
SECATEUR_INLINE std::uint64_t sum_words(const unsigned char* data, std::size_t num_words) {
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < num_words; ++i) {
    std::uint64_t word;
    std::memcpy(&word, data + i * sizeof(word), sizeof(word));
    total += word;
  }
  return total;
}

template <class U>
U max_scalar(const U* data, std::size_t size) {
  return max_magnitude(data, size);
}
std::uint64_t sum_scalar(const unsigned char* data, std::size_t num_words) {
  return sum_words(data, num_words);
}

#if SECATEUR_X86
template <class U>
SECATEUR_TARGET_AVX2 U max_avx2(const U* data, std::size_t size) {
  return max_magnitude(data, size);
}
template <class U>
SECATEUR_TARGET_AVX512 U max_avx512(const U* data, std::size_t size) {
  return max_magnitude(data, size);
}
SECATEUR_TARGET_AVX2 std::uint64_t sum_avx2(const unsigned char* data, std::size_t num_words) {
  return sum_words(data, num_words);
}
SECATEUR_TARGET_AVX512 std::uint64_t sum_avx512(const unsigned char* data, std::size_t num_words) {
  return sum_words(data, num_words);
}
#endif

template <class U>
auto max_kernel() {
#if SECATEUR_X86
  return pick(max_scalar<U>, max_avx2<U>, max_avx512<U>);
#else
  return max_scalar<U>;
#endif
}

auto sum_kernel() {
#if SECATEUR_X86
  return pick(sum_scalar, sum_avx2, sum_avx512);
#else
  return sum_scalar;
#endif
}

}  // namespace

std::optional<std::size_t> find_above(std::span<const Segment> segments, DType dtype,
                                      std::int64_t largest) {
  return with_bits(dtype, [&](auto zero) -> std::optional<std::size_t> {
    using U = decltype(zero);
    const std::vector<Chunk> chunks = make_chunks(segments, sizeof(U));
    const auto kernel = max_kernel<U>();
    FirstSegment first;
    parallel_for(chunks.size(), [&](std::size_t c) {
      const Chunk& chunk = chunks[c];
      const U best = kernel(chunk_data<U>(segments, chunk), chunk.end - chunk.begin);
      if (static_cast<std::uint64_t>(best) > static_cast<std::uint64_t>(largest)) {
        first.note(chunk.segment);
      }
    });
    return first.get();
  });
}

}  // namespace select

std::optional<std::size_t> find_non_finite(std::span<const Segment> segments, DType dtype) {
  return select::find_above(segments, dtype, select::largest_legal(dtype, Order::magnitude));
}

std::uint64_t read_pass(const void* data, std::size_t num_bytes) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  constexpr std::size_t kWord = sizeof(std::uint64_t);
  const Segment words{data, num_bytes / kWord};
  const std::vector<select::Chunk> chunks = select::make_chunks({&words, 1}, kWord);
  const auto kernel = select::sum_kernel();
  std::atomic<std::uint64_t> total{0};
  parallel_for(chunks.size(), [&](std::size_t c) {
    total += kernel(bytes + chunks[c].begin * kWord, chunks[c].end - chunks[c].begin);
  });
  std::uint64_t tail = 0;
  if (num_bytes % kWord != 0) std::memcpy(&tail, bytes + words.size * kWord, num_bytes % kWord);
  return total + tail;
}

}  // namespace secateur
