// What encoding and decoding of an array share. See codec.hpp for the bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec_bytes.hpp"
#include "packing_chunk.hpp"

namespace secateur::codec {

enum class Positions : std::uint8_t {
  empty = 0,
  full = 1,
  mask = 2,
  mask_ans = 3,
  gaps = 4,
  raw = 5,
};

inline constexpr unsigned kNumPositions = 6;

// Flags of an array: which shared tables it has.
inline constexpr unsigned kMaskTable = 1;
inline constexpr unsigned kGapTable = 2;
inline constexpr unsigned kValueTable = 4;

// Of the gaps' symbols, the one that stands for so many zeros and no non-zero.
inline constexpr std::uint8_t kSkip = 255;

struct ChunkHeader {
  Positions positions;
  bool coded_values;
  bool own_positions;  // the table of the positions is the chunk's own
  bool own_values;
  bool palette;
  std::uint32_t nonzeros;
  std::uint32_t checksum;
};

inline constexpr std::size_t kChunkHeaderBytes = 8;

void write_header(const ChunkHeader& header, std::uint8_t* out);

// False if bits are set that should not be, or contradict each other or the chunk's size.
[[nodiscard]] bool read_header(const std::uint8_t* from, std::size_t size, ChunkHeader& header);

// Over what a chunk decodes to, in whatever form it was stored: its mask and its non-zeros.
std::uint32_t chunk_checksum(const std::uint64_t* words, std::size_t size, const void* values,
                             std::size_t value_bytes);

}  // namespace secateur::codec
