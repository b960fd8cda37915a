// The small encoding: arrays near the entropy of what is in them, by bits and without loss.
//
// An array is cut into chunks of 65536 items (kPackingChunk). Each chunk decodes alone, so they
// decode in parallel. A chunk stores where its non-zeros stand and what they are:
//
// - Positions as a bit mask, raw or as entropy-coded bytes, or as entropy-coded gaps (the zeros
//   before each non-zero), whichever is smallest. For zeros that fall independently both coded
//   forms reach the entropy; bytes of the mask see patterns such as n:m and blocks too, gaps win
//   where non-zeros are rare.
// - Values in two planes. The high bits (exponent, and as many leading mantissa bits as keep the
//   alphabet within 256 symbols) are entropy-coded; the low bits (the rest of the mantissa, and the
//   sign) are stored as they are, because no order-0 model makes them smaller. Magnitude pruning
//   leaves two or three binades, so some six mantissa bits join the exponent's symbol, and with
//   them nearly all of the values' redundancy is gone. Low bits that are 0 in every value (float32
//   that came from bfloat16, say) are not stored.
// - Or, of values that repeat (quantised or clustered weights), a palette of at most 256 and
//   entropy-coded places in it.
// - A chunk that nothing makes smaller is stored as it stands.
//
// The entropy coder is range ANS (Duda, arXiv 1311.2540) with 12-bit frequencies, 32-bit states and
// 16-bit words, 32 states interleaved: they fill the pipeline of a scalar core and map onto vector
// lanes without a change of format. Frequencies are stored once for the whole array or for a chunk
// of its own, whichever is smaller. Only integers decide anything: the bytes do not depend on the
// instruction set, the number of threads or the compiler.
//
// The bytes, all little-endian:
//
//   array     flags u8: bit 0 mask bytes, 1 gaps, 2 values have a shared table
//             the shared tables in that order
//             u32 length of every chunk's payload, then the payloads
//   payload   u32: bits 0-2 positions (Positions), 3 values are coded, 4 own table for positions,
//             5 own table for values, 6 palette, 8-24 number of non-zeros; other bits 0
//             u32 checksum of the mask's words and the values
//             positions, then values
//   positions mask      ceil(size / 8) bytes
//             mask_ans  [table] stream of ceil(size / 8) symbols
//             gaps      u16 number of skips, [table] stream of non-zeros + skips symbols; 255 skips
//                       255 zeros, less is that many zeros and a non-zero
//             empty, full: nothing. raw: all items as they are, and no values
//   values    raw items; or [table] stream of a symbol each, then `low` bits each, packed; or u8
//             length - 1 of the palette, its items in rising order of their bits, table without
//             plan, stream of a symbol each
//   table     of values only: u8 shift, u8 low, u64 base, so that high bits = base + symbol
//             u8 first and u8 last symbol, then frequency + 1 of each in Elias gamma code, padded
//   stream    the states u32 (32 of them from 4096 symbols on, else 4), u16 words; nothing, if the
//             table gives one symbol all 4096
//
// A value's bits become a code whose order is that of magnitude: floats (|x| >> shift) << 1 | sign,
// signed integers zigzag(x >> shift), unsigned integers x >> shift.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "secateur/packing.hpp"

namespace secateur {

// How the bits of an item are to be read.
enum class Numbers : std::uint8_t { unsigned_integers = 0, signed_integers = 1, floats = 2 };

// What is wrong with coded bytes.
enum class CodecFault : std::uint8_t {
  none = 0,
  lengths = 1,    // shorter or longer than what they say of themselves
  table = 2,      // a frequency table is not sound
  header = 3,     // a chunk's header makes no sense, or contradicts the count of non-zeros
  positions = 4,  // positions do not decode
  values = 5,     // values do not decode
  checksum = 6,   // everything decodes, to something else than was encoded
};

// The result of encoding, in pieces, because its size is known only at the end.
class Coded {
 public:
  explicit Coded(std::vector<std::vector<std::uint8_t>> pieces) : pieces_(std::move(pieces)) {}
  std::size_t num_bytes() const noexcept;
  // `out` has num_bytes() bytes.
  void write(std::uint8_t* out) const noexcept;

 private:
  std::vector<std::vector<std::uint8_t>> pieces_;
};

// Encodes an array of any size. If another thread changes the array meanwhile the result is some
// array or none, but nothing outside is touched.
Coded codec_encode(Items items, Numbers numbers);

// Coded bytes from outside: any bytes at all. `size` and `item_size` are what they should hold.
struct CodedItems {
  const std::uint8_t* data;
  std::size_t num_bytes;
  std::size_t size;
  std::size_t item_size;
  Numbers numbers;
};

// The least number of bytes that an array of `size` items can take: whoever gets fewer need not
// allocate for `size`.
constexpr std::size_t codec_least_bytes(std::size_t size) noexcept {
  return 1 + packing_chunks(size) * 12;
}

// Checks lengths, tables and headers, and gives the number of non-zeros before each chunk, as
// nonzero_offsets does. Reads no payload further than its header.
[[nodiscard]] CodecFault codec_offsets(CodedItems coded, std::uint64_t* offsets);

// The array, `size` items. `offsets` as codec_offsets gave them. Of a fault `out` holds no useful
// numbers.
[[nodiscard]] CodecFault codec_decode(CodedItems coded, const std::uint64_t* offsets, void* out);

// The same array as CSR, without a dense copy in between. `values` and `indices` have
// offsets[packing_chunks(size)] entries, indptr rows + 1. Index is int32_t or int64_t.
template <class Index>
[[nodiscard]] CodecFault codec_to_csr(CodedItems coded, const std::uint64_t* offsets,
                                      MatrixShape shape, void* values, Index* indices,
                                      Index* indptr);

}  // namespace secateur
