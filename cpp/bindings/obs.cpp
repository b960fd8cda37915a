#include "secateur/obs.hpp"

#include "arrays.hpp"
#include "module.hpp"
#include "secateur/patterns.hpp"

namespace py = pybind11;

namespace secateur::bindings {
namespace {

void sweep(py::array& weight, const py::array& factor, py::array& mask, py::array& errors,
           std::size_t kept, std::size_t group) {
  auto* values = static_cast<float*>(check_output(weight, sizeof(float), 2, "weight"));
  auto* keep = static_cast<std::uint8_t*>(check_output(mask, 1, 2, "mask"));
  auto* left = static_cast<float*>(check_output(errors, sizeof(float), 2, "errors"));
  check_array(factor, sizeof(float), 2, "factor");
  const std::size_t rows = extent(weight, 0);
  const std::size_t width = extent(weight, 1);
  for (py::ssize_t axis = 0; axis < 2; ++axis) {
    check_extent(factor, axis, width, "factor");
    check_extent(mask, axis, axis == 0 ? rows : width, "mask");
    check_extent(errors, axis, axis == 0 ? rows : width, "errors");
  }
  if (kept > group || group > static_cast<std::size_t>(kMaxGroup)) {
    throw std::invalid_argument("kept and group must be 0 <= kept <= group <= 32");
  }
  const ObsBlock block{
      values, static_cast<const float*>(factor.data()), keep, left, rows, width, kept, group};
  const py::gil_scoped_release release;
  obs_sweep(block);
}

}  // namespace

void bind_obs(py::module_& module) {
  module.def("obs_sweep", &sweep, py::arg("weight").noconvert(), py::arg("factor").noconvert(),
             py::arg("mask").noconvert(), py::arg("errors").noconvert(), py::arg("kept"),
             py::arg("group"));
}

}  // namespace secateur::bindings
