// What the n:m kernels share: signed keys, and the run of elements that one call of a kernel
// handles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "formats.hpp"
#include "secateur/patterns.hpp"

namespace secateur {

// Signed, so that AVX2, which has no unsigned comparisons, can use them too. The smallest number of
// the type is no key: it marks what is missing from a short group.
template <class Bits>
using Key = std::make_signed_t<Bits>;

template <class Bits>
SECATEUR_INLINE Key<Bits> to_key(Bits bits, Order order) {
  const auto magnitude = static_cast<Key<Bits>>(bits & kMagnitudeBits<Bits>);
  if (order == Order::magnitude) return magnitude;
  const auto sign = static_cast<Key<Bits>>(static_cast<Key<Bits>>(bits) >> (8 * sizeof(Bits) - 1));
  return static_cast<Key<Bits>>((magnitude ^ sign) - sign);
}

// The largest magnitude that may occur: infinity is a value that can be compared, but no weight.
template <class Format>
constexpr typename Format::Bits largest_allowed(Order order) {
  using Bits = typename Format::Bits;
  return static_cast<Bits>(order == Order::value ? Format::infinity : Format::infinity - 1);
}

// Consecutive elements, groups one after another; only the last group may be short.
template <class Bits>
struct GroupRun {
  const Bits* data;
  std::size_t size;
  std::uint8_t* mask;
  GroupRule rule;
};

// The in-register kernels; they return the largest magnitude they met. m must not be above the
// number of keys in a register.
#if SECATEUR_X86
inline constexpr int kKeysAvx2 = 8;  // 16-bit keys are widened to 32 bits
template <class Bits>
inline constexpr int kKeysAvx512 = 64 / static_cast<int>(sizeof(Bits));

template <class Bits>
SECATEUR_TARGET_AVX2 Bits rotate_avx2(const GroupRun<Bits>& run);
template <class Bits>
SECATEUR_TARGET_AVX512 Bits rotate_avx512(const GroupRun<Bits>& run);
#endif

}  // namespace secateur
