#include "secateur/obs.hpp"

#include <algorithm>
#include <cmath>

#include "secateur/patterns.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

struct Span {
  const ObsBlock& block;
  std::size_t begin, end;  // rows
};

SECATEUR_INLINE void choose(const ObsBlock& block, const float* weight, std::size_t start,
                            std::uint8_t* mask) {
  const std::size_t size = std::min(block.group, block.width - start);
  float scores[kMaxGroup];
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t column = start + i;
    scores[i] = std::fabs(weight[column] / block.factor[column * block.width + column]);
  }
  for (std::size_t i = 0; i < size; ++i) {
    std::size_t above = 0;
    for (std::size_t j = 0; j < size; ++j) {
      above += scores[j] > scores[i] || (scores[j] == scores[i] && j > i);
    }
    mask[start + i] = above < block.kept;
  }
}

struct SweepBody {
  SECATEUR_INLINE static void run(const Span& span) {
    const ObsBlock& block = span.block;
    const std::size_t width = block.width;
    for (std::size_t row = span.begin; row < span.end; ++row) {
      float* __restrict weight = block.weight + row * width;
      float* __restrict errors = block.errors + row * width;
      std::uint8_t* __restrict mask = block.mask + row * width;
      for (std::size_t column = 0; column < width; ++column) {
        if (block.group != 0 && column % block.group == 0) choose(block, weight, column, mask);
        errors[column] = 0.0F;
        if (mask[column] != 0) continue;
        const float* __restrict factor = block.factor + column * width;
        const float error = weight[column] / factor[column];
        errors[column] = error;
        for (std::size_t later = column + 1; later < width; ++later) {
          weight[later] -= error * factor[later];
        }
        weight[column] = 0.0F;
      }
    }
  }
};

}  // namespace

void obs_sweep(const ObsBlock& block) {
  const auto sweep = variant<SweepBody, Span>();
  parallel_spans(block.rows, block.width * 8,
                 [&](std::size_t begin, std::size_t end) { sweep(Span{block, begin, end}); });
}

}  // namespace secateur
