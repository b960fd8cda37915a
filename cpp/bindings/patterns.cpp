#include "secateur/patterns.hpp"

#include "arrays.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace secateur::bindings {
namespace {

bool mask_groups(const py::array& array, int dtype, bool transposed, int n, int m, bool by_value,
                 py::array& mask) {
  const Matrix matrix = to_matrix(array, dtype);
  if (m < 1 || m > kMaxGroup || n < 0 || n > m) {
    throw std::invalid_argument("n:m must be 0 <= n <= m <= 32, m >= 1");
  }
  const Grouped elements = transposed
                               ? Grouped{matrix.data, matrix.dtype, 1, matrix.outer, matrix.inner}
                               : Grouped{matrix.data, matrix.dtype, matrix.outer, matrix.inner, 1};
  auto* out = static_cast<std::uint8_t*>(check_output(mask, 1, 2, "mask"));
  check_extent(mask, 0, matrix.outer, "mask");
  check_extent(mask, 1, matrix.inner, "mask");
  const py::gil_scoped_release release;
  return nm_mask(elements, {n, m, by_value ? Order::value : Order::magnitude}, out);
}

void expand(const py::array& blocks, bool transposed, std::size_t rows, std::size_t cols,
            py::array& mask) {
  check_array(blocks, 1, 2, "blocks");
  auto* out = static_cast<std::uint8_t*>(check_output(mask, 1, 2, "mask"));
  if (rows == 0 || cols == 0) throw std::invalid_argument("a block needs rows and cols above 0");
  const BlockGrid grid{extent(mask, 0), extent(mask, 1), transposed ? cols : rows,
                       transposed ? rows : cols};
  const std::size_t bands = (grid.outer + grid.block_outer - 1) / grid.block_outer;
  const std::size_t per_band = (grid.inner + grid.block_inner - 1) / grid.block_inner;
  check_extent(blocks, transposed ? 1 : 0, bands, "blocks");
  check_extent(blocks, transposed ? 0 : 1, per_band, "blocks");
  const auto* data = static_cast<const std::uint8_t*>(blocks.data());
  const py::gil_scoped_release release;
  expand_blocks(data, transposed, grid, out);
}

}  // namespace

void bind_patterns(py::module_& module) {
  module.def("nm_mask", &mask_groups, py::arg("matrix").noconvert(), py::arg("dtype"),
             py::arg("transposed"), py::arg("n"), py::arg("m"), py::arg("by_value"),
             py::arg("mask").noconvert());
  module.def("expand_blocks", &expand, py::arg("blocks").noconvert(), py::arg("transposed"),
             py::arg("rows"), py::arg("cols"), py::arg("mask").noconvert());
}

}  // namespace secateur::bindings
