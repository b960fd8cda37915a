#include "secateur/packing.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "packing_chunk.hpp"

namespace secateur {
namespace {

std::size_t chunk_nonzeros(const std::uint64_t* offsets, std::size_t chunk) {
  return static_cast<std::size_t>(offsets[chunk + 1] - offsets[chunk]);
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

// Where a chunk's bits come from; false if they are not sound.
struct BitMask {
  const std::uint8_t* bits;
  bool operator()(Place place, std::size_t /*count*/, std::uint64_t* words) const {
    load_words(bits, place, words);
    return true;
  }
};

struct Positions16 {
  const std::uint16_t* positions;
  bool operator()(Place place, std::size_t count, std::uint64_t* words) const {
    return positions_to_words(positions + place.offset, count, place.size, words);
  }
};

// Squeezes every chunk and hands its bits on: use(words, place, count).
template <class Use>
void pack_chunks(Items items, const std::uint64_t* offsets, void* values, const Use& use) {
  const ChunkKernels kernels = chunk_kernels(items.item_size);
  for_each_run(packing_chunks(items.size), Walk::forwards, [&](std::size_t c) {
    const Place place = chunk_place(c, items.size, offsets);
    const std::size_t count = chunk_nonzeros(offsets, c);
    Words words;
    kernels.compress(at(items.data, place.begin, items.item_size), place.size, Zero::by_bits,
                     at(values, place.offset, items.item_size), count, words.data());
    use(words.data(), place, count);
  });
}

// The other way: takes every chunk's bits from `read` and hands them on, if they are sound.
template <class Read, class Use>
bool unpack_chunks(const std::uint64_t* offsets, std::size_t size, const Read& read,
                   const Use& use) {
  std::atomic<bool> good{true};
  for_each_run(packing_chunks(size), Walk::forwards, [&](std::size_t c) {
    const Place place = chunk_place(c, size, offsets);
    const std::size_t count = chunk_nonzeros(offsets, c);
    Words words;
    if (read(place, count, words.data())) {
      use(words.data(), place, count);
    } else {
      good = false;
    }
  });
  return good;
}

// Spreads the values of a chunk over its place in the array.
class ToItems {
 public:
  ToItems(Items values, void* out)
      : values_(values), out_(out), kernels_(chunk_kernels(values.item_size)) {}

  void operator()(const std::uint64_t* words, Place place, std::size_t count) const {
    kernels_.expand(words, place.size, at(values_.data, place.offset, values_.item_size), count,
                    at(out_, place.begin, values_.item_size));
  }

 private:
  Items values_;
  void* out_;
  ChunkKernels kernels_;
};

template <class Read, class Index>
bool index_chunks(const std::uint64_t* offsets, const Read& read, MatrixShape shape, Index* indices,
                  Index* indptr) {
  const IndexKernels kernels = index_kernels();
  const std::size_t size = shape.rows * shape.cols;
  const bool good = unpack_chunks(
      offsets, size, read, [&](const std::uint64_t* words, Place place, std::size_t count) {
        chunk_to_csr(kernels, words, place, count, shape, indices, indptr);
      });
  close_indptr(shape, offsets[packing_chunks(size)], indptr);
  return good;
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
  pack_chunks(items, offsets, values, [&](const std::uint64_t* words, Place place, std::size_t) {
    std::memcpy(bits + place.begin / 8, words, num_bytes(place.size));
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
  unpack_chunks(offsets, size, BitMask{bits}, ToItems(values, out));
}

void csr16_pack(Items items, const std::uint64_t* offsets, std::uint16_t* positions, void* values) {
  const IndexKernels indices = index_kernels();
  pack_chunks(items, offsets, values,
              [&](const std::uint64_t* words, Place place, std::size_t count) {
                indices.positions16(words, place.size, positions + place.offset, count);
              });
}

bool csr16_unpack(const std::uint64_t* offsets, const std::uint16_t* positions, Items values,
                  std::size_t size, void* out) {
  return unpack_chunks(offsets, size, Positions16{positions}, ToItems(values, out));
}

template <class Index>
void bitmask_to_csr(const std::uint8_t* bits, const std::uint64_t* offsets, MatrixShape shape,
                    Index* indices, Index* indptr) {
  index_chunks(offsets, BitMask{bits}, shape, indices, indptr);
}

template <class Index>
bool csr16_to_csr(const std::uint64_t* offsets, const std::uint16_t* positions, MatrixShape shape,
                  Index* indices, Index* indptr) {
  return index_chunks(offsets, Positions16{positions}, shape, indices, indptr);
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
