// What kernels that compute (rather than compare) need to know of each floating-point type.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "secateur/dtype.hpp"
#include "secateur/simd.hpp"

namespace secateur {

// `widen` is exact. `infinity` is the bit pattern from which on a magnitude is not finite.
struct Float16 {
  using Bits = std::uint16_t;
  using Score = float;
  static constexpr Bits infinity = 0x7c00;
  static SECATEUR_INLINE double widen(Bits bits) {
    const std::uint32_t magnitude = bits & 0x7fffU;
    const std::uint32_t sign = (bits & 0x8000U) << 16;
    // The exponent is off by 127 - 15 once the bits are in place, for subnormals too.
    const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112F;
    const std::uint32_t special = magnitude >= infinity ? 0x7f800000U : 0U;
    return static_cast<double>(
        std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign));
  }
};

struct BFloat16 {
  using Bits = std::uint16_t;
  using Score = float;
  static constexpr Bits infinity = 0x7f80;
  static SECATEUR_INLINE double widen(Bits bits) {
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
  }
};

struct Float32 {
  using Bits = std::uint32_t;
  using Score = float;
  static constexpr Bits infinity = 0x7f800000U;
  static SECATEUR_INLINE double widen(Bits bits) {
    return static_cast<double>(std::bit_cast<float>(bits));
  }
};

struct Float64 {
  using Bits = std::uint64_t;
  using Score = double;
  static constexpr Bits infinity = 0x7ff0000000000000U;
  static SECATEUR_INLINE double widen(Bits bits) { return std::bit_cast<double>(bits); }
};

template <class Bits>
inline constexpr Bits kMagnitudeBits = static_cast<Bits>(static_cast<Bits>(~Bits{0}) >> 1);

// Calls visit with the format of `dtype`; every branch must return the same type.
template <class Visit>
auto with_format(DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::float16:
      return visit(Float16{});
    case DType::bfloat16:
      return visit(BFloat16{});
    case DType::float64:
      return visit(Float64{});
    case DType::float32:
      break;
  }
  return visit(Float32{});
}

}  // namespace secateur
