// How a number becomes an integer that orders like it.
//
// Inside the kernels a key is *signed*: the bits without the sign, negated for negative numbers in
// Order::value. AVX2 has only signed comparisons, and with signed keys magnitude and value differ
// in one step. Unsigned keys, as the outside sees them, are made at the door (to_lane, from_lane).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "secateur/dtype.hpp"
#include "secateur/simd.hpp"

namespace secateur::select {

// 16-bit numbers are compared in 32-bit lanes: AVX-512 without VBMI2 cannot compress 16-bit ones.
template <class U>
using Lane = std::conditional_t<sizeof(U) == 8, std::int64_t, std::int32_t>;

template <class U>
inline constexpr U kMagnitudeBits = static_cast<U>(static_cast<U>(~U{0}) >> 1);

template <class U>
SECATEUR_INLINE Lane<U> magnitude_of(U bits) {
  return static_cast<Lane<U>>(bits & kMagnitudeBits<U>);
}

template <class U, Order order>
SECATEUR_INLINE Lane<U> lane_of(U bits) {
  const Lane<U> magnitude = magnitude_of(bits);
  if constexpr (order == Order::magnitude) return magnitude;
  return (bits > kMagnitudeBits<U>) ? -magnitude : magnitude;
}

constexpr std::int64_t infinity_lane(DType dtype) noexcept {
  switch (dtype) {
    case DType::float16:
      return 0x7C00;
    case DType::bfloat16:
      return 0x7F80;
    case DType::float32:
      return 0x7F800000;
    case DType::float64:
      break;
  }
  return 0x7FF0000000000000;
}

// The largest magnitude that may be ranked.
constexpr std::int64_t largest_legal(DType dtype, Order order) noexcept {
  return infinity_lane(dtype) - (order == Order::magnitude ? 1 : 0);
}

constexpr std::uint64_t sign_bit(DType dtype) noexcept {
  return std::uint64_t{1} << (8 * item_size(dtype) - 1);
}

constexpr std::uint64_t from_lane(std::int64_t lane, DType dtype, Order order) noexcept {
  return static_cast<std::uint64_t>(lane) + (order == Order::value ? sign_bit(dtype) : 0);
}

inline std::int64_t to_lane(std::uint64_t key, DType dtype, Order order) {
  const auto lane = static_cast<std::int64_t>(key - (order == Order::value ? sign_bit(dtype) : 0));
  const std::int64_t limit = infinity_lane(dtype);
  // Nothing lies below key 0, so a cut may have it although no number does.
  if (key != 0 && (lane > limit || lane < (order == Order::value ? -limit : 0))) {
    throw std::invalid_argument("a cut's key must be that of a finite number or an infinity");
  }
  return lane;
}

// The number that has this signed key.
double decode_lane(std::int64_t lane, DType dtype);

// One run of a segment that one task works on.
struct Chunk {
  std::size_t segment;
  std::size_t begin;
  std::size_t end;
};

// 256 KiB per chunk: long enough for the prefetcher and to hide the cost of a task, short enough to
// spread over many cores. By size alone, so that results cannot depend on the number of threads.
inline constexpr std::size_t kChunkBytes = std::size_t{1} << 18;

inline std::vector<Chunk> make_chunks(std::span<const Segment> segments, std::size_t item_bytes) {
  const std::size_t length = kChunkBytes / item_bytes;
  std::vector<Chunk> chunks;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    for (std::size_t begin = 0; begin < segments[s].size; begin += length) {
      const std::size_t left = segments[s].size - begin;
      chunks.push_back({s, begin, begin + (left < length ? left : length)});
    }
  }
  return chunks;
}

template <class U>
const U* chunk_data(std::span<const Segment> segments, const Chunk& chunk) {
  return static_cast<const U*>(segments[chunk.segment].data) + chunk.begin;
}

// How far ahead of a kernel the memory is asked for. The processor's own prefetcher stops at the
// end of each 4 KiB page; asking one page ahead took the search's pass from 1.5 to 1.06 times a
// plain read (two cores, AVX-512; 1 KiB ahead 1.25, 2 KiB 1.15).
inline constexpr std::size_t kPrefetchBytes = 4096;

template <class U>
SECATEUR_INLINE void prefetch(const U* data) {
#if defined(__GNUC__)
  // The address may lie past the end of the array, where pointer arithmetic may not go.
  const auto address = reinterpret_cast<std::uintptr_t>(data) + kPrefetchBytes;
  __builtin_prefetch(reinterpret_cast<const void*>(address));  // NOLINT(performance-no-int-to-ptr)
#endif
}

// The lowest segment number that any task noted: which task notes first does not matter.
class FirstSegment {
 public:
  void note(std::size_t segment) noexcept {
    std::size_t seen = lowest_.load();
    while (segment < seen && !lowest_.compare_exchange_weak(seen, segment)) {
    }
  }
  std::optional<std::size_t> get() const noexcept {
    const std::size_t lowest = lowest_.load();
    if (lowest == kNone) return std::nullopt;
    return lowest;
  }

 private:
  static constexpr std::size_t kNone = ~std::size_t{0};
  std::atomic<std::size_t> lowest_{kNone};
};

// Calls function(U{}) with the unsigned type that holds the bits of `dtype`.
template <class Function>
decltype(auto) with_bits(DType dtype, Function&& function) {
  switch (item_size(dtype)) {
    case 2:
      return function(std::uint16_t{});
    case 4:
      return function(std::uint32_t{});
    default:
      return function(std::uint64_t{});
  }
}

}  // namespace secateur::select
