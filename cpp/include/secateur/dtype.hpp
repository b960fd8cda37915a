// The floating-point types that kernels read, and the order they compare them in.
#pragma once

#include <cstddef>
#include <cstdint>

namespace secateur {

// The kernels see raw bits: uint16_t for float16 and bfloat16, uint32_t for float32, uint64_t for
// float64. Sign-magnitude floats compare as unsigned integers once the sign is dealt with, so one
// integer kernel per width serves every type.
enum class DType : int { float16 = 0, bfloat16 = 1, float32 = 2, float64 = 3 };

constexpr std::size_t item_size(DType dtype) noexcept {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

// magnitude: compare |x| (key = bits without the sign).
// value: compare x itself; -0.0 and +0.0 are equal (key = order-preserving map of the bits).
enum class Order : int { magnitude = 0, value = 1 };

// A run of numbers that is ranked together with others, without copying any of them.
struct Segment {
  const void* data;
  std::size_t size;  // in elements
};

}  // namespace secateur
