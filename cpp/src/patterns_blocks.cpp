#include <bit>
#include <cstring>
#include <limits>

#include "secateur/patterns.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

// Of the block mask: lines long enough to be fetched ahead, and a tile that stays in the L2 cache.
constexpr std::size_t kTile = 256;

// A band is a row of blocks as the matrix lies in memory, given as bytes that are 0 or 1.
struct Band {
  const std::uint8_t* blocks;
  std::size_t block_inner;
  std::size_t size;  // elements to write, the last block may be cut short
  std::uint8_t* out;
};

struct RepeatBytes {
  static SECATEUR_INLINE int run(const Band& band) {
    switch (band.block_inner) {
      case 1:
        std::memcpy(band.out, band.blocks, band.size);
        return 0;
      case 2:
        return words<std::uint16_t>(band, 1);
      case 4:
        return words<std::uint32_t>(band, 1);
      case 8:
        return words<std::uint64_t>(band, 1);
      case 16:
        return words<std::uint64_t>(band, 2);
      default:
        return fills(band, 0);
    }
  }

  // Blocks of whole words: a byte times 0x0101... is that byte in every place.
  template <class Word>
  static SECATEUR_INLINE int words(const Band& band, std::size_t per_block) {
    constexpr Word kOnes = std::numeric_limits<Word>::max() / 0xff;
    const std::size_t whole = band.size / band.block_inner;
    for (std::size_t i = 0; i < whole; ++i) {
      const Word word = static_cast<Word>(band.blocks[i] * kOnes);
      for (std::size_t w = 0; w < per_block; ++w) {
        std::memcpy(band.out + (i * per_block + w) * sizeof(Word), &word, sizeof(Word));
      }
    }
    return fills(band, whole);
  }

  static SECATEUR_INLINE int fills(const Band& band, std::size_t first) {
    for (std::size_t start = first * band.block_inner; start < band.size;
         start += band.block_inner) {
      std::memset(band.out + start, band.blocks[start / band.block_inner],
                  std::min(band.block_inner, band.size - start));
    }
    return 0;
  }
};

// Transposes 8 x 8 bytes in eight words: 4 x 4, 2 x 2 and single bytes change places in turn.
void transpose_words(std::uint64_t* words) {
  constexpr std::uint64_t kMasks[] = {0x00000000ffffffffU, 0x0000ffff0000ffffU,
                                      0x00ff00ff00ff00ffU};
  for (int step = 0; step < 3; ++step) {
    const int half = 4 >> step;
    for (int i = 0; i < 8; ++i) {
      if ((i & half) != 0) continue;
      const std::uint64_t moved = ((words[i] >> (8 * half)) ^ words[i + half]) & kMasks[step];
      words[i] ^= moved << (8 * half);
      words[i + half] ^= moved;
    }
  }
}

void transpose_square(const std::uint8_t* from, std::size_t from_stride, std::uint8_t* to) {
  std::uint64_t words[8];
  for (std::size_t j = 0; j < 8; ++j) std::memcpy(words + j, from + j * from_stride, 8);
  transpose_words(words);
  for (std::size_t i = 0; i < 8; ++i) std::memcpy(to + i * kTile, words + i, 8);
}

// tile[i][j] = blocks[j * stride + i]: bands of a transposed matrix are columns of the block mask.
// Byte by byte this took half of the time of a whole expansion.
void transpose_tile(const std::uint8_t* blocks, std::size_t stride, std::size_t bands,
                    std::size_t size, std::uint8_t (*tile)[kTile]) {
  const std::size_t whole_bands = std::endian::native == std::endian::little ? bands / 8 * 8 : 0;
  const std::size_t whole_size = size / 8 * 8;
  for (std::size_t j = 0; j < whole_size; j += 8) {
    const std::uint8_t* row = blocks + j * stride;
    for (std::size_t i = 0; i < whole_bands; i += 8) transpose_square(row + i, stride, &tile[i][j]);
  }
  for (std::size_t j = 0; j < size; ++j) {
    const std::size_t first = j < whole_size ? whole_bands : 0;
    for (std::size_t i = first; i < bands; ++i) tile[i][j] = blocks[j * stride + i];
  }
}

struct Expansion {
  const std::uint8_t* blocks;
  const BlockGrid& grid;
  std::uint8_t* mask;
  int (*repeat)(const Band&);

  // Writes `size` elements of all rows of one band; the first row is built, the others are copies.
  void write(const std::uint8_t* band_blocks, std::size_t band, std::size_t first,
             std::size_t size) const {
    const std::size_t row = band * grid.block_outer;
    const std::size_t rows = std::min(grid.block_outer, grid.outer - row);
    std::uint8_t* out = mask + row * grid.inner + first;
    repeat({band_blocks, grid.block_inner, size, out});
    for (std::size_t r = 1; r < rows; ++r) std::memcpy(out + r * grid.inner, out, size);
  }
};

void expand(const Expansion& expansion) {
  const BlockGrid& grid = expansion.grid;
  const std::size_t bands = ceil_div(grid.outer, grid.block_outer);
  const std::size_t blocks = ceil_div(grid.inner, grid.block_inner);
  const std::size_t step = std::max<std::size_t>(1, 4096 / grid.block_inner);
  const std::size_t steps = ceil_div(blocks, step);
  parallel_spans(bands * steps, grid.block_outer * std::min(grid.inner, step * grid.block_inner),
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t item = begin; item < end; ++item) {
                     const std::size_t band = item / steps;
                     const std::size_t block = item % steps * step;
                     const std::size_t first = block * grid.block_inner;
                     expansion.write(expansion.blocks + band * blocks + block, band, first,
                                     std::min(grid.inner - first, step * grid.block_inner));
                   }
                 });
}

void expand_transposed(const Expansion& expansion) {
  const BlockGrid& grid = expansion.grid;
  const std::size_t bands = ceil_div(grid.outer, grid.block_outer);
  const std::size_t blocks = ceil_div(grid.inner, grid.block_inner);
  const std::size_t steps = ceil_div(blocks, kTile);
  const std::size_t tile_elements = std::min(grid.outer, kTile * grid.block_outer) *
                                    std::min(grid.inner, kTile * grid.block_inner);
  parallel_spans(
      ceil_div(bands, kTile) * steps, tile_elements, [&](std::size_t begin, std::size_t end) {
        std::uint8_t tile[kTile][kTile];
        for (std::size_t item = begin; item < end; ++item) {
          const std::size_t band = item / steps * kTile;
          const std::size_t block = item % steps * kTile;
          const std::size_t num_bands = std::min(kTile, bands - band);
          transpose_tile(expansion.blocks + block * bands + band, bands, num_bands,
                         std::min(kTile, blocks - block), tile);
          const std::size_t first = block * grid.block_inner;
          const std::size_t size = std::min(grid.inner - first, kTile * grid.block_inner);
          for (std::size_t i = 0; i < num_bands; ++i) {
            expansion.write(tile[i], band + i, first, size);
          }
        }
      });
}

}  // namespace

void expand_blocks(const std::uint8_t* blocks, bool transposed, const BlockGrid& grid,
                   std::uint8_t* mask) {
  if (grid.outer == 0 || grid.inner == 0) return;
  // No block is larger than the matrix, so that products of extents stay in range.
  const BlockGrid clamped{grid.outer, grid.inner, std::min(grid.block_outer, grid.outer),
                          std::min(grid.block_inner, grid.inner)};
  const Expansion expansion{blocks, clamped, mask, variant<RepeatBytes, Band>()};
  if (transposed) {
    expand_transposed(expansion);
  } else {
    expand(expansion);
  }
}

}  // namespace secateur
