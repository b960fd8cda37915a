#include "secateur/gemm.hpp"

#include "arrays.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace secateur::bindings {
namespace {

// Any strides forward that are whole elements; the memory of an axis of one element is never
// stepped over.
FloatView to_view(const py::array& array, const std::string& name) {
  if (array.ndim() != 2 || array.itemsize() != sizeof(float)) {
    throw std::invalid_argument(name + " must be a float32 matrix");
  }
  std::size_t strides[2] = {1, 1};
  for (py::ssize_t axis = 0; axis < 2; ++axis) {
    if (array.shape(axis) <= 1) continue;
    const py::ssize_t bytes = array.strides(axis);
    if (bytes < 0 || bytes % static_cast<py::ssize_t>(sizeof(float)) != 0) {
      throw std::invalid_argument(name + " must have forward strides of whole elements");
    }
    strides[axis] = static_cast<std::size_t>(bytes) / sizeof(float);
  }
  return {static_cast<const float*>(array.data()), extent(array, 0), extent(array, 1), strides[0],
          strides[1]};
}

template <class Out>
Out* output_of(py::array& out, std::size_t rows, std::size_t cols) {
  auto* to = static_cast<Out*>(check_output(out, sizeof(Out), 2, "out"));
  check_extent(out, 0, rows, "out");
  check_extent(out, 1, cols, "out");
  return to;
}

void check_depth(const FloatView& a, const FloatView& b) {
  if (a.cols != b.rows) {
    throw std::invalid_argument("inner extents differ: " + std::to_string(a.cols) + " and " +
                                std::to_string(b.rows));
  }
}

void multiply_into(const py::array& a, const py::array& b, py::array& out, int update) {
  const FloatView left = to_view(a, "a");
  const FloatView right = to_view(b, "b");
  check_depth(left, right);
  float* to = output_of<float>(out, left.rows, right.cols);
  if (update < 0 || update > 2) throw std::invalid_argument("update must be 0, 1 or 2");
  const py::gil_scoped_release release;
  multiply(left, right, to, static_cast<Update>(update));
}

void add_product_to(const py::array& a, const py::array& b, py::array& out) {
  const FloatView left = to_view(a, "a");
  const FloatView right = to_view(b, "b");
  check_depth(left, right);
  auto* to = output_of<double>(out, left.rows, right.cols);
  const py::gil_scoped_release release;
  add_product(left, right, to);
}

void add_gram_to(const py::array& rows, py::array& out) {
  const FloatView view = to_view(rows, "rows");
  auto* to = output_of<double>(out, view.cols, view.cols);
  const py::gil_scoped_release release;
  add_gram(view, to);
}

void mirror(py::array& out) {
  const std::size_t width = out.ndim() == 2 ? extent(out, 0) : 0;
  auto* to = output_of<double>(out, width, width);
  const py::gil_scoped_release release;
  mirror_upper(to, width);
}

}  // namespace

void bind_gemm(py::module_& module) {
  module.def("gemm_multiply", &multiply_into, py::arg("a").noconvert(), py::arg("b").noconvert(),
             py::arg("out").noconvert(), py::arg("update"));
  module.def("gemm_add_product", &add_product_to, py::arg("a").noconvert(),
             py::arg("b").noconvert(), py::arg("out").noconvert());
  module.def("gemm_add_gram", &add_gram_to, py::arg("rows").noconvert(),
             py::arg("out").noconvert());
  module.def("gemm_mirror_upper", &mirror, py::arg("out").noconvert());
}

}  // namespace secateur::bindings
