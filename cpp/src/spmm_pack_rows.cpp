// Packing for the kernels of few samples: sixteen outputs at a time, in parallel, first measured
// and then written where the measure says.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "own_memory.hpp"
#include "secateur/spmm.hpp"
#include "spmm_rows_copy.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

constexpr std::size_t kGroup = 16;  // outputs
constexpr std::size_t kWord = 16;   // inputs

// Sixteen outputs (the last group may have fewer), each with its weights in a row.
struct Group {
  std::size_t first;
  std::size_t outputs;
  std::size_t inputs;
  const float* tile;

  const float* row(std::size_t output) const noexcept { return tile + output * inputs; }
};

template <class Task>
void each_group(const WeightView& weights, const Task& task) {
  parallel_for(ceil_div(weights.outputs, kGroup), [&](std::size_t group) {
    const std::size_t first = group * kGroup;
    const std::size_t outputs = std::min(kGroup, weights.outputs - first);
    float* tile = own_floats(outputs * weights.inputs);
    copy_rows({weights.data + first * weights.output_stride, outputs, weights.inputs,
               weights.output_stride, weights.input_stride},
              tile);
    task(group, Group{first, outputs, weights.inputs, tile});
  });
}

std::uint16_t word_mask(const float* row, std::size_t first, std::size_t inputs) noexcept {
  std::uint32_t mask = 0;
  const std::size_t here = std::min(kWord, inputs - first);
  for (std::size_t i = 0; i < here; ++i) mask |= (row[first + i] != 0 ? 1U : 0U) << i;
  return static_cast<std::uint16_t>(mask);
}

// A window's entries of sixteen outputs, by output.
struct Window {
  std::array<std::uint8_t, kGroup> counts{};
  std::array<std::array<std::uint8_t, kLookupWindow>, kGroup> inputs{};

  Window(const Group& group, std::size_t first) {
    const std::size_t here = std::min(kLookupWindow, group.inputs - first);
    for (std::size_t output = 0; output < group.outputs; ++output) {
      const float* row = group.row(output) + first;
      for (std::size_t i = 0; i < here; ++i) {
        if (row[i] != 0) inputs[output][counts[output]++] = static_cast<std::uint8_t>(i);
      }
    }
  }

  std::size_t steps() const noexcept { return *std::max_element(counts.begin(), counts.end()); }

  std::size_t entries() const noexcept {
    std::size_t found = 0;
    for (const std::uint8_t count : counts) found += count;
    return found;
  }
};

void pack_window(const Group& group, std::size_t first, const LookupOut& out, LookupStart& at) {
  const Window window(group, first);
  const std::size_t steps = window.steps();
  for (std::size_t step = 0; step < steps; ++step, ++at.step) {
    std::uint32_t mask = 0;
    for (std::size_t output = 0; output < kGroup; ++output) {
      const bool here = step < window.counts[output];
      const std::uint8_t input = here ? window.inputs[output][step] : std::uint8_t{0};
      out.indices[at.step * kGroup + output] = input;
      if (!here) continue;
      mask |= 1U << output;
      out.values[at.value++] = group.row(output)[first + input];
    }
    out.masks[at.step] = static_cast<std::uint16_t>(mask);
    out.windows[at.step] = static_cast<std::uint16_t>(first / kLookupWindow);
  }
}

}  // namespace

void measure_rows(const WeightView& weights, std::uint64_t* starts) {
  each_group(weights, [&](std::size_t, const Group& group) {
    for (std::size_t output = 0; output < group.outputs; ++output) {
      const float* row = group.row(output);
      std::uint64_t found = 0;
      for (std::size_t input = 0; input < group.inputs; ++input) found += row[input] != 0 ? 1 : 0;
      starts[group.first + output + 1] = found;
    }
  });
  starts[0] = 0;
  for (std::size_t output = 0; output < weights.outputs; ++output) {
    starts[output + 1] += starts[output];
  }
}

std::size_t widest_word(const WeightView& weights) {
  std::vector<std::size_t> widest(ceil_div(weights.outputs, kGroup), 0);
  each_group(weights, [&](std::size_t index, const Group& group) {
    for (std::size_t output = 0; output < group.outputs; ++output) {
      for (std::size_t input = 0; input < group.inputs; input += kWord) {
        const std::uint16_t mask = word_mask(group.row(output), input, group.inputs);
        widest[index] = std::max(widest[index], static_cast<std::size_t>(std::popcount(mask)));
      }
    }
  });
  return widest.empty() ? 0 : *std::max_element(widest.begin(), widest.end());
}

void pack_bitmask(const WeightView& weights, const std::uint64_t* starts, std::size_t per_word,
                  float* values, std::uint16_t* masks) {
  const std::size_t words = ceil_div(weights.inputs, kWord);
  each_group(weights, [&](std::size_t, const Group& group) {
    for (std::size_t n = 0; n < group.outputs; ++n) {
      const std::size_t output = group.first + n;
      const float* row = group.row(n);
      float* next = values + starts[output];
      for (std::size_t word = 0; word < words; ++word) {
        const std::uint16_t mask = word_mask(row, word * kWord, weights.inputs);
        masks[output * words + word] = mask;
        float* to = next;
        for (std::uint32_t bits = mask; bits != 0; bits &= bits - 1) {
          *to++ = row[word * kWord + static_cast<std::size_t>(std::countr_zero(bits))];
        }
        if (per_word > 0) std::fill(to, next + per_word, 0.0F);
        next = per_word > 0 ? next + per_word : to;
      }
    }
  });
}

void pack_short_csr(const WeightView& weights, const std::uint64_t* starts, float* values,
                    std::uint16_t* columns) {
  each_group(weights, [&](std::size_t, const Group& group) {
    for (std::size_t n = 0; n < group.outputs; ++n) {
      const float* row = group.row(n);
      std::uint64_t next = starts[group.first + n];
      for (std::size_t input = 0; input < group.inputs; ++input) {
        if (row[input] == 0) continue;
        values[next] = row[input];
        columns[next++] = static_cast<std::uint16_t>(input);
      }
    }
  });
}

void measure_lookup(const WeightView& weights, LookupStart* starts) {
  each_group(weights, [&](std::size_t index, const Group& group) {
    LookupStart own{0, 0};
    for (std::size_t first = 0; first < group.inputs; first += kLookupWindow) {
      const Window window(group, first);
      own.step += window.steps();
      own.value += window.entries();
    }
    starts[index + 1] = own;
  });
  starts[0] = {0, 0};
  for (std::size_t group = 0; group < ceil_div(weights.outputs, kGroup); ++group) {
    starts[group + 1].step += starts[group].step;
    starts[group + 1].value += starts[group].value;
  }
}

void pack_lookup(const WeightView& weights, const LookupStart* starts, const LookupOut& out) {
  each_group(weights, [&](std::size_t index, const Group& group) {
    LookupStart at = starts[index];
    for (std::size_t first = 0; first < group.inputs; first += kLookupWindow) {
      pack_window(group, first, out, at);
    }
  });
}

}  // namespace secateur
