#include "secateur/packing.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "packing_chunk.hpp"

namespace secateur {
namespace {

const std::byte* at(const void* base, std::size_t index, std::size_t item_size) {
  return static_cast<const std::byte*>(base) + index * item_size;
}

std::byte* at(void* base, std::size_t index, std::size_t item_size) {
  return static_cast<std::byte*>(base) + index * item_size;
}

constexpr std::size_t num_words(std::size_t size) { return (size + 63) / 64; }
constexpr std::size_t num_bytes(std::size_t size) { return (size + 7) / 8; }

std::size_t chunk_nonzeros(const std::uint64_t* offsets, std::size_t chunk) {
  return static_cast<std::size_t>(offsets[chunk + 1] - offsets[chunk]);
}

// counts[c + 1] of chunk c become running totals.
std::uint64_t accumulate(std::uint64_t* counts, std::size_t chunks) {
  counts[0] = 0;
  for (std::size_t c = 0; c < chunks; ++c) counts[c + 1] += counts[c];
  return counts[chunks];
}

// A copy, since the bytes of a mask may be neither aligned nor a whole number of words.
void load_words(const std::uint8_t* bits, Place place, std::uint64_t* words) {
  words[num_words(place.size) - 1] = 0;
  std::memcpy(words, bits + place.begin / 8, num_bytes(place.size));
}

void set_bit(std::uint64_t* words, std::size_t position) {
  words[position / 64] |= std::uint64_t{1} << position % 64;
}

// False unless positions strictly increase below `size`.
bool positions_to_words(const std::uint16_t* positions, std::size_t count, std::size_t size,
                        std::uint64_t* words) {
  std::memset(words, 0, num_words(size) * sizeof(*words));
  std::size_t lowest = 0;
  bool good = true;
  for (std::size_t k = 0; k < count && good; ++k) {
    const std::size_t position = positions[k];
    good = position >= lowest && position < size;
    if (good) set_bit(words, position);
    lowest = position + 1;
  }
  return good;
}

template <class Index>
void close_indptr(MatrixShape shape, std::uint64_t num_nonzeros, Index* indptr) {
  // Chunks write the start of each row they hold; without columns there are no chunks.
  if (shape.cols == 0) std::memset(indptr, 0, shape.rows * sizeof(Index));
  indptr[shape.rows] = static_cast<Index>(num_nonzeros);
}

}  // namespace

std::uint64_t nonzero_offsets(Items items, Zero zero, std::uint64_t* offsets) {
  const ChunkKernels kernels = chunk_kernels(items.item_size);
  const std::size_t chunks = packing_chunks(items.size);
  for_each_run(chunks, Walk::forwards, [&](std::size_t c) {
    const std::size_t begin = c * kPackingChunk;
    const std::size_t size = std::min(kPackingChunk, items.size - begin);
    offsets[c + 1] = kernels.count(at(items.data, begin, items.item_size), size, zero);
  });
  return accumulate(offsets, chunks);
}

void bitmask_pack(Items items, const std::uint64_t* offsets, std::uint8_t* bits, void* values) {
  const ChunkKernels kernels = chunk_kernels(items.item_size);
  for_each_run(packing_chunks(items.size), Walk::forwards, [&](std::size_t c) {
    const Place place = chunk_place(c, items.size, offsets);
    Words words;
    kernels.compress(at(items.data, place.begin, items.item_size), place.size, Zero::by_bits,
                     at(values, place.offset, items.item_size), chunk_nonzeros(offsets, c),
                     words.data());
    std::memcpy(bits + place.begin / 8, words.data(), num_bytes(place.size));
  });
}

bool bitmask_offsets(const std::uint8_t* bits, std::size_t size, std::uint64_t* offsets) {
  const IndexKernels kernels = index_kernels();
  const std::size_t chunks = packing_chunks(size);
  for_each_run(chunks, Walk::forwards, [&](std::size_t c) {
    const std::size_t begin = c * kPackingChunk;
    const Place place{begin, std::min(kPackingChunk, size - begin), 0};
    Words words;
    load_words(bits, place, words.data());
    offsets[c + 1] = kernels.count_bits(words.data(), num_words(place.size));
  });
  accumulate(offsets, chunks);
  return size % 8 == 0 || bits[size / 8] >> size % 8 == 0;
}

void bitmask_unpack(const std::uint8_t* bits, const std::uint64_t* offsets, Items values,
                    std::size_t size, void* out) {
  const ChunkKernels kernels = chunk_kernels(values.item_size);
  for_each_run(packing_chunks(size), Walk::forwards, [&](std::size_t c) {
    const Place place = chunk_place(c, size, offsets);
    Words words;
    load_words(bits, place, words.data());
    kernels.expand(words.data(), place.size, at(values.data, place.offset, values.item_size),
                   chunk_nonzeros(offsets, c), at(out, place.begin, values.item_size));
  });
}

void csr16_pack(Items items, const std::uint64_t* offsets, std::uint16_t* positions, void* values) {
  const ChunkKernels kernels = chunk_kernels(items.item_size);
  const IndexKernels indices = index_kernels();
  for_each_run(packing_chunks(items.size), Walk::forwards, [&](std::size_t c) {
    const Place place = chunk_place(c, items.size, offsets);
    const std::size_t count = chunk_nonzeros(offsets, c);
    Words words;
    kernels.compress(at(items.data, place.begin, items.item_size), place.size, Zero::by_bits,
                     at(values, place.offset, items.item_size), count, words.data());
    indices.positions16(words.data(), place.size, positions + place.offset, count);
  });
}

bool csr16_unpack(const std::uint64_t* offsets, const std::uint16_t* positions, Items values,
                  std::size_t size, void* out) {
  const ChunkKernels kernels = chunk_kernels(values.item_size);
  std::atomic<bool> good{true};
  for_each_run(packing_chunks(size), Walk::forwards, [&](std::size_t c) {
    const Place place = chunk_place(c, size, offsets);
    const std::size_t count = chunk_nonzeros(offsets, c);
    Words words;
    if (!positions_to_words(positions + place.offset, count, place.size, words.data())) {
      good = false;
      return;
    }
    kernels.expand(words.data(), place.size, at(values.data, place.offset, values.item_size), count,
                   at(out, place.begin, values.item_size));
  });
  return good;
}

template <class Index>
void bitmask_to_csr(const std::uint8_t* bits, const std::uint64_t* offsets, MatrixShape shape,
                    Index* indices, Index* indptr) {
  const IndexKernels kernels = index_kernels();
  const std::size_t size = shape.rows * shape.cols;
  const std::size_t chunks = packing_chunks(size);
  for_each_run(chunks, Walk::forwards, [&](std::size_t c) {
    const Place place = chunk_place(c, size, offsets);
    Words words;
    load_words(bits, place, words.data());
    chunk_to_csr(kernels, words.data(), place, chunk_nonzeros(offsets, c), shape, indices, indptr);
  });
  close_indptr(shape, offsets[chunks], indptr);
}

template <class Index>
bool csr16_to_csr(const std::uint64_t* offsets, const std::uint16_t* positions, MatrixShape shape,
                  Index* indices, Index* indptr) {
  const IndexKernels kernels = index_kernels();
  const std::size_t size = shape.rows * shape.cols;
  const std::size_t chunks = packing_chunks(size);
  std::atomic<bool> good{true};
  for_each_run(chunks, Walk::forwards, [&](std::size_t c) {
    const Place place = chunk_place(c, size, offsets);
    const std::size_t count = chunk_nonzeros(offsets, c);
    Words words;
    if (!positions_to_words(positions + place.offset, count, place.size, words.data())) {
      good = false;
      return;
    }
    chunk_to_csr(kernels, words.data(), place, count, shape, indices, indptr);
  });
  close_indptr(shape, offsets[chunks], indptr);
  return good;
}

template void bitmask_to_csr(const std::uint8_t*, const std::uint64_t*, MatrixShape, std::int32_t*,
                             std::int32_t*);
template void bitmask_to_csr(const std::uint8_t*, const std::uint64_t*, MatrixShape, std::int64_t*,
                             std::int64_t*);
template bool csr16_to_csr(const std::uint64_t*, const std::uint16_t*, MatrixShape, std::int32_t*,
                           std::int32_t*);
template bool csr16_to_csr(const std::uint64_t*, const std::uint16_t*, MatrixShape, std::int64_t*,
                           std::int64_t*);

}  // namespace secateur
