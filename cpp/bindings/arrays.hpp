// What every binding asks of the arrays it is given. Nothing is ever converted or copied here.
#pragma once

#include <pybind11/numpy.h>

#include <stdexcept>
#include <string>

#include "secateur/dtype.hpp"
#include "secateur/saliency.hpp"

namespace secateur::bindings {

inline DType to_dtype(int dtype) {
  if (dtype < 0 || dtype > 3) {
    throw std::invalid_argument("dtype must be 0 to 3, got " + std::to_string(dtype));
  }
  return static_cast<DType>(dtype);
}

inline void check_array(const pybind11::array& array, std::size_t item_size, pybind11::ssize_t ndim,
                        const std::string& name) {
  if (array.ndim() != ndim || static_cast<std::size_t>(array.itemsize()) != item_size) {
    throw std::invalid_argument(name + " must have " + std::to_string(ndim) + " dimensions and " +
                                std::to_string(item_size) + " bytes per item");
  }
  if ((array.flags() & pybind11::array::c_style) == 0) {
    throw std::invalid_argument(name + " must be C-contiguous");
  }
}

inline void* check_output(pybind11::array& array, std::size_t item_size, pybind11::ssize_t ndim,
                          const std::string& name) {
  check_array(array, item_size, ndim, name);
  if (!array.writeable()) throw std::invalid_argument(name + " must be writeable");
  return array.mutable_data();
}

inline std::size_t extent(const pybind11::array& array, pybind11::ssize_t axis) {
  return static_cast<std::size_t>(array.shape(axis));
}

inline void check_extent(const pybind11::array& array, pybind11::ssize_t axis, std::size_t expected,
                         const std::string& name) {
  if (extent(array, axis) != expected) {
    throw std::invalid_argument(name + " must have extent " + std::to_string(expected) +
                                " along axis " + std::to_string(axis) + ", got " +
                                std::to_string(extent(array, axis)));
  }
}

inline Matrix to_matrix(const pybind11::array& array, int dtype) {
  const DType type = to_dtype(dtype);
  check_array(array, item_size(type), 2, "matrix");
  return {array.data(), type, extent(array, 0), extent(array, 1)};
}

}  // namespace secateur::bindings
