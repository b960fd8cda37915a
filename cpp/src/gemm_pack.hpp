// Operands of dense products into panels: (depth, width) each, zeros beyond the last line.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "spmm_vector.hpp"
#include "variants.hpp"

namespace secateur::gemm {

// A part of an operand. Lines are rows of the left or columns of the right one: what panels hold
// side by side.
struct Lines {
  const float* data;
  std::size_t count;
  std::size_t depth;
  std::size_t line_stride;
  std::size_t depth_stride;
};

struct PackArgs {
  const Lines* lines;
  float* panels;           // panel p at p * width * lines->depth
  std::size_t begin, end;  // of depth if lines lie side by side in memory, else panels
};

inline bool side_by_side(const Lines& lines) noexcept { return lines.line_stride == 1; }

template <std::size_t Width>
struct PackPanels {
  // A few rows of memory across all panels: down a panel, their lines of cache would fall on each
  // other wherever the distance of rows is a multiple of 4 KiB.
  static SECATEUR_INLINE void across(const PackArgs& args) {
    const Lines& lines = *args.lines;
    for (std::size_t line = 0; line < lines.count; line += Width) {
      float* panel = args.panels + line * lines.depth;
      const std::size_t here = std::min(Width, lines.count - line);
      for (std::size_t k = args.begin; k < args.end; ++k) {
        const float* from = lines.data + k * lines.depth_stride + line;
        float* to = panel + k * Width;
        if (here == Width) {
          std::memcpy(to, from, Width * sizeof(float));
        } else {
          for (std::size_t i = 0; i < Width; ++i) to[i] = i < here ? from[i] : 0.0F;
        }
      }
    }
  }

  // Squares of `Side` lines are turned in registers.
  template <std::size_t Side>
  static SECATEUR_INLINE void turn(const float* from, std::size_t stride, std::size_t here,
                                   float* to) {
    Floats square[kLanes];
    SECATEUR_UNROLL(16)
    for (std::size_t i = 0; i < kLanes; ++i) {
      if (i < Side && i < here) {
        load(square[i], from + i * stride);
      } else {
        square[i] = Floats{};
      }
    }
    transpose_lanes(square);
    SECATEUR_UNROLL(16)
    for (std::size_t k = 0; k < kLanes; ++k) {
      std::memcpy(to + k * Width, &square[k], Side * sizeof(float));
    }
  }

  static SECATEUR_INLINE void down(const PackArgs& args) {
    const Lines& lines = *args.lines;
    constexpr std::size_t kWhole = Width / kLanes * kLanes;
    for (std::size_t p = args.begin; p < args.end; ++p) {
      float* panel = args.panels + p * Width * lines.depth;
      const float* from = lines.data + p * Width * lines.line_stride;
      const std::size_t here = std::min(Width, lines.count - p * Width);
      std::size_t k = 0;
      if (lines.depth_stride == 1) {
        for (; k + kLanes <= lines.depth; k += kLanes) {
          for (std::size_t i = 0; i < kWhole; i += kLanes) {
            turn<kLanes>(from + i * lines.line_stride + k, lines.line_stride,
                         here > i ? here - i : 0, panel + k * Width + i);
          }
          if constexpr (Width % kLanes != 0) {
            turn<Width % kLanes>(from + kWhole * lines.line_stride + k, lines.line_stride,
                                 here > kWhole ? here - kWhole : 0, panel + k * Width + kWhole);
          }
        }
      }
      for (; k < lines.depth; ++k) {
        for (std::size_t i = 0; i < Width; ++i) {
          panel[k * Width + i] =
              i < here ? from[i * lines.line_stride + k * lines.depth_stride] : 0.0F;
        }
      }
    }
  }

  static SECATEUR_INLINE void run(const PackArgs& args) {
    if (side_by_side(*args.lines)) {
      across(args);
    } else {
      down(args);
    }
  }
};

}  // namespace secateur::gemm
