#include "codec_format.hpp"

#include <array>
#include <bit>

#include "variants.hpp"

namespace secateur::codec {
namespace {

// 32 lanes that take four bytes each in turn. Every step is a bijection of its lane, so a change of
// one word is never lost; the rotation carries high bits down to where multiplying spreads them.
using Lanes = std::array<std::uint32_t, 32>;

struct Absorb {
  const std::uint8_t* bytes;
  std::size_t count;
  Lanes* lanes;
};

SECATEUR_INLINE void mix(Lanes& lanes, const std::uint8_t* block) {
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    const std::uint32_t x = lanes[lane] ^ load_as<std::uint32_t>(block + 4 * lane);
    lanes[lane] = (x << 13 | x >> 19) * 0x9E3779B1U;
  }
}

struct AbsorbBody {
  static SECATEUR_INLINE bool run(const Absorb& args) {
    Lanes lanes = *args.lanes;
    std::size_t i = 0;
    for (; i + sizeof(Lanes) <= args.count; i += sizeof(Lanes)) mix(lanes, args.bytes + i);
    if (i < args.count) {
      std::array<std::uint8_t, sizeof(Lanes)> last{};
      std::memcpy(last.data(), args.bytes + i, args.count - i);
      mix(lanes, last.data());
    }
    *args.lanes = lanes;
    return true;
  }
};

std::uint32_t finish(const Lanes& lanes, std::size_t count) {
  auto hash = static_cast<std::uint32_t>(count);
  for (const std::uint32_t lane : lanes) {
    hash = std::rotl(hash ^ lane, 15) * 0x85EBCA77U;
    hash ^= hash >> 16;
  }
  return hash;
}

bool bit(std::uint32_t word, unsigned place) { return (word >> place & 1U) != 0; }

// What the kind of positions says of the rest.
bool is_consistent(const ChunkHeader& header, std::size_t size) {
  const bool coded = header.positions == Positions::mask_ans || header.positions == Positions::gaps;
  if (header.own_positions && !coded) return false;
  if (header.own_values && !header.coded_values) return false;
  if (header.palette && !header.own_values) return false;
  if (header.coded_values && (header.nonzeros == 0 || header.positions == Positions::raw)) {
    return false;
  }
  if (header.positions == Positions::empty) return header.nonzeros == 0;
  if (header.positions == Positions::full) return header.nonzeros == size;
  return header.nonzeros <= size;
}

}  // namespace

void write_header(const ChunkHeader& header, std::uint8_t* out) {
  const std::uint32_t word =
      static_cast<std::uint32_t>(header.positions) | std::uint32_t{header.coded_values} << 3 |
      std::uint32_t{header.own_positions} << 4 | std::uint32_t{header.own_values} << 5 |
      std::uint32_t{header.palette} << 6 | header.nonzeros << 8;
  std::memcpy(out, &word, sizeof(word));
  std::memcpy(out + sizeof(word), &header.checksum, sizeof(header.checksum));
}

bool read_header(const std::uint8_t* from, std::size_t size, ChunkHeader& header) {
  const auto word = load_as<std::uint32_t>(from);
  const std::uint32_t positions = word & 7U;
  if (positions >= kNumPositions || bit(word, 7)) return false;
  header.positions = static_cast<Positions>(positions);
  header.coded_values = bit(word, 3);
  header.own_positions = bit(word, 4);
  header.own_values = bit(word, 5);
  header.palette = bit(word, 6);
  header.nonzeros = word >> 8;
  header.checksum = load_as<std::uint32_t>(from + sizeof(word));
  return is_consistent(header, size);
}

std::uint32_t chunk_checksum(const std::uint64_t* words, std::size_t size, const void* values,
                             std::size_t value_bytes) {
  Lanes lanes;
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    lanes[lane] = static_cast<std::uint32_t>(lane + 1) * 0xC2B2AE3DU;
  }
  const auto absorb = variant<AbsorbBody, Absorb>();
  const std::size_t mask_bytes = num_bytes(size);
  absorb({reinterpret_cast<const std::uint8_t*>(words), mask_bytes, &lanes});
  absorb({static_cast<const std::uint8_t*>(values), value_bytes, &lanes});
  return finish(lanes, mask_bytes + value_bytes);
}

}  // namespace secateur::codec
