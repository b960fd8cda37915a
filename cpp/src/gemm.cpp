#include "secateur/gemm.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>

#include "gemm_kernel.hpp"
#include "gemm_pack.hpp"
#include "own_memory.hpp"
#include "secateur/threads.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

using namespace gemm;

// Lines of an operand that are packed at a time: 12 MiB with a chunk's depth.
constexpr std::size_t kMostRows = 21 * kTileRows;
constexpr std::size_t kMostCols = 16 * kTileCols;
// Rows of memory that a task packs, if lines lie side by side.
constexpr std::size_t kPackDepth = 32;

// ---- A tile: the sums of a chunk, micro-tile by micro-tile ----

// Wanted of a tile is what lies at or above a diagonal: col >= row + skew. Far below zero: all.
constexpr std::ptrdiff_t kAll = std::numeric_limits<std::ptrdiff_t>::min() / 2;

struct TileArgs {
  const float* left;   // panels of the chunk, from the tile's first row on
  const float* right;  // from its first column on
  float* sums;
  std::size_t rows, cols, depth;
  std::ptrdiff_t skew;

  std::size_t first_col(std::size_t row) const noexcept {
    const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(row) + skew;
    return first < 0 ? 0 : static_cast<std::size_t>(first);
  }
};

template <class Micro>
struct SumTile {
  static SECATEUR_INLINE void run(const TileArgs& args) {
    for (std::size_t k = 0; k < args.depth; k += kPass) {
      const std::size_t depth = std::min(kPass, args.depth - k);
      for (std::size_t col = 0; col < args.cols; col += Micro::kCols) {
        for (std::size_t row = 0; row < args.rows; row += Micro::kRows) {
          if (args.first_col(row) >= col + Micro::kCols) break;
          Micro::run({args.left + row * args.depth + k * Micro::kRows,
                      args.right + col * args.depth + k * Micro::kCols,
                      args.sums + col * kTileRows + row * Micro::kCols, depth, k == 0});
        }
      }
    }
  }
};

// ---- From a tile's sums to the result ----

template <class Out>
struct WriteArgs {
  const TileArgs* tile;
  Out* out;  // the tile's first element
  std::size_t stride;
  Update update;
};

template <class Micro, class Out>
struct WriteTile {
  static SECATEUR_INLINE void span(const float* from, Out* to, std::size_t count, Update update) {
    switch (update) {
      case Update::set:
        for (std::size_t i = 0; i < count; ++i) to[i] = from[i];
        return;
      case Update::add:
        for (std::size_t i = 0; i < count; ++i) to[i] += from[i];
        return;
      case Update::subtract:
        for (std::size_t i = 0; i < count; ++i) to[i] -= from[i];
        return;
    }
  }

  static SECATEUR_INLINE void run(const WriteArgs<Out>& args) {
    const TileArgs& tile = *args.tile;
    for (std::size_t row = 0; row < tile.rows; ++row) {
      const std::size_t first = tile.first_col(row);
      Out* to = args.out + row * args.stride;
      for (std::size_t col = 0; col < tile.cols; col += Micro::kCols) {
        const float* from = tile.sums + col * kTileRows + row * Micro::kCols;
        const std::size_t begin = std::max(col, first);
        const std::size_t end = std::min(col + Micro::kCols, tile.cols);
        if (begin >= end) continue;
        if (end - begin == Micro::kCols) {
          span(from, to + begin, Micro::kCols, args.update);
        } else {
          span(from + (begin - col), to + begin, end - begin, args.update);
        }
      }
    }
  }
};

// ---- What each instruction set brings ----

template <class Out>
struct Routines {
  std::size_t rows, cols;  // of a micro-tile
  void (*pack_left)(const PackArgs&);
  void (*pack_right)(const PackArgs&);
  void (*sum)(const TileArgs&);
  void (*write)(const WriteArgs<Out>&);
};

struct Plain {
  template <class Body, class Args>
  static constexpr void (*kRun)(const Args&) = &run_plain<Body, Args>;
};

#if SECATEUR_X86
struct Fma256 {
  template <class Body, class Args>
  static constexpr void (*kRun)(const Args&) = &run_fma256<Body, Args>;
};

struct Fma512 {
  template <class Body, class Args>
  static constexpr void (*kRun)(const Args&) = &run_fma512<Body, Args>;
};
#endif

template <class Target, class Micro, class Out>
Routines<Out> routines_for() {
  return {Micro::kRows,
          Micro::kCols,
          Target::template kRun<PackPanels<Micro::kRows>, PackArgs>,
          Target::template kRun<PackPanels<Micro::kCols>, PackArgs>,
          Target::template kRun<SumTile<Micro>, TileArgs>,
          Target::template kRun<WriteTile<Micro, Out>, WriteArgs<Out>>};
}

template <class Out>
Routines<Out> routines() {
  const auto plain = routines_for<Plain, KernelPlain, Out>();
#if SECATEUR_X86
  return pick(plain, routines_for<Fma256, Kernel256, Out>(),
              routines_for<Fma512, Kernel512, Out>());
#else
  return plain;
#endif
}

// ---- The whole product ----

// Panels of both operands, kept by the calling thread for its next product.
float* packed_floats(std::size_t count) {
  thread_local std::unique_ptr<float[]> memory;
  thread_local std::size_t size = 0;
  if (size < count + kAlignment) {
    memory.reset();
    size = 0;
    memory.reset(new float[count + kAlignment]);
    size = count + kAlignment;
  }
  return aligned(memory.get());
}

constexpr std::size_t round_up(std::size_t value, std::size_t step) noexcept {
  return ceil_div(value, step) * step;
}

void pack(void (*body)(const PackArgs&), const Lines& lines, std::size_t width, float* panels) {
  const bool across = side_by_side(lines);
  const std::size_t items = across ? lines.depth : ceil_div(lines.count, width);
  const std::size_t step = across ? kPackDepth : ceil_div(kTileRows, width);
  parallel_for(ceil_div(items, step), [&](std::size_t task) {
    const std::size_t begin = task * step;
    body({&lines, panels, begin, std::min(items, begin + step)});
  });
}

template <class Out>
class Product {
 public:
  Product(const FloatView& a, const FloatView& b, Out* out, Update update, bool upper)
      : a_(a), b_(b), out_(out), update_(update), upper_(upper) {}

  void run() {
    const std::size_t depth = std::min(kChunk, a_.cols);
    const std::size_t rows = round_up(std::min(kMostRows, a_.rows), does_.rows);
    const std::size_t cols = round_up(std::min(kMostCols, b_.cols), does_.cols);
    right_ = packed_floats((round_up(rows * depth, kLanes)) + cols * depth);
    left_ = right_ + cols * depth;
    for (std::size_t k = 0; k < a_.cols; k += kChunk) {
      depth_ = std::min(kChunk, a_.cols - k);
      for (std::size_t col = 0; col < b_.cols; col += kMostCols) {
        cols_ = std::min(kMostCols, b_.cols - col);
        const Lines right{b_.data + k * b_.row_stride + col * b_.col_stride, cols_, depth_,
                          b_.col_stride, b_.row_stride};
        pack(does_.pack_right, right, does_.cols, right_);
        for (std::size_t row = 0; row < a_.rows; row += kMostRows) {
          if (upper_ && row >= col + cols_) break;
          rows_ = std::min(kMostRows, a_.rows - row);
          const Lines left{a_.data + row * a_.row_stride + k * a_.col_stride, rows_, depth_,
                           a_.row_stride, a_.col_stride};
          pack(does_.pack_left, left, does_.rows, left_);
          block(row, col);
        }
      }
      if (update_ == Update::set) update_ = Update::add;
    }
  }

 private:
  void block(std::size_t row, std::size_t col) const {
    const std::size_t across = ceil_div(cols_, kTileCols);
    parallel_for(ceil_div(rows_, kTileRows) * across, [&](std::size_t task) {
      tile(row, col, task / across * kTileRows, task % across * kTileCols);
    });
  }

  // The tile at (i, j) of the block at (row, col).
  void tile(std::size_t row, std::size_t col, std::size_t i, std::size_t j) const {
    const std::size_t rows = std::min(kTileRows, rows_ - i);
    const std::size_t cols = std::min(kTileCols, cols_ - j);
    const std::ptrdiff_t skew =
        upper_ ? static_cast<std::ptrdiff_t>(row + i) - static_cast<std::ptrdiff_t>(col + j) : kAll;
    const TileArgs args{left_ + i * depth_,
                        right_ + j * depth_,
                        own_floats(kTileRows * kTileCols),
                        rows,
                        cols,
                        depth_,
                        skew};
    if (args.first_col(0) >= cols) return;
    does_.sum(args);
    Out* out = out_ + (row + i) * b_.cols + col + j;
    does_.write({&args, out, b_.cols, update_});
  }

  const FloatView& a_;
  const FloatView& b_;
  Out* out_;
  Update update_;
  bool upper_;
  Routines<Out> does_ = routines<Out>();
  float* left_ = nullptr;
  float* right_ = nullptr;
  std::size_t rows_ = 0, cols_ = 0, depth_ = 0;  // of the block and the chunk at hand
};

struct MirrorArgs {
  double* out;
  std::size_t width, begin, end;  // rows to be written
};

constexpr std::size_t kSquare = 32;

void mirror_rows(const MirrorArgs& args) {
  const std::size_t width = args.width;
  for (std::size_t first = 0; first < args.end; first += kSquare) {
    const std::size_t last = std::min(args.end, first + kSquare);
    for (std::size_t row = args.begin; row < args.end; ++row) {
      double* to = args.out + row * width;
      for (std::size_t col = first; col < std::min(last, row); ++col) {
        to[col] = args.out[col * width + row];
      }
    }
  }
}

}  // namespace

void multiply(const FloatView& a, const FloatView& b, float* out, Update update) {
  if (update == Update::set && a.cols == 0) std::fill(out, out + a.rows * b.cols, 0.0F);
  Product<float>(a, b, out, update, false).run();
}

void add_product(const FloatView& a, const FloatView& b, double* out) {
  Product<double>(a, b, out, Update::add, false).run();
}

void add_gram(const FloatView& rows, double* out) {
  const FloatView turned{rows.data, rows.cols, rows.rows, rows.col_stride, rows.row_stride};
  Product<double>(turned, rows, out, Update::add, true).run();
}

void mirror_upper(double* out, std::size_t width) {
  parallel_for(ceil_div(width, kSquare), [&](std::size_t task) {
    const std::size_t begin = task * kSquare;
    mirror_rows({out, width, begin, std::min(width, begin + kSquare)});
  });
}

}  // namespace secateur
