#include "secateur/saliency.hpp"

#include <pybind11/stl.h>

#include <optional>

#include "arrays.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace secateur::bindings {
namespace {

std::size_t score_size(DType dtype) {
  return dtype == DType::float64 ? sizeof(double) : sizeof(float);
}

const double* vector_data(const std::optional<py::array>& vector, std::size_t size,
                          const std::string& name) {
  if (!vector) return nullptr;
  check_array(*vector, sizeof(double), 1, name);
  check_extent(*vector, 0, size, name);
  return static_cast<const double*>(vector->data());
}

bool finite(const py::array& array, int dtype) {
  const Matrix matrix = to_matrix(array, dtype);
  const py::gil_scoped_release release;
  return all_finite(matrix);
}

bool sums_of_squares(const py::array& array, int dtype, bool reduce_inner,
                     const std::optional<py::array>& weights, py::array& sums) {
  const Matrix matrix = to_matrix(array, dtype);
  const std::size_t reduced = reduce_inner ? matrix.inner : matrix.outer;
  const double* weight_data = vector_data(weights, reduced, "weights");
  auto* out = static_cast<double*>(check_output(sums, sizeof(double), 1, "sums"));
  check_extent(sums, 0, reduce_inner ? matrix.outer : matrix.inner, "sums");
  const py::gil_scoped_release release;
  return squared_sums(matrix, reduce_inner, weight_data, out);
}

bool scale(const py::array& array, int dtype, bool transposed,
           const std::optional<py::array>& row_scale, const std::optional<py::array>& col_scale,
           bool root_sum, py::array& out) {
  const Matrix matrix = to_matrix(array, dtype);
  const std::size_t rows = transposed ? matrix.inner : matrix.outer;
  const std::size_t cols = transposed ? matrix.outer : matrix.inner;
  const Scales scales{vector_data(row_scale, rows, "row_scale"),
                      vector_data(col_scale, cols, "col_scale"),
                      root_sum ? Combine::root_sum : Combine::product};
  void* result = check_output(out, score_size(matrix.dtype), 2, "out");
  check_extent(out, 0, matrix.outer, "out");
  check_extent(out, 1, matrix.inner, "out");
  const py::gil_scoped_release release;
  return scaled_magnitude(matrix, transposed, scales, result);
}

bool scores_of_blocks(const py::array& array, int dtype, bool transposed, std::size_t rows,
                      std::size_t cols, bool l1, py::array& scores) {
  const Matrix matrix = to_matrix(array, dtype);
  if (rows == 0 || cols == 0) throw std::invalid_argument("a block needs rows and cols above 0");
  const BlockShape block = transposed ? BlockShape{cols, rows} : BlockShape{rows, cols};
  const std::size_t bands = (matrix.outer + block.outer - 1) / block.outer;
  const std::size_t blocks = (matrix.inner + block.inner - 1) / block.inner;
  void* out = check_output(scores, score_size(matrix.dtype), 2, "scores");
  check_extent(scores, 0, transposed ? blocks : bands, "scores");
  check_extent(scores, 1, transposed ? bands : blocks, "scores");
  const py::gil_scoped_release release;
  return block_scores(matrix, transposed, block, l1 ? Norm::l1 : Norm::l2, out);
}

}  // namespace

void bind_saliency(py::module_& module) {
  module.def("all_finite", &finite, py::arg("matrix").noconvert(), py::arg("dtype"));
  module.def("squared_sums", &sums_of_squares, py::arg("matrix").noconvert(), py::arg("dtype"),
             py::arg("reduce_inner"), py::arg("weights").noconvert().none(true),
             py::arg("sums").noconvert());
  module.def("scaled_magnitude", &scale, py::arg("matrix").noconvert(), py::arg("dtype"),
             py::arg("transposed"), py::arg("row_scale").noconvert().none(true),
             py::arg("col_scale").noconvert().none(true), py::arg("root_sum"),
             py::arg("out").noconvert());
  module.def("block_scores", &scores_of_blocks, py::arg("matrix").noconvert(), py::arg("dtype"),
             py::arg("transposed"), py::arg("rows"), py::arg("cols"), py::arg("l1"),
             py::arg("scores").noconvert());
}

}  // namespace secateur::bindings
