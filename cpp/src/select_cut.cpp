// From numbers to cuts and back.
#include <bit>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "secateur/select.hpp"
#include "select_keys.hpp"

namespace secateur {
namespace {

double decode_float16(std::uint32_t magnitude) {
  const auto exponent = static_cast<int>(magnitude >> 10);
  const double fraction = magnitude & 0x3FFU;
  if (exponent == 31) return fraction == 0 ? HUGE_VAL : std::nan("");
  if (exponent == 0) return std::ldexp(fraction, -24);
  return std::ldexp(fraction + 1024, exponent - 25);
}

double decode_magnitude(std::uint64_t magnitude, DType dtype) {
  const auto bits = static_cast<std::uint32_t>(magnitude);
  switch (dtype) {
    case DType::float16:
      return decode_float16(bits);
    case DType::bfloat16:
      return std::bit_cast<float>(bits << 16);
    case DType::float32:
      return std::bit_cast<float>(bits);
    case DType::float64:
      break;
  }
  return std::bit_cast<double>(magnitude);
}

}  // namespace

double select::decode_lane(std::int64_t lane, DType dtype) {
  return lane < 0 ? -decode_magnitude(static_cast<std::uint64_t>(-lane), dtype)
                  : decode_magnitude(static_cast<std::uint64_t>(lane), dtype);
}

Cut cut_at(double threshold, DType dtype, Order order) {
  if (std::isnan(threshold)) throw std::invalid_argument("the threshold must not be NaN");
  // The smallest key whose number is not below the threshold, found by halving: this rounds up to
  // the next number of the dtype without a case for each format.
  std::int64_t high = select::infinity_lane(dtype);
  std::int64_t low = order == Order::value ? -high : 0;
  while (low < high) {
    const std::int64_t middle = std::midpoint(low, high);  // high - low may exceed 63 bits
    if (select::decode_lane(middle, dtype) < threshold) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return {select::from_lane(low, dtype, order), 0, 0};
}

double cut_value(std::uint64_t key, DType dtype, Order order) {
  const std::int64_t lane = select::to_lane(key, dtype, order);
  // Key 0 stands below all numbers; in Order::value no number has it.
  if (key == 0) return order == Order::value ? -HUGE_VAL : 0.0;
  return select::decode_lane(lane, dtype);
}

}  // namespace secateur
