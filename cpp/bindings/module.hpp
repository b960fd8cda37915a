// Each kernel family binds itself in its own file; module.cpp only calls them.
#pragma once

#include <pybind11/pybind11.h>

namespace secateur::bindings {

void bind_runtime(pybind11::module_& module);
void bind_gemm(pybind11::module_& module);
void bind_obs(pybind11::module_& module);
void bind_patterns(pybind11::module_& module);
void bind_saliency(pybind11::module_& module);
void bind_select(pybind11::module_& module);
void bind_sparse(pybind11::module_& module);
void bind_neural(pybind11::module_& module);
void bind_packing(pybind11::module_& module);
void bind_codec(pybind11::module_& module);
void bind_spmm(pybind11::module_& module);

}  // namespace secateur::bindings
