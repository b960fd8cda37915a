#include "secateur/neural.hpp"

#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>

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

// (batch, time, heads, width) with any strides but a contiguous last axis.
Heads to_heads(const Floats& array, const std::array<std::size_t, 4>& shape, const char* name) {
  if (array.ndim() != 4) throw std::invalid_argument(std::string(name) + " must have 4 dimensions");
  const auto item = static_cast<py::ssize_t>(sizeof(float));
  std::array<std::size_t, 4> strides{};
  for (py::ssize_t axis = 0; axis < 4; ++axis) {
    const auto i = static_cast<std::size_t>(axis);
    check_extent(array, axis, shape[i], name);
    const py::ssize_t bytes = array.strides(axis);
    if (bytes < 0 || bytes % item != 0 ||
        (axis == 3 && shape[3] > 1 && array.size() > 0 && bytes != item)) {
      throw std::invalid_argument(std::string(name) + " must be contiguous along its last axis");
    }
    strides[i] = static_cast<std::size_t>(bytes / item);
  }
  return {const_cast<float*>(array.data()), strides[0], strides[1], strides[2]};
}

void set_mask(const std::optional<py::array_t<bool>>& mask, Attention& to) {
  to.mask = nullptr;
  if (!mask) return;
  if (mask->ndim() != 4) throw std::invalid_argument("mask must have 4 dimensions");
  const std::array<std::size_t, 4> shape{to.batch, to.heads, to.queries, to.keys};
  for (py::ssize_t axis = 0; axis < 4; ++axis) {
    const auto i = static_cast<std::size_t>(axis);
    check_extent(*mask, axis, shape[i], "mask");
    if (mask->strides(axis) < 0) throw std::invalid_argument("mask must not run backwards");
    to.mask_strides[i] = static_cast<std::size_t>(mask->strides(axis));
  }
  to.mask = reinterpret_cast<const std::uint8_t*>(mask->data());
}

void attention(const Floats& query, const Floats& key, const Floats& value, Floats& out,
               const std::optional<py::array_t<bool>>& mask, float masked,
               std::optional<Floats>& weights) {
  for (const Floats* one : {&query, &key, &value}) {
    if (one->ndim() != 4) throw std::invalid_argument("query, key, value must have 4 dimensions");
  }
  Attention a{};
  a.batch = extent(query, 0);
  a.queries = extent(query, 1);
  a.keys = extent(key, 1);
  a.heads = extent(query, 2);
  a.width = extent(query, 3);
  a.value_width = extent(value, 3);
  if (a.keys == 0) throw std::invalid_argument("attention needs at least one key");
  if (!out.writeable()) throw std::invalid_argument("out must be writeable");
  a.query = to_heads(query, {a.batch, a.queries, a.heads, a.width}, "query");
  a.key = to_heads(key, {a.batch, a.keys, a.heads, a.width}, "key");
  a.value = to_heads(value, {a.batch, a.keys, a.heads, a.value_width}, "value");
  a.out = to_heads(out, {a.batch, a.queries, a.heads, a.value_width}, "out");
  a.masked = masked;
  set_mask(mask, a);
  if (weights) {
    a.weights = static_cast<float*>(check_output(*weights, sizeof(float), 4, "weights"));
    const std::array<std::size_t, 4> shape{a.batch, a.heads, a.queries, a.keys};
    for (std::size_t i = 0; i < 4; ++i) {
      check_extent(*weights, static_cast<py::ssize_t>(i), shape[i], "weights");
    }
  }
  const py::gil_scoped_release release;
  attend(a);
}

}  // namespace

void bind_neural(py::module_& module) {
  module.def("softmax_rows", &softmax, py::arg("x").noconvert(), py::arg("y").noconvert());
  module.def("attend", &attention, py::arg("query").noconvert(), py::arg("key").noconvert(),
             py::arg("value").noconvert(), py::arg("out").noconvert(), py::arg("mask").noconvert(),
             py::arg("masked"), py::arg("weights").noconvert());
  module.def("normalize_rows", &normalize, py::arg("x").noconvert(), py::arg("y").noconvert(),
             py::arg("rms"), py::arg("scale").noconvert(), py::arg("offset").noconvert(),
             py::arg("epsilon"));
}

}  // namespace secateur::bindings
