// Dense matrices to CSR and back. Work is cut into equal runs of the flat matrix and not into rows,
// so one very wide row and millions of short ones keep all threads busy alike.
#pragma once

#include <cstddef>
#include <cstdint>

#include "secateur/packing.hpp"

namespace secateur {

// `offsets` as nonzero_offsets(..., Zero::by_value) gave them for this matrix; `values` and
// `indices` have offsets[packing_chunks(rows * cols)] entries, `indptr` rows + 1. Index is int32_t
// or int64_t.
template <class Index>
void dense_to_csr(const void* dense, std::size_t item_size, MatrixShape shape,
                  const std::uint64_t* offsets, void* values, Index* indices, Index* indptr);

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
