#include "secateur/sparse.hpp"

#include "module.hpp"
#include "packed_arrays.hpp"

namespace py = pybind11;

namespace secateur::bindings {
namespace {

using packed::require;

MatrixShape matrix_shape(const py::array& matrix, const char* name) {
  require(matrix.ndim() == 2, std::string(name) + " must have two dimensions");
  return {static_cast<std::size_t>(matrix.shape(0)), static_cast<std::size_t>(matrix.shape(1))};
}

// Columns are computed in lanes of 32 bits.
template <class Index>
void check_cols(std::size_t cols) {
  require(sizeof(Index) == 8 || cols <= 0x7FFFFFFF, "so many columns need 64-bit indices");
}

Dense to_matrix(const py::array& matrix) {
  const std::size_t bytes = packed::item_size(matrix, "matrix");
  return {matrix.data(), bytes, matrix_shape(matrix, "matrix")};
}

template <class Index>
CsrOut<Index> to_output(const Dense& dense, py::array& values, py::array& indices,
                        py::array& indptr) {
  check_cols<Index>(dense.shape.cols);
  const auto capacity = static_cast<std::size_t>(values.size());
  return {packed::raw_output(values, capacity, dense.item_size, "values"),
          packed::output<Index>(indices, capacity, "indices"),
          packed::output<Index>(indptr, dense.shape.rows + 1, "indptr"), capacity};
}

template <class Index>
void to_csr(const py::array& matrix, const py::array& offsets, py::array& values,
            py::array& indices, py::array& indptr) {
  const Dense dense = to_matrix(matrix);
  const CsrOut<Index> out = to_output<Index>(dense, values, indices, indptr);
  const auto* table =
      packed::offsets(offsets, packing_chunks(dense.size()), kPackingChunk, out.capacity);
  const py::gil_scoped_release release;
  dense_to_csr(dense, table, out);
}

std::uint64_t to_csr_once(const py::array& matrix, py::array& offsets, py::array& values,
                          py::array& indices, py::array& indptr) {
  const Dense dense = to_matrix(matrix);
  const auto out = to_output<std::int32_t>(dense, values, indices, indptr);
  auto* table = packed::output<std::uint64_t>(offsets, packing_chunks(dense.size()) + 1, "offsets");
  const py::gil_scoped_release release;
  return dense_to_csr_once(dense, table, out);
}

template <class Index>
int to_dense(const py::array& values, const py::array& indices, const py::array& indptr,
             py::array& out, bool zeros) {
  const std::size_t bytes = packed::item_size(values, "values");
  require(bytes != 1, "values must have 2, 4 or 8 bytes");
  const MatrixShape shape = matrix_shape(out, "out");
  const auto count = static_cast<std::size_t>(values.size());
  const auto* columns = packed::input<Index>(indices, count, "indices");
  const auto* starts = packed::input<Index>(indptr, shape.rows + 1, "indptr");
  void* dense = packed::raw_output(out, shape.rows * shape.cols, bytes, "out");
  const Csr<Index> csr{values.data(), columns, starts, count, bytes, shape};
  const py::gil_scoped_release release;
  return static_cast<int>(csr_to_dense(csr, dense, zeros ? Fresh::zeros : Fresh::no));
}

template <class Index>
void bind_one(py::module_& module, const std::string& suffix) {
  module.def(("dense_to_csr" + suffix).c_str(), &to_csr<Index>, py::arg("matrix").noconvert(),
             py::arg("offsets").noconvert(), py::arg("values").noconvert(),
             py::arg("indices").noconvert(), py::arg("indptr").noconvert());
  module.def(("csr_to_dense" + suffix).c_str(), &to_dense<Index>, py::arg("values").noconvert(),
             py::arg("indices").noconvert(), py::arg("indptr").noconvert(),
             py::arg("out").noconvert(), py::arg("zeros"));
}

}  // namespace

void bind_sparse(py::module_& module) {
  bind_one<std::int32_t>(module, "32");
  bind_one<std::int64_t>(module, "64");
  module.def("dense_to_csr_once32", &to_csr_once, py::arg("matrix").noconvert(),
             py::arg("offsets").noconvert(), py::arg("values").noconvert(),
             py::arg("indices").noconvert(), py::arg("indptr").noconvert());
}

}  // namespace secateur::bindings
