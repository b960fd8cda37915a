// Values taken apart into high parts, which are entropy-coded, and low bits, which are not; and put
// together again. See codec.hpp for the format.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "codec_ans.hpp"
#include "codec_bytes.hpp"
#include "secateur/codec.hpp"

namespace secateur::codec {

// A value's code is (base + symbol) << low | low bits.
struct ValuePlan {
  std::uint8_t shift;  // low bits of the number itself that are 0 in every value
  std::uint8_t low;
  std::uint64_t base;

  bool operator==(const ValuePlan&) const = default;
};

// Symbols have 8 bits, so no value needs more low ones than this.
constexpr unsigned max_low(std::size_t item_size) {
  return static_cast<unsigned>(8 * item_size) - 8;
}

constexpr std::size_t low_bytes(std::size_t count, unsigned low) { return (count * low + 7) / 8; }

// The distinct values of a chunk, if they are few: the first `size` of `items`, in rising order of
// their bits. Items are of any size, and as many bytes apart.
struct Palette {
  std::size_t size = 0;
  std::array<std::uint64_t, 256> items;
};

// What a plan depends on.
struct ValueRange {
  std::uint64_t used = 0;  // bits that some number has set, its sign apart
  std::uint64_t least = ~std::uint64_t{0};
  std::uint64_t greatest = 0;  // codes with shift 0

  void join(const ValueRange& other);
};

struct Values {
  const void* data;
  std::size_t count;
};

struct ValueKernels {
  ValueRange (*range)(const Values& values);
  std::uint64_t (*shifted_code)(std::uint64_t code, unsigned shift);  // of a code with shift 0
  void (*high)(const Values& values, const ValuePlan& plan, std::uint8_t* symbols);
  // Writes low_bytes(count, plan.low) bytes, and up to eight more that may hold anything.
  void (*low)(const Values& values, const ValuePlan& plan, std::uint8_t* packed);
  void (*merge)(const std::uint8_t* symbols, const std::uint8_t* packed, const ValuePlan& plan,
                std::size_t count, void* values);
  // False if there are more than 256 values. Else `symbols` are the values' places.
  bool (*find_palette)(const Values& values, Palette& palette, std::uint8_t* symbols);
  // Whether the palette's items rise.
  bool (*rises)(const Palette& palette);
  // False if a symbol lies past the palette's end.
  bool (*paint)(const std::uint8_t* symbols, const Palette& palette, std::size_t count,
                void* values);
};

ValueKernels value_kernels(std::size_t item_size, Numbers numbers);

// The finest plan whose symbols reach over the whole range. The range must not be empty.
ValuePlan finest_plan(const ValueRange& range, const ValueKernels& kernels);

// How often each byte comes, added to what is there.
void count_bytes(const std::uint8_t* bytes, std::size_t count, Histogram& counts);

// Gives up leading mantissa bits of the symbols while that makes the whole smaller: short runs of
// values would pay more for a long table than they gain. `counts` follows the plan.
void coarsen(ValuePlan& plan, Histogram& counts, std::size_t item_size);

void write_plan(const ValuePlan& plan, Bytes& out);
[[nodiscard]] bool read_plan(ByteReader& in, std::size_t item_size, ValuePlan& plan);

}  // namespace secateur::codec
