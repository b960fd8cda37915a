#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "own_memory.hpp"
#include "secateur/spmm.hpp"
#include "spmm_rows_copy.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

constexpr std::size_t kMaxChunk = 128;
constexpr std::size_t kFewChunks = 4;
constexpr std::size_t kLanes = 16;

// The part of a weight matrix that one segment holds, copied so that an output's weights lie in a
// row: read where they are, those of a Keras kernel are a cache line apart.
class Segment {
 public:
  Segment(const BlockedPlan& plan, const WeightView& weights, std::size_t index)
      : height_(plan.height),
        first_output_(index / plan.num_blocks() * plan.chunk),
        first_input_(index % plan.num_blocks() * plan.block),
        outputs_(std::min(plan.chunk, plan.outputs - first_output_)),
        inputs_(std::min(plan.block, plan.inputs - first_input_)),
        tile_(own_floats(num_rows() * height_ * inputs_)) {
    copy_rows(
        {weights.data + first_output_ * weights.output_stride + first_input_ * weights.input_stride,
         outputs_, inputs_, weights.output_stride, weights.input_stride},
        tile_);
    std::fill(tile_ + outputs_ * inputs_, tile_ + num_rows() * height_ * inputs_, 0.0F);
  }

  std::size_t num_rows() const noexcept { return ceil_div(outputs_, height_); }

  std::size_t count(std::size_t row) const noexcept {
    std::size_t found = 0;
    for (std::size_t input = 0; input < inputs_; ++input) found += is_entry(row, input) ? 1 : 0;
    return found;
  }

  void write(std::size_t row, float*& values, std::uint8_t*& indices) const noexcept {
    const float* own = tile_ + row * height_ * inputs_;
    for (std::size_t input = 0; input < inputs_; ++input) {
      if (!is_entry(row, input)) continue;
      *indices++ = static_cast<std::uint8_t>(input);
      for (std::size_t h = 0; h < height_; ++h) *values++ = own[h * inputs_ + input];
    }
  }

 private:
  bool is_entry(std::size_t row, std::size_t input) const noexcept {
    const float* own = tile_ + row * height_ * inputs_ + input;
    bool found = false;
    for (std::size_t h = 0; h < height_; ++h) found |= own[h * inputs_] != 0;
    return found;
  }

  std::size_t height_;
  std::size_t first_output_;
  std::size_t first_input_;
  std::size_t outputs_;
  std::size_t inputs_;
  float* tile_;
};

// A segment's block rows with entries, fewest entries first.
struct Ordered {
  std::vector<std::uint16_t> rows;
  std::vector<std::uint16_t> counts;  // by block row

  explicit Ordered(const Segment& segment) : counts(segment.num_rows()) {
    for (std::size_t row = 0; row < counts.size(); ++row) {
      counts[row] = static_cast<std::uint16_t>(segment.count(row));
      if (counts[row] > 0) rows.push_back(static_cast<std::uint16_t>(row));
    }
    std::sort(rows.begin(), rows.end(), [this](std::uint16_t a, std::uint16_t b) {
      return counts[a] != counts[b] ? counts[a] < counts[b] : a < b;
    });
  }

  std::size_t entries() const noexcept {
    return std::accumulate(counts.begin(), counts.end(), std::size_t{0});
  }

  std::vector<BlockedGroup> groups() const {
    std::vector<BlockedGroup> found;
    for (const std::uint16_t row : rows) {
      if (found.empty() || found.back().count != counts[row]) found.push_back({counts[row], 0});
      ++found.back().rows;
    }
    return found;
  }
};

std::size_t num_segments(const BlockedPlan& plan) noexcept {
  return plan.num_chunks() * plan.num_blocks();
}

}  // namespace

BlockedPlan plan_blocked(std::size_t outputs, std::size_t inputs, std::size_t height,
                         std::size_t block) {
  if (height != 1 && height != 4 && height != 8) {
    throw std::invalid_argument("height must be 1, 4 or 8, got " + std::to_string(height));
  }
  if (block < 16 || block > 256) {
    throw std::invalid_argument("block must be 16 to 256, got " + std::to_string(block));
  }
  // Enough chunks to share out, by size alone.
  const std::size_t chunks = std::max(kFewChunks, ceil_div(outputs, kMaxChunk));
  const std::size_t chunk = ceil_div(ceil_div(outputs, chunks), kLanes) * kLanes;
  return {outputs, inputs, height, block, std::max(kLanes, chunk)};
}

BlockedSizes measure_blocked(const BlockedPlan& plan, const WeightView& weights,
                             BlockedSegment* segments) {
  const std::size_t count = num_segments(plan);
  parallel_for(count, [&](std::size_t index) {
    const Ordered ordered(Segment(plan, weights, index));
    segments[index] = {ordered.entries(), static_cast<std::uint32_t>(ordered.rows.size()),
                       static_cast<std::uint32_t>(ordered.groups().size())};
  });
  BlockedSegment next{0, 0, 0};
  for (std::size_t index = 0; index < count; ++index) {
    const BlockedSegment own = segments[index];
    segments[index] = next;
    next = {next.entry + own.entry, next.row + own.row, next.group + own.group};
  }
  segments[count] = next;
  return {next.entry, next.row, next.group};
}

void pack_blocked(const BlockedPlan& plan, const WeightView& weights,
                  const BlockedSegment* segments, const BlockedOut& out) {
  parallel_for(num_segments(plan), [&](std::size_t index) {
    const BlockedSegment start = segments[index];
    const Segment segment(plan, weights, index);
    const Ordered ordered(segment);
    const std::vector<BlockedGroup> groups = ordered.groups();
    std::copy(ordered.rows.begin(), ordered.rows.end(), out.order + start.row);
    std::copy(groups.begin(), groups.end(), out.groups + start.group);
    float* values = out.values + start.entry * plan.height;
    std::uint8_t* indices = out.indices + start.entry;
    for (const std::uint16_t row : ordered.rows) segment.write(row, values, indices);
  });
}

}  // namespace secateur
