// The micro-kernels of dense products: a tile of the result in registers.
#pragma once

#include <cstddef>
#include <cstring>

#include "spmm_vector.hpp"

namespace secateur::gemm {

inline constexpr std::size_t kChunk = 1024;  // depth that is packed at a time
// Depth of one pass of a micro-kernel: a panel of the right operand, 32 KiB, stays in L1.
inline constexpr std::size_t kPass = 256;
inline constexpr std::size_t kTileRows = 144;
inline constexpr std::size_t kTileCols = 192;

struct KernelArgs {
  const float* left;   // (depth, kRows)
  const float* right;  // (depth, kCols)
  float* sums;         // (kRows, kCols)
  std::size_t depth;
  bool first;  // sums are not read
};

// Registers of one instruction set. AVX-512 has 32, AVX2 16 of half the width, SSE and NEON 16 (or
// more) of a quarter.
struct Registers512 {
  using Vector = float __attribute__((vector_size(64)));
};

struct Registers256 {
  using Vector = float __attribute__((vector_size(32)));
};

struct Registers128 {
  using Vector = float __attribute__((vector_size(16)));
};

// `Rows` x `Vectors` registers of sums beside `Vectors` of the right panel.
template <class Registers, std::size_t Rows, std::size_t Vectors>
struct Kernel {
  using Vector = typename Registers::Vector;
  static constexpr std::size_t kBytes = sizeof(Vector);
  static constexpr std::size_t kRows = Rows;
  static constexpr std::size_t kWidth = kBytes / sizeof(float);
  static constexpr std::size_t kCols = Vectors * kWidth;
  static_assert(kTileRows % kRows == 0 && kTileCols % kCols == 0);

  static SECATEUR_INLINE void run(const KernelArgs& args) {
    Vector acc[Rows][Vectors];
    SECATEUR_UNROLL(16)
    for (std::size_t i = 0; i < Rows; ++i) {
      SECATEUR_UNROLL(4)
      for (std::size_t v = 0; v < Vectors; ++v) acc[i][v] = Vector{};
    }
    const float* left = args.left;
    const float* right = args.right;
    for (std::size_t k = 0; k < args.depth; ++k) {
      Vector b[Vectors];
      SECATEUR_UNROLL(4)
      for (std::size_t v = 0; v < Vectors; ++v) {
        std::memcpy(&b[v], right + v * kWidth, kBytes);
      }
      SECATEUR_UNROLL(16)
      for (std::size_t i = 0; i < Rows; ++i) {
        SECATEUR_UNROLL(4)
        for (std::size_t v = 0; v < Vectors; ++v) acc[i][v] += left[i] * b[v];
      }
      left += kRows;
      right += kCols;
    }
    SECATEUR_UNROLL(16)
    for (std::size_t i = 0; i < Rows; ++i) {
      SECATEUR_UNROLL(4)
      for (std::size_t v = 0; v < Vectors; ++v) {
        float* to = args.sums + i * kCols + v * kWidth;
        if (!args.first) {
          Vector before;
          std::memcpy(&before, to, kBytes);
          acc[i][v] += before;
        }
        std::memcpy(to, &acc[i][v], kBytes);
      }
    }
  }
};

using Kernel512 = Kernel<Registers512, 12, 2>;
using Kernel256 = Kernel<Registers256, 6, 2>;
using KernelPlain = Kernel<Registers128, 4, 2>;

}  // namespace secateur::gemm
