// Lossless packing of arrays with many zeros, by bits: a number is dropped only if all its bits are
// 0, so -0.0 and every NaN come back as they were. Works on items of 1, 2, 4 and 8 bytes.
//
// Two encodings. `bitmask`: one bit per element (bit i % 8 of byte i / 8, as np.packbits with
// bitorder="little") and the non-zeros. `csr16`: per chunk of 65536 elements the number of
// non-zeros, their 16-bit positions in the chunk and the non-zeros. Both are cut into chunks of the
// same size, so one table of offsets (number of non-zeros before each chunk) lets every chunk work
// alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace secateur {

inline constexpr std::size_t kPackingChunk = 65536;  // a 16-bit position reaches every element

constexpr std::size_t packing_chunks(std::size_t size) noexcept {
  return size / kPackingChunk + (size % kPackingChunk != 0);
}

// by_bits: any set bit makes a number non-zero. by_value: -0.0 is zero too (floats only).
enum class Zero : std::uint8_t { by_bits = 0, by_value = 1 };

// An array as the packing kernels see it: raw items, no type.
struct Items {
  const void* data;
  std::size_t size;       // in items
  std::size_t item_size;  // 1, 2, 4 or 8 bytes
};

// offsets[c] = number of non-zeros before chunk c; packing_chunks(size) + 1 entries. Returns the
// last.
std::uint64_t nonzero_offsets(Items items, Zero zero, std::uint64_t* offsets);

// `bits` has (size + 7) / 8 bytes, `values` offsets[packing_chunks(size)] items.
void bitmask_pack(Items items, const std::uint64_t* offsets, std::uint8_t* bits, void* values);

// The offsets of a bit mask that came from outside. False if a padding bit after `size` is set.
[[nodiscard]] bool bitmask_offsets(const std::uint8_t* bits, std::size_t size,
                                   std::uint64_t* offsets);

// `values.size` must be the last entry of the offsets that bitmask_offsets gave for `bits`.
void bitmask_unpack(const std::uint8_t* bits, const std::uint64_t* offsets, Items values,
                    std::size_t size, void* out);

// `positions` and `values` have offsets[packing_chunks(size)] entries.
void csr16_pack(Items items, const std::uint64_t* offsets, std::uint16_t* positions, void* values);

// `offsets` must not decrease, end at values.size and grow by at most kPackingChunk per chunk.
// False if the positions of a chunk do not strictly increase or leave it; `out` then holds no
// useful numbers.
[[nodiscard]] bool csr16_unpack(const std::uint64_t* offsets, const std::uint16_t* positions,
                                Items values, std::size_t size, void* out);

// From packed straight to the indices of a CSR matrix with `size / cols` rows, without a dense copy
// in between; the packed non-zeros are the CSR data as they stand. Index is int32_t or int64_t.
struct MatrixShape {
  std::size_t rows;
  std::size_t cols;
};

template <class Index>
void bitmask_to_csr(const std::uint8_t* bits, const std::uint64_t* offsets, MatrixShape shape,
                    Index* indices, Index* indptr);

// Same conditions and result as csr16_unpack.
template <class Index>
[[nodiscard]] bool csr16_to_csr(const std::uint64_t* offsets, const std::uint16_t* positions,
                                MatrixShape shape, Index* indices, Index* indptr);

}  // namespace secateur
