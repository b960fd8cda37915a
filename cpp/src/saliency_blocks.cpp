#include <atomic>
#include <cmath>

#include "formats.hpp"
#include "secateur/saliency.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

constexpr std::size_t kSegment = 512;     // elements widened at a time
constexpr std::size_t kTileBlocks = 512;  // blocks along the inner axis per tile
constexpr std::size_t kTileInner =
    2048;  // elements along the inner axis per tile, one block at least
constexpr std::size_t kTransposedBands = 16;  // a cache line of float32 scores is written at once

// Bands are block rows of the memory layout: block.outer runs of `inner` elements.
template <class Format>
struct Tile {
  const typename Format::Bits* data;
  std::size_t stride;
  std::size_t bands, band_size, rows;  // `rows` counts what is left of the matrix, maybe less
  std::size_t blocks, block_size, cols;
  Norm norm;
  bool transposed;
  typename Format::Score* scores;
  std::size_t score_stride;  // between blocks, if transposed; the bands of a block are neighbours
};

template <class Format>
struct ScoreTile {
  using Bits = typename Format::Bits;
  using Score = typename Format::Score;

  template <Norm kNorm>
  static SECATEUR_INLINE double term(Bits bits) {
    const double value = Format::widen(bits);
    if constexpr (kNorm == Norm::l1) return std::fabs(value);
    return value * value;
  }

  // Adds `size` values, of which the first is number `start` of its row, to the sums of their
  // blocks.
  static SECATEUR_INLINE void add_runs(const double* values, std::size_t start, std::size_t size,
                                       std::size_t block_size, double* sums) {
    std::size_t i = 0;
    while (i < size) {
      const std::size_t block = (start + i) / block_size;
      const std::size_t end = std::min(size, (block + 1) * block_size - start);
      double sum = sums[block];
      for (; i < end; ++i) sum += values[i];
      sums[block] = sum;
    }
  }

  template <std::size_t kSize>
  static SECATEUR_INLINE void add_whole_runs(const double* values, std::size_t num_blocks,
                                             double* sums) {
    for (std::size_t block = 0; block < num_blocks; ++block) {
      double sum = sums[block];
      for (std::size_t i = 0; i < kSize; ++i) sum += values[block * kSize + i];
      sums[block] = sum;
    }
  }

  // Block sizes that divide kSegment get a loop the compiler can unroll and vectorise.
  static SECATEUR_INLINE void add_blocks(const double* values, std::size_t start, std::size_t size,
                                         std::size_t block_size, double* sums) {
    const std::size_t whole = size / block_size;
    double* first = sums + start / block_size;
    switch (block_size) {
      case 1:
        return add_whole_runs<1>(values, whole, first);
      case 2:
        add_whole_runs<2>(values, whole, first);
        break;
      case 4:
        add_whole_runs<4>(values, whole, first);
        break;
      case 8:
        add_whole_runs<8>(values, whole, first);
        break;
      case 16:
        add_whole_runs<16>(values, whole, first);
        break;
      default:
        return add_runs(values, start, size, block_size, sums);
    }
    const std::size_t done = whole * block_size;
    add_runs(values + done, start + done, size - done, block_size, sums);
  }

  // C order: down the rows is across the runs, so whole runs are added before blocks are formed.
  template <Norm kNorm>
  static SECATEUR_INLINE void sum_band(const Tile<Format>& tile, const Bits* band, std::size_t rows,
                                       double* sums) {
    double columns[kSegment];
    for (std::size_t start = 0; start < tile.cols; start += kSegment) {
      const std::size_t size = std::min(kSegment, tile.cols - start);
      for (std::size_t i = 0; i < size; ++i) columns[i] = term<kNorm>(band[start + i]);
      for (std::size_t r = 1; r < rows; ++r) {
        const Bits* row = band + r * tile.stride + start;
        for (std::size_t i = 0; i < size; ++i) columns[i] += term<kNorm>(row[i]);
      }
      add_blocks(columns, start, size, tile.block_size, sums);
    }
  }

  // Fortran order: down the rows is along a run, so each run is reduced to its blocks first.
  template <Norm kNorm>
  static SECATEUR_INLINE void sum_transposed_band(const Tile<Format>& tile, const Bits* band,
                                                  std::size_t rows, double* sums) {
    double terms[kSegment];
    for (std::size_t r = 0; r < rows; ++r) {
      const Bits* row = band + r * tile.stride;
      // The next run starts far away: ask for it now, while this one is squared and rooted.
      constexpr std::size_t kLine = 64 / sizeof(Bits);
      for (std::size_t i = 0; i < tile.cols; i += kLine) {
        __builtin_prefetch(row + tile.stride + i);
      }
      if (tile.block_size == 1) {
        for (std::size_t block = 0; block < tile.blocks; ++block) {
          sums[block] += term<kNorm>(row[block]);
        }
        continue;
      }
      double column[kTileBlocks] = {};
      for (std::size_t start = 0; start < tile.cols; start += kSegment) {
        const std::size_t size = std::min(kSegment, tile.cols - start);
        for (std::size_t i = 0; i < size; ++i) terms[i] = term<kNorm>(row[start + i]);
        add_blocks(terms, start, size, tile.block_size, column);
      }
      for (std::size_t block = 0; block < tile.blocks; ++block) sums[block] += column[block];
    }
  }

  template <Norm kNorm>
  static SECATEUR_INLINE bool score(const Tile<Format>& tile) {
    Score scores[kTransposedBands][kTileBlocks];
    bool finite = true;
    for (std::size_t b = 0; b < tile.bands; ++b) {
      double sums[kTileBlocks] = {};
      const Bits* band = tile.data + b * tile.band_size * tile.stride;
      const std::size_t rows = std::min(tile.band_size, tile.rows - b * tile.band_size);
      if (tile.transposed) {
        sum_transposed_band<kNorm>(tile, band, rows, sums);
      } else {
        sum_band<kNorm>(tile, band, rows, sums);
      }
      Score* out = tile.transposed ? scores[b] : tile.scores;
      finite &= store<kNorm>(sums, tile.blocks, out);
    }
    if (!tile.transposed) return finite;
    // A fixed number of bands writes whole cache lines.
    if (tile.bands == kTransposedBands) {
      transpose(scores, tile, kTransposedBands);
    } else {
      transpose(scores, tile, tile.bands);
    }
    return finite;
  }

  static SECATEUR_INLINE void transpose(const Score (*scores)[kTileBlocks],
                                        const Tile<Format>& tile, std::size_t bands) {
    for (std::size_t block = 0; block < tile.blocks; ++block) {
      Score* out = tile.scores + block * tile.score_stride;
      for (std::size_t b = 0; b < bands; ++b) out[b] = scores[b][block];
    }
  }

  template <Norm kNorm>
  static SECATEUR_INLINE bool store(const double* sums, std::size_t size, Score* out) {
    using Result = std::conditional_t<sizeof(Score) == 4, Float32, Float64>;
    typename Result::Bits largest = 0;  // scores are not negative: their bits order like they do
    for (std::size_t i = 0; i < size; ++i) {
      out[i] = static_cast<Score>(kNorm == Norm::l2 ? std::sqrt(sums[i]) : sums[i]);
      const auto bits = std::bit_cast<typename Result::Bits>(out[i]);
      largest =
          std::max<typename Result::Bits>(largest, bits & kMagnitudeBits<typename Result::Bits>);
    }
    return largest < Result::infinity;
  }

  static SECATEUR_INLINE bool run(const Tile<Format>& tile) {
    return tile.norm == Norm::l1 ? score<Norm::l1>(tile) : score<Norm::l2>(tile);
  }
};

template <class Format>
bool block_scores_as(const Matrix& matrix, bool transposed, BlockShape block, Norm norm,
                     void* scores) {
  const auto* data = static_cast<const typename Format::Bits*>(matrix.data);
  auto* out = static_cast<typename Format::Score*>(scores);
  const std::size_t bands = ceil_div(matrix.outer, block.outer);
  const std::size_t blocks = ceil_div(matrix.inner, block.inner);
  if (bands == 0 || blocks == 0) return true;
  const std::size_t band_step = transposed ? kTransposedBands : 1;
  const std::size_t block_step = std::clamp<std::size_t>(kTileInner / block.inner, 1, kTileBlocks);
  const std::size_t tiles_across = ceil_div(blocks, block_step);
  const std::size_t tile_elements = std::min(matrix.outer, band_step * block.outer) *
                                    std::min(matrix.inner, block_step * block.inner);
  const auto score = variant<ScoreTile<Format>, Tile<Format>>();
  std::atomic<bool> finite{true};
  parallel_spans(ceil_div(bands, band_step) * tiles_across, tile_elements,
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t item = begin; item < end; ++item) {
                     const std::size_t band = item / tiles_across * band_step;
                     const std::size_t first = item % tiles_across * block_step;
                     const std::size_t row = band * block.outer;
                     const std::size_t col = first * block.inner;
                     const std::size_t num_blocks = std::min(block_step, blocks - first);
                     const Tile<Format> tile{
                         data + row * matrix.inner + col,
                         matrix.inner,
                         std::min(band_step, bands - band),
                         block.outer,
                         matrix.outer - row,
                         num_blocks,
                         block.inner,
                         std::min(matrix.inner - col, num_blocks * block.inner),
                         norm,
                         transposed,
                         out + (transposed ? first * bands + band : band * blocks + first),
                         bands};
                     if (!score(tile)) finite = false;
                   }
                 });
  return finite;
}

}  // namespace

bool block_scores(const Matrix& matrix, bool transposed, BlockShape block, Norm norm,
                  void* scores) {
  // No block is larger than the matrix, so that products of extents stay in range.
  const BlockShape shape{std::min(block.outer, std::max<std::size_t>(1, matrix.outer)),
                         std::min(block.inner, std::max<std::size_t>(1, matrix.inner))};
  return with_format(matrix.dtype, [&](auto format) {
    return block_scores_as<decltype(format)>(matrix, transposed, shape, norm, scores);
  });
}

}  // namespace secateur
