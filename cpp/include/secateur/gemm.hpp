// Dense products of float32 matrices: what BLAS does, for processors that it does not know.
//
// The scheme of Goto & van de Geijn ("Anatomy of High-Performance Matrix Multiplication", 2008) as
// BLIS writes it: both operands are packed into narrow panels, a micro-kernel keeps a small tile of
// the result in registers while it passes once over a panel of each.
//  - Depth is taken in chunks of 1024. A chunk of both operands is packed once, by all threads;
//  then
//    tiles of the result are shared out, each of them the sum over the whole chunk.
//  - A tile's float32 sums stay in the second-level cache and are added to the result, float32 or
//    float64, when the chunk is done: no float32 matrix of the result's size is passed over again.
//  - Sums are taken in the order of depth, in pieces of 256. Neither the tiles nor the threads nor
//    which tiles are left out change a bit; instruction sets differ by the rounding of FMA.
#pragma once

#include <cstddef>

namespace secateur {

// Any strides; packing is fast where one of them is 1.
struct FloatView {
  const float* data;
  std::size_t rows;
  std::size_t cols;
  std::size_t row_stride;  // in elements
  std::size_t col_stride;
};

enum class Update : int { set = 0, add = 1, subtract = 2 };

// out (a.rows, b.cols), C-contiguous: = a b, += a b or -= a b; a.cols == b.rows. Out overlaps
// neither.
void multiply(const FloatView& a, const FloatView& b, float* out, Update update);

// out (a.rows, b.cols) += a b, the sums of every 1024 products in float32.
void add_product(const FloatView& a, const FloatView& b, double* out);

// The upper triangle of out (cols, cols) += rows^T rows, as add_product's. The lower is not
// touched.
void add_gram(const FloatView& rows, double* out);

// out (width, height): what is below the diagonal becomes what is above it.
void mirror_upper(double* out, std::size_t width);

}  // namespace secateur
