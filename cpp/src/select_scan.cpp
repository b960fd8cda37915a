#include "select_scan.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "secateur/select.hpp"
#include "secateur/threads.hpp"
#include "select_keys.hpp"

namespace secateur {
namespace select {
namespace {

// A cache line of numbers; the compiler splits it into whatever registers the target has.
template <class U>
struct LineOf {
  typedef U Type __attribute__((vector_size(64), aligned(1), may_alias));
};
template <class U>
using Line = typename LineOf<U>::Type;

template <class U>
SECATEUR_INLINE U max_magnitude(const U* data, std::size_t size) {
  constexpr std::size_t kLine = 64 / sizeof(U);
  Line<U> best{};
  std::size_t i = 0;
  for (; i + kLine <= size; i += kLine) {
    prefetch(data + i);
    const Line<U> magnitude = *reinterpret_cast<const Line<U>*>(data + i) & kMagnitudeBits<U>;
    best = magnitude > best ? magnitude : best;
  }
  U result = 0;
  for (std::size_t j = 0; j < kLine; ++j) result = std::max<U>(result, best[j]);
  for (; i < size; ++i) result = std::max<U>(result, data[i] & kMagnitudeBits<U>);
  return result;
}

SECATEUR_INLINE std::uint64_t sum_words(const unsigned char* data, std::size_t num_bytes) {
  using Words = Line<std::uint64_t>;
  Words sums{};
  std::size_t i = 0;
  for (; i + sizeof(Words) <= num_bytes; i += sizeof(Words)) {
    prefetch(data + i);
    sums += *reinterpret_cast<const Words*>(data + i);
  }
  std::uint64_t result = 0;
  for (std::size_t j = 0; j < sizeof(Words) / sizeof(result); ++j) result += sums[j];
  for (; i < num_bytes; i += sizeof(result)) {
    std::uint64_t word = 0;
    std::memcpy(&word, data + i, std::min(sizeof(word), num_bytes - i));
    result += word;
  }
  return result;
}

template <class U>
U max_scalar(const U* data, std::size_t size) {
  return max_magnitude(data, size);
}
std::uint64_t sum_scalar(const unsigned char* data, std::size_t num_bytes) {
  return sum_words(data, num_bytes);
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
SECATEUR_TARGET_AVX2 std::uint64_t sum_avx2(const unsigned char* data, std::size_t num_bytes) {
  return sum_words(data, num_bytes);
}
SECATEUR_TARGET_AVX512 std::uint64_t sum_avx512(const unsigned char* data, std::size_t num_bytes) {
  return sum_words(data, num_bytes);
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
  const Segment segment{data, num_bytes};
  const std::vector<select::Chunk> chunks = select::make_chunks({&segment, 1}, 1);
  const auto kernel = select::sum_kernel();
  std::atomic<std::uint64_t> total{0};
  parallel_for(chunks.size(), [&](std::size_t c) {
    total += kernel(bytes + chunks[c].begin, chunks[c].end - chunks[c].begin);
  });
  return total;
}

}  // namespace secateur
