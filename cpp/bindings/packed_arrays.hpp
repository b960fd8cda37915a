// What the packing and sparse bindings ask of an array before they hand its memory to a kernel.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "secateur/packing.hpp"

namespace secateur::bindings::packed {

inline void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

// Any C-contiguous array of raw numbers, of any shape.
inline void check_contiguous(const pybind11::array& array, const char* name) {
  require((array.flags() & pybind11::array::c_style) != 0,
          std::string(name) + " must be C-contiguous");
}

inline void check_size(const pybind11::array& array, std::size_t size, const char* name) {
  require(static_cast<std::size_t>(array.size()) == size,
          std::string(name) + " must have " + std::to_string(size) + " elements, got " +
              std::to_string(array.size()));
}

inline void check_writeable(const pybind11::array& array, const char* name) {
  require(array.writeable(), std::string(name) + " must be writeable");
}

template <class T>
const T* input(const pybind11::array& array, std::size_t size, const char* name) {
  require(array.dtype().kind() == (std::is_signed_v<T> ? 'i' : 'u') &&
              array.itemsize() == static_cast<pybind11::ssize_t>(sizeof(T)),
          std::string(name) + " has the wrong dtype");
  check_contiguous(array, name);
  check_size(array, size, name);
  return static_cast<const T*>(array.data());
}

template <class T>
T* output(pybind11::array& array, std::size_t size, const char* name) {
  input<T>(array, size, name);
  check_writeable(array, name);
  return static_cast<T*>(array.mutable_data());
}

// Raw items: unsigned integers of 1, 2, 4 or 8 bytes.
inline std::size_t item_size(const pybind11::array& array, const char* name) {
  require(array.dtype().kind() == 'u', std::string(name) + " must be a view as unsigned integers");
  check_contiguous(array, name);
  return static_cast<std::size_t>(array.itemsize());
}

inline void* raw_output(pybind11::array& array, std::size_t size, std::size_t bytes,
                        const char* name) {
  require(item_size(array, name) == bytes, std::string(name) + " has the wrong dtype");
  check_size(array, size, name);
  check_writeable(array, name);
  return array.mutable_data();
}

// The table of running totals per chunk. Checked here, because kernels compute addresses from it.
inline const std::uint64_t* running_totals(const pybind11::array& array, std::size_t chunks,
                                           std::size_t chunk_size) {
  const auto* table = input<std::uint64_t>(array, chunks + 1, "offsets");
  bool good = table[0] == 0;
  for (std::size_t c = 0; c < chunks; ++c) {
    good &= table[c] <= table[c + 1] && table[c + 1] - table[c] <= chunk_size;
  }
  require(good, "offsets must start at 0, end at the number of values and grow by at most " +
                    std::to_string(chunk_size) + " a chunk");
  return table;
}

// `total` is its last entry.
inline const std::uint64_t* offsets(const pybind11::array& array, std::size_t chunks,
                                    std::size_t chunk_size, std::size_t total) {
  const auto* table = running_totals(array, chunks, chunk_size);
  require(table[chunks] == total, "offsets must end at the number of values, " +
                                      std::to_string(total) + ", got " +
                                      std::to_string(table[chunks]));
  return table;
}

inline MatrixShape matrix_shape(std::size_t cols, const pybind11::array& indptr) {
  require(indptr.size() > 0, "indptr must have rows + 1 elements");
  return {static_cast<std::size_t>(indptr.size()) - 1, cols};
}

}  // namespace secateur::bindings::packed
