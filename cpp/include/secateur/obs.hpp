// The column sweep of SparseGPT (arXiv 2301.00774): the part of it that BLAS cannot do.
//
// Rows are independent, and each stays in the first-level cache while all columns of the block pass
// over it; column by column over the whole matrix, as the paper's code does, would read and write
// the matrix once per column. What one block does to later ones is a matrix product for BLAS.
#pragma once

#include <cstddef>
#include <cstdint>

namespace secateur {

// All matrices in C order, of (rows, width) but for the factor. `group` 0: the mask says what goes
// (1 = keep); else the mask is written: of every `group` consecutive weights the `kept` with the
// largest |w / U_jj| stay, as they are when the sweep comes to them; of equals the later.
struct ObsBlock {
  float* weight;        // in and out; what goes becomes +0
  const float* factor;  // (width, width), upper triangle of U read
  std::uint8_t* mask;
  float* errors;  // out: w_j / U_jj of what goes, 0 of what stays
  std::size_t rows, width;
  std::size_t kept, group;  // kept <= group <= kMaxGroup
};

// A weight that goes leaves e = w_j / U_jj, and later weights of its row change by -e * U_j,later.
void obs_sweep(const ObsBlock& block);

}  // namespace secateur
