// How the outputs of a product are shared out where samples are few.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "spmm_vector.hpp"
#include "variants.hpp"

namespace secateur {

// Outputs per task: about 64 Ki weights or 256 KiB of values to read, in whole vectors of outputs.
inline std::size_t outputs_per_task(std::size_t outputs, std::uint64_t work) {
  constexpr std::uint64_t kTask = std::uint64_t{1} << 14;
  const std::uint64_t each = std::max<std::uint64_t>(1, work / std::max<std::size_t>(1, outputs));
  return ceil_div(std::max<std::size_t>(1, kTask / each), kLanes) * kLanes;
}

struct FinishArgs {
  const Samples* samples;
  const Finish* finish;
  std::size_t outputs;  // of y
  std::size_t first_row;
  std::size_t last_row;
  std::size_t first_output;
  std::size_t last_output;
};

// Finishes the sums that stand in a part of y. Apart from the kernels, so that every activation is
// compiled once per instruction set and not once per shape of the sums.
void finish_block(const FinishArgs& args);

}  // namespace secateur
