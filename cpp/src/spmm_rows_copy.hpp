// Weights copied so that those of one output lie in a row.
#pragma once

#include <algorithm>
#include <cstddef>

#include "secateur/spmm.hpp"

namespace secateur {

// to: (outputs, inputs). In squares, so that either order of the weights reads whole cache lines.
inline void copy_rows(const WeightView& from, float* to) noexcept {
  constexpr std::size_t kSquare = 16;
  for (std::size_t n = 0; n < from.outputs; n += kSquare) {
    const std::size_t last = std::min(from.outputs, n + kSquare);
    for (std::size_t k = 0; k < from.inputs; k += kSquare) {
      const std::size_t end = std::min(from.inputs, k + kSquare);
      for (std::size_t input = k; input < end; ++input) {
        const float* own = from.data + input * from.input_stride;
        for (std::size_t output = n; output < last; ++output) {
          to[output * from.inputs + input] = own[output * from.output_stride];
        }
      }
    }
  }
}

}  // namespace secateur
