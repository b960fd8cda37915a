// Dense matrices to CSR and back. Work is cut into equal runs of the flat matrix and not into rows,
// so one very wide row and millions of short ones keep all threads busy alike.
#pragma once

#include <cstddef>
#include <cstdint>

#include "secateur/packing.hpp"

namespace secateur {

struct Dense {
  const void* data;
  std::size_t item_size;  // 2, 4 or 8 bytes
  MatrixShape shape;

  std::size_t size() const noexcept { return shape.rows * shape.cols; }
};

// Index is int32_t or int64_t.
template <class Index>
struct CsrOut {
  void* values;
  Index* indices;
  Index* indptr;         // rows + 1 entries
  std::size_t capacity;  // entries of `values` and of `indices`
};

// `offsets` as nonzero_offsets(..., Zero::by_value) gave them for this matrix; the capacity is
// their last. Two passes over the matrix, then.
template <class Index>
void dense_to_csr(const Dense& dense, const std::uint64_t* offsets, const CsrOut<Index>& out);

// One pass: each chunk is counted, learns from its predecessor where to write, and is written while
// it is still in the cache. Gives `offsets` and returns the number of non-zeros; if that exceeds
// the capacity, values and indices are incomplete, and dense_to_csr has all it needs to do it
// again. Relies on parallel_for handing out tasks in order: the predecessor is done or under way,
// never behind.
template <class Index>
std::uint64_t dense_to_csr_once(const Dense& dense, std::uint64_t* offsets,
                                const CsrOut<Index>& out);

template <class Index>
struct Csr {
  const void* values;
  const Index* indices;
  const Index* indptr;  // rows + 1 entries
  std::size_t size;     // entries of `values` and of `indices`
  std::size_t item_size;
  MatrixShape shape;
};

enum class CsrFault : std::uint8_t {
  none = 0,
  indptr = 1,   // does not start at 0, decreases, or ends past `size`
  indices = 2,  // outside the columns, or not strictly increasing within a row
};

// What `dense` holds on entry.
enum class Fresh : std::uint8_t {
  no = 0,     // anything: every element is written
  zeros = 1,  // zeros: only non-zeros are written, so pages never touched cost nothing twice
};

// Nothing outside `dense` is written, whatever the indices say; after a fault its content is
// useless.
template <class Index>
[[nodiscard]] CsrFault csr_to_dense(const Csr<Index>& csr, void* dense, Fresh fresh);

}  // namespace secateur
