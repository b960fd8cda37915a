#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "secateur/spmm.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

constexpr std::size_t kMaxChunk = 128;
constexpr std::size_t kFewChunks = 4;
constexpr std::size_t kLanes = 16;

float at(const WeightView& w, std::size_t output, std::size_t input) noexcept {
  return w.data[output * w.output_stride + input * w.input_stride];
}

// The part of a weight matrix that one segment holds.
struct Segment {
  const BlockedPlan& plan;
  const WeightView& weights;
  std::size_t first_output;
  std::size_t last_output;
  std::size_t first_input;
  std::size_t last_input;

  std::size_t num_rows() const noexcept {
    return ceil_div(last_output - first_output, plan.height);
  }

  bool is_entry(std::size_t row, std::size_t input) const noexcept {
    const std::size_t begin = first_output + row * plan.height;
    const std::size_t end = std::min(begin + plan.height, last_output);
    for (std::size_t output = begin; output < end; ++output) {
      if (at(weights, output, input) != 0) return true;
    }
    return false;
  }

  std::size_t count(std::size_t row) const noexcept {
    std::size_t found = 0;
    for (std::size_t input = first_input; input < last_input; ++input) {
      found += is_entry(row, input) ? 1 : 0;
    }
    return found;
  }
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

Segment segment_of(const BlockedPlan& plan, const WeightView& weights, std::size_t index) {
  const std::size_t output = index / plan.num_blocks() * plan.chunk;
  const std::size_t input = index % plan.num_blocks() * plan.block;
  return {plan,   weights,
          output, std::min(output + plan.chunk, plan.outputs),
          input,  std::min(input + plan.block, plan.inputs)};
}

std::size_t num_segments(const BlockedPlan& plan) noexcept {
  return plan.num_chunks() * plan.num_blocks();
}

void write_entries(const Segment& segment, std::size_t row, float*& values,
                   std::uint8_t*& indices) {
  const std::size_t begin = segment.first_output + row * segment.plan.height;
  for (std::size_t input = segment.first_input; input < segment.last_input; ++input) {
    if (!segment.is_entry(row, input)) continue;
    *indices++ = static_cast<std::uint8_t>(input - segment.first_input);
    for (std::size_t output = begin; output < begin + segment.plan.height; ++output) {
      *values++ = output < segment.last_output ? at(segment.weights, output, input) : 0.0F;
    }
  }
}

}  // namespace

BlockedPlan plan_blocked(std::size_t outputs, std::size_t inputs, std::size_t height,
                         std::size_t block) {
  if (height != 1 && height != 2 && height != 4 && height != 8) {
    throw std::invalid_argument("height must be 1, 2, 4 or 8, got " + std::to_string(height));
  }
  if (block < 16 || block > 256) {
    throw std::invalid_argument("block must be 16 to 256, got " + std::to_string(block));
  }
  // Enough chunks to share out, by size alone.
  const std::size_t chunks = std::max(kFewChunks, ceil_div(outputs, kMaxChunk));
  const std::size_t chunk = ceil_div(ceil_div(outputs, chunks), kLanes) * kLanes;
  return {outputs, inputs, height, block, std::max(kLanes, chunk)};
}

BlockedSizes measure_blocked(const BlockedPlan& plan, const WeightView& weights) {
  std::vector<BlockedSizes> sizes(num_segments(plan));
  parallel_for(sizes.size(), [&](std::size_t index) {
    const Ordered ordered(segment_of(plan, weights, index));
    sizes[index] = {ordered.entries(), ordered.rows.size(), ordered.groups().size()};
  });
  BlockedSizes total{0, 0, 0};
  for (const BlockedSizes& one : sizes) {
    total.entries += one.entries;
    total.rows += one.rows;
    total.groups += one.groups;
  }
  return total;
}

void pack_blocked(const BlockedPlan& plan, const WeightView& weights, const BlockedOut& out) {
  BlockedSegment next{0, 0, 0};
  for (std::size_t index = 0; index < num_segments(plan); ++index) {
    out.segments[index] = next;
    const Segment segment = segment_of(plan, weights, index);
    const Ordered ordered(segment);
    const std::vector<BlockedGroup> groups = ordered.groups();
    std::copy(ordered.rows.begin(), ordered.rows.end(), out.order + next.row);
    std::copy(groups.begin(), groups.end(), out.groups + next.group);
    float* values = out.values + next.entry * plan.height;
    std::uint8_t* indices = out.indices + next.entry;
    for (const std::uint16_t row : ordered.rows) write_entries(segment, row, values, indices);
    next.entry += ordered.entries();
    next.row += static_cast<std::uint32_t>(ordered.rows.size());
    next.group += static_cast<std::uint32_t>(groups.size());
  }
  out.segments[num_segments(plan)] = next;
}

std::uint64_t count_nonzeros(const WeightView& weights) {
  std::uint64_t found = 0;
  for (std::size_t output = 0; output < weights.outputs; ++output) {
    for (std::size_t input = 0; input < weights.inputs; ++input) {
      found += at(weights, output, input) != 0 ? 1 : 0;
    }
  }
  return found;
}

void pack_bitmask(const WeightView& weights, float* values, std::uint16_t* masks,
                  std::uint64_t* starts) {
  const std::size_t words = ceil_div(weights.inputs, kLanes);
  float* next = values;
  for (std::size_t output = 0; output < weights.outputs; ++output) {
    starts[output] = static_cast<std::uint64_t>(next - values);
    std::uint16_t* mask = masks + output * words;
    std::fill(mask, mask + words, std::uint16_t{0});
    for (std::size_t input = 0; input < weights.inputs; ++input) {
      const float value = at(weights, output, input);
      if (value == 0) continue;
      mask[input / kLanes] =
          static_cast<std::uint16_t>(mask[input / kLanes] | (1U << (input % kLanes)));
      *next++ = value;
    }
  }
  starts[weights.outputs] = static_cast<std::uint64_t>(next - values);
}

void pack_short_csr(const WeightView& weights, float* values, std::uint16_t* columns,
                    std::uint64_t* starts) {
  std::uint64_t next = 0;
  for (std::size_t output = 0; output < weights.outputs; ++output) {
    starts[output] = next;
    for (std::size_t input = 0; input < weights.inputs; ++input) {
      const float value = at(weights, output, input);
      if (value == 0) continue;
      values[next] = value;
      columns[next++] = static_cast<std::uint16_t>(input);
    }
  }
  starts[weights.outputs] = next;
}

}  // namespace secateur
