// Range ANS over bytes: frequency tables, and streams of symbols. See codec.hpp for the format.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "codec_bytes.hpp"

namespace secateur::codec {

inline constexpr unsigned kAnsBits = 12;
inline constexpr std::uint32_t kAnsTotal = 1U << kAnsBits;
inline constexpr std::uint32_t kAnsLow = 1U << 16;  // states stay in [kAnsLow, 2^32)
inline constexpr std::size_t kAnsWide = 32;
inline constexpr std::size_t kAnsNarrow = 4;
// Each state costs two bytes more than it holds: from here on 32 of them cost under one per cent.
inline constexpr std::size_t kAnsWideFrom = 4096;

constexpr std::size_t ans_states(std::size_t num_symbols) {
  return num_symbols >= kAnsWideFrom ? kAnsWide : kAnsNarrow;
}

using Histogram = std::array<std::uint64_t, 256>;

// How often each symbol is expected, out of kAnsTotal; they sum to it.
using Frequencies = std::array<std::uint16_t, 256>;

// Costs are counted in 1/256 bit.
inline constexpr std::uint64_t kCostPerByte = std::uint64_t{8} * 256;
inline constexpr std::uint64_t kNoCost = std::numeric_limits<std::uint64_t>::max();

// log2(n) in 1/256, n >= 1, by integers alone.
std::uint64_t log2_cost(std::uint64_t n);

// What an ideal coder would need for symbols that come so often.
std::uint64_t entropy_cost(const Histogram& counts);

// Some count must not be 0. Every symbol that occurs gets a frequency of at least 1.
Frequencies normalise(const Histogram& counts);

// What a stream of symbols that come so often takes; kNoCost if one of them has no frequency.
std::uint64_t stream_cost(const Histogram& counts, const Frequencies& frequencies);

void write_frequencies(const Frequencies& frequencies, Bytes& out);
[[nodiscard]] bool read_frequencies(ByteReader& in, Frequencies& frequencies);

// A symbol that has all of kAnsTotal makes an empty stream.
void ans_encode(const std::uint8_t* symbols, std::size_t count, const Frequencies& frequencies,
                Bytes& out);

// For each of the kAnsTotal slots: symbol (8 bits), slot - first slot of the symbol (12 bits),
// frequency - 1 (12 bits).
struct AnsSlots {
  explicit AnsSlots(const Frequencies& frequencies);
  alignas(64) std::array<std::uint32_t, kAnsTotal> entries;
};

// False if the stream ends early or does not end as every stream does, with the states that
// encoding starts from.
[[nodiscard]] bool ans_decode(ByteReader& in, const AnsSlots& slots, std::uint8_t* symbols,
                              std::size_t count);

}  // namespace secateur::codec
