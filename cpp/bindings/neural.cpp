#include "secateur/neural.hpp"

#include <pybind11/stl.h>

#include <optional>

#include "arrays.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace secateur::bindings {
namespace {

using Floats = py::array_t<float>;

Rows to_rows(const Floats& x, Floats& y) {
  check_array(x, sizeof(float), 2, "x");
  auto* out = static_cast<float*>(check_output(y, sizeof(float), 2, "y"));
  check_extent(y, 0, extent(x, 0), "y");
  check_extent(y, 1, extent(x, 1), "y");
  return {x.data(), out, extent(x, 0), extent(x, 1)};
}

const float* per_column(const std::optional<Floats>& array, const Rows& rows, const char* name) {
  if (!array) return nullptr;
  check_array(*array, sizeof(float), 1, name);
  check_extent(*array, 0, rows.width, name);
  return array->data();
}

void softmax(const Floats& x, Floats& y) {
  const Rows rows = to_rows(x, y);
  const py::gil_scoped_release release;
  softmax_rows(rows);
}

void normalize(const Floats& x, Floats& y, bool rms, const std::optional<Floats>& scale,
               const std::optional<Floats>& offset, float epsilon) {
  const Rows rows = to_rows(x, y);
  const float* factors = per_column(scale, rows, "scale");
  const float* terms = per_column(offset, rows, "offset");
  const py::gil_scoped_release release;
  normalize_rows(rows, rms ? RowNorm::rms : RowNorm::layer, factors, terms, epsilon);
}

}  // namespace

void bind_neural(py::module_& module) {
  module.def("softmax_rows", &softmax, py::arg("x").noconvert(), py::arg("y").noconvert());
  module.def("normalize_rows", &normalize, py::arg("x").noconvert(), py::arg("y").noconvert(),
             py::arg("rms"), py::arg("scale").noconvert(), py::arg("offset").noconvert(),
             py::arg("epsilon"));
}

}  // namespace secateur::bindings
