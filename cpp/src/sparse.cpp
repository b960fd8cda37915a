#include "secateur/sparse.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "packing_chunk.hpp"
#include "secateur/simd.hpp"
#include "secateur/threads.hpp"

#if SECATEUR_X86
#include <immintrin.h>
#endif

namespace secateur {
namespace {

// Elements of the dense matrix per task of csr_to_dense: small enough to be built in the cache.
constexpr std::size_t kTile = 8192;

// From this size the dense matrix does not stay in the cache, and writing around it saves the read
// that an ordinary store makes of each line: half as long on memory that was used before.
constexpr std::size_t kStreamBytes = std::size_t{32} << 20U;

// ---- Copying around the cache ----

void copy_scalar(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

#if SECATEUR_X86

// Bytes before the next 64-byte line; streaming stores need alignment.
std::size_t head_bytes(const void* to, std::size_t bytes) {
  return std::min((64 - reinterpret_cast<std::uintptr_t>(to) % 64) % 64, bytes);
}

SECATEUR_TARGET_AVX2 void copy_avx2(void* to, const void* from, std::size_t bytes) {
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
  std::size_t i = head_bytes(to, bytes);
  std::memcpy(out, in, i);
  for (; i + 32 <= bytes; i += 32) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(out + i),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i)));
  }
  std::memcpy(out + i, in + i, bytes - i);
  _mm_sfence();
}

SECATEUR_TARGET_AVX512 void copy_avx512(void* to, const void* from, std::size_t bytes) {
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
  std::size_t i = head_bytes(to, bytes);
  std::memcpy(out, in, i);
  for (; i + 64 <= bytes; i += 64) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + i), _mm512_loadu_si512(in + i));
  }
  std::memcpy(out + i, in + i, bytes - i);
  _mm_sfence();
}

auto copy_kernel() { return pick(&copy_scalar, &copy_avx2, &copy_avx512); }
#else
auto copy_kernel() { return &copy_scalar; }
#endif

// ---- Dense to CSR ----

// Fills chunks of a CSR matrix, in any order. Entries past the capacity are not written.
template <class Index>
class Filler {
 public:
  Filler(const Dense& dense, const CsrOut<Index>& out)
      : dense_(dense),
        out_(out),
        kernels_(chunk_kernels(dense.item_size)),
        csr32_(csr32_kernel(dense.item_size)),
        index_(index_kernels()) {}

  std::size_t chunk_size(std::size_t c) const {
    return std::min(kPackingChunk, dense_.size() - c * kPackingChunk);
  }

  const void* items(std::size_t c) const {
    return static_cast<const std::byte*>(dense_.data) + c * kPackingChunk * dense_.item_size;
  }

  // The chunk's non-zeros are the entries from `begin` to `end`.
  void fill(std::size_t c, std::uint64_t begin, std::uint64_t end) const {
    const Place place{c * kPackingChunk, chunk_size(c), begin};
    const auto first = static_cast<std::size_t>(std::min<std::uint64_t>(begin, out_.capacity));
    const auto room = static_cast<std::size_t>(std::min<std::uint64_t>(end, out_.capacity)) - first;
    const std::size_t cols = dense_.shape.cols;
    void* values = static_cast<std::byte*>(out_.values) + first * dense_.item_size;
    Words words;
    if constexpr (sizeof(Index) == 4) {
      const CsrChunk to{values, out_.indices + first, room, place.begin % cols, cols};
      csr32_(items(c), place.size, to, words.data());
    } else {
      kernels_.compress(items(c), place.size, Zero::by_value, values, room, words.data());
      index_.columns64(words.data(), place.size, place.begin % cols, cols, out_.indices + first,
                       room);
    }
    chunk_row_starts(index_, words.data(), place, cols, out_.indptr);
  }

  void close(std::uint64_t num_nonzeros) const {
    close_indptr(dense_.shape, num_nonzeros, out_.indptr);
  }

 private:
  Dense dense_;
  CsrOut<Index> out_;
  ChunkKernels kernels_;
  CompressToCsr32 csr32_;
  IndexKernels index_;
};

constexpr std::uint64_t kUnknown = ~std::uint64_t{0};

std::uint64_t wait_for(const std::atomic<std::uint64_t>& end) {
  std::uint64_t known = end.load(std::memory_order_acquire);
  while (known == kUnknown) {
    std::this_thread::yield();
    known = end.load(std::memory_order_acquire);
  }
  return known;
}

// Has the system clear new memory in parallel; see for_each_run for what happens otherwise.
void touch_pages(void* memory, std::size_t bytes) {
  constexpr std::size_t kPage = std::size_t{2} << 20U;
  auto* first = static_cast<std::byte*>(memory);
  const std::size_t head = (kPage - reinterpret_cast<std::uintptr_t>(memory) % kPage) % kPage;
  if (head >= bytes) return;
  parallel_for((bytes - head + kPage - 1) / kPage,
               [&](std::size_t page) { first[head + page * kPage] = std::byte{0}; });
}

// ---- CSR to dense ----

template <class Index>
CsrFault check_indptr(const Csr<Index>& csr) {
  const Index* indptr = csr.indptr;
  if (indptr[0] != 0) return CsrFault::indptr;
  const std::size_t rows = csr.shape.rows;
  std::atomic<bool> good{true};
  parallel_for(packing_chunks(rows), [&](std::size_t c) {
    const std::size_t end = std::min(rows, (c + 1) * kPackingChunk);
    bool increasing = true;
    for (std::size_t r = c * kPackingChunk; r < end; ++r) increasing &= indptr[r] <= indptr[r + 1];
    if (!increasing) good = false;
  });
  // Starting at 0 and not decreasing, no entry is negative.
  const bool fits = static_cast<std::uint64_t>(indptr[rows]) <= csr.size;
  return good && fits ? CsrFault::none : CsrFault::indptr;
}

// Part of one row: its columns [begin, end), the first of them standing at `dense`.
struct RowPart {
  std::size_t row, begin, end;
};

// Entries are found by binary search where a row is cut. Two neighbours make the same search, so
// every entry is looked at by exactly one, and one out of order is out of range or falls for
// whoever has it.
template <class Index>
const Index* cut(const Csr<Index>& csr, std::size_t row, std::size_t col) {
  const Index* first = csr.indices + csr.indptr[row];
  const Index* last = csr.indices + csr.indptr[row + 1];
  if (col == 0) return first;
  if (col == csr.shape.cols) return last;
  return std::lower_bound(first, last, col, [](Index index, std::size_t bound) {
    return index < 0 || static_cast<std::size_t>(index) < bound;
  });
}

template <class T, class Index>
bool scatter(const Csr<Index>& csr, RowPart part, T* dense) {
  const Index* from = cut(csr, part.row, part.begin);
  const Index* to = cut(csr, part.row, part.end);
  const T* value = static_cast<const T*>(csr.values) + (from - csr.indices);
  const std::size_t width = part.end - part.begin;
  std::size_t lowest = 0;
  for (; from < to; ++from, ++value) {
    // A negative index becomes huge here.
    const std::size_t col = static_cast<std::size_t>(*from) - part.begin;
    if (col < lowest || col >= width) return false;
    dense[col] = *value;
    lowest = col + 1;
  }
  return true;
}

// The flat elements [begin, end) of the matrix, the first of them standing at `dense`.
template <class T, class Index>
bool scatter_tile(const Csr<Index>& csr, std::size_t begin, std::size_t end, T* dense) {
  const std::size_t cols = csr.shape.cols;
  RowPart part{begin / cols, begin % cols, 0};
  bool good = true;
  for (std::size_t flat = begin; flat < end && good;) {
    part.end = std::min(cols, part.begin + (end - flat));
    good = scatter(csr, part, dense + (flat - begin));
    flat += part.end - part.begin;
    part = {part.row + 1, 0, 0};
  }
  return good;
}

template <class T, class Index>
bool build_tile(const Csr<Index>& csr, std::size_t begin, std::size_t end, T* dense,
                decltype(copy_kernel()) copy) {
  const auto tile = std::make_unique<T[]>(end - begin);
  const bool good = scatter_tile(csr, begin, end, tile.get());
  if (good) copy(dense, tile.get(), (end - begin) * sizeof(T));
  return good;
}

template <class T, class Index>
bool fill_dense(const Csr<Index>& csr, T* dense, Fresh fresh) {
  const std::size_t size = csr.shape.rows * csr.shape.cols;
  const bool stream = size * sizeof(T) >= kStreamBytes;
  const auto copy = stream ? copy_kernel() : &copy_scalar;
  std::atomic<bool> good{true};
  for_each_run(size / kTile + (size % kTile != 0), Walk::forwards, [&](std::size_t t) {
    const std::size_t begin = t * kTile;
    const std::size_t end = std::min(size, begin + kTile);
    const bool done = fresh == Fresh::zeros ? scatter_tile(csr, begin, end, dense + begin)
                                            : build_tile(csr, begin, end, dense + begin, copy);
    if (!done) good = false;
  });
  return good;
}

}  // namespace

template <class Index>
void dense_to_csr(const Dense& dense, const std::uint64_t* offsets, const CsrOut<Index>& out) {
  const Filler<Index> filler(dense, out);
  const std::size_t chunks = packing_chunks(dense.size());
  // Backwards: what counting read last is still in the cache.
  for_each_run(chunks, Walk::backwards,
               [&](std::size_t c) { filler.fill(c, offsets[c], offsets[c + 1]); });
  filler.close(offsets[chunks]);
}

template <class Index>
std::uint64_t dense_to_csr_once(const Dense& dense, std::uint64_t* offsets,
                                const CsrOut<Index>& out) {
  const ChunkKernels kernels = chunk_kernels(dense.item_size);
  const Filler<Index> filler(dense, out);
  const std::size_t chunks = packing_chunks(dense.size());
  touch_pages(out.values, out.capacity * dense.item_size);
  touch_pages(out.indices, out.capacity * sizeof(Index));
  std::vector<std::atomic<std::uint64_t>> ends(chunks);
  for (auto& end : ends) end.store(kUnknown, std::memory_order_relaxed);
  parallel_for(chunks, [&](std::size_t c) {
    const std::size_t count = kernels.count(filler.items(c), filler.chunk_size(c), Zero::by_value);
    const std::uint64_t begin = c == 0 ? 0 : wait_for(ends[c - 1]);
    ends[c].store(begin + count, std::memory_order_release);
    filler.fill(c, begin, begin + count);
  });
  offsets[0] = 0;
  for (std::size_t c = 0; c < chunks; ++c) {
    offsets[c + 1] = ends[c].load(std::memory_order_relaxed);
  }
  filler.close(offsets[chunks]);
  return offsets[chunks];
}

template <class Index>
CsrFault csr_to_dense(const Csr<Index>& csr, void* dense, Fresh fresh) {
  if (const CsrFault fault = check_indptr(csr); fault != CsrFault::none) return fault;
  // A matrix without columns has no element to look at, so its entries are all out of range.
  bool good = csr.shape.cols != 0 || csr.indptr[csr.shape.rows] == 0;
  switch (csr.item_size) {
    case 2:
      good = good && fill_dense(csr, static_cast<std::uint16_t*>(dense), fresh);
      break;
    case 4:
      good = good && fill_dense(csr, static_cast<std::uint32_t*>(dense), fresh);
      break;
    default:
      good = good && fill_dense(csr, static_cast<std::uint64_t*>(dense), fresh);
      break;
  }
  return good ? CsrFault::none : CsrFault::indices;
}

template void dense_to_csr(const Dense&, const std::uint64_t*, const CsrOut<std::int32_t>&);
template void dense_to_csr(const Dense&, const std::uint64_t*, const CsrOut<std::int64_t>&);
template std::uint64_t dense_to_csr_once(const Dense&, std::uint64_t*, const CsrOut<std::int32_t>&);
template std::uint64_t dense_to_csr_once(const Dense&, std::uint64_t*, const CsrOut<std::int64_t>&);
template CsrFault csr_to_dense(const Csr<std::int32_t>&, void*, Fresh);
template CsrFault csr_to_dense(const Csr<std::int64_t>&, void*, Fresh);

}  // namespace secateur
