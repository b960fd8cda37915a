#include "module.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "Kernels of secateur. Private: use the functions of the secateur package.";
  secateur::bindings::bind_runtime(module);
  secateur::bindings::bind_gemm(module);
  secateur::bindings::bind_obs(module);
  secateur::bindings::bind_patterns(module);
  secateur::bindings::bind_saliency(module);
  secateur::bindings::bind_select(module);
  secateur::bindings::bind_sparse(module);
  secateur::bindings::bind_neural(module);
  secateur::bindings::bind_packing(module);
  secateur::bindings::bind_codec(module);
  secateur::bindings::bind_spmm(module);
}
