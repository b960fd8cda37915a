#include <string>

#include "module.hpp"
#include "secateur/peak.hpp"
#include "secateur/simd.hpp"
#include "secateur/threads.hpp"

namespace py = pybind11;

namespace secateur::bindings {

void bind_runtime(py::module_& module) {
  module.def("num_threads", &num_threads);
  module.def("set_num_threads", &set_num_threads, py::arg("count"));
  module.def("simd", [] { return std::string(simd_name(active_simd())); });
  module.def("detected_simd", [] { return std::string(simd_name(detected_simd())); });
  module.def(
      "set_simd", [](const std::string& name) { set_active_simd(parse_simd(name)); },
      py::arg("name"));
  // Read the environment now, so that a bad value is an error at import and not in some later call.
  num_threads();
  active_simd();
  module.def("peak_flops", &measure_peak_flops, py::arg("rounds"),
             py::call_guard<py::gil_scoped_release>());
}

}  // namespace secateur::bindings
