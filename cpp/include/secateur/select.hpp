// Selection: which of the numbers in several arrays go when exactly k of them must, and taking them
// out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "secateur/dtype.hpp"

namespace secateur {

// Keys, as seen from outside, are unsigned: for Order::magnitude the bits without the sign, for
// Order::value 2^(bits-1) plus (positive) or minus (negative) the bits without the sign. Both zeros
// have one key in either order.

// Three numbers say what goes, whatever the size of the model: x at (segment, position) goes iff
// (key(x), segment, position) < (key, segment, position) of the cut, in lexicographic order.
struct Cut {
  std::uint64_t key;
  std::uint64_t segment;
  std::uint64_t position;
};

// What a search found. `non_finite` names the first segment with a number that may not be ranked
// (magnitude: NaN or infinity; value: NaN); the cut means nothing then.
struct FoundCut {
  Cut cut;
  std::optional<std::size_t> non_finite;
};

// How the search goes about it; no choice changes its answer. Tests use small numbers to reach
// every path with little data.
struct FindTuning {
  // So few numbers are ranked at once, without a pass.
  std::size_t direct_limit = 8192;
  // 0: grows with the data.
  std::size_t sample_size = 0;
  // For candidates; the rest needs a few MB.
  std::size_t budget_bytes = std::size_t{44} << 20;
};

// The cut below which exactly k of all numbers lie, in order of (key, segment, position): it names
// the first number that stays. (key, 0, 0) if that number has no equal that goes. k == 0: nothing
// lies below (0, 0, 0). k == total: all lies below (key of infinity, number of segments, 0). Throws
// std::invalid_argument if k exceeds the total.
FoundCut find_cut(std::span<const Segment> segments, DType dtype, Order order, std::uint64_t k,
                  const FindTuning& tuning = {});

// x goes iff x (Order::magnitude: |x|) < threshold. Throws std::invalid_argument for NaN.
Cut cut_at(double threshold, DType dtype, Order order);

// The number that has this key. Throws std::invalid_argument if no number but NaN has it.
double cut_value(std::uint64_t key, DType dtype, Order order);

// The first segment with a NaN or an infinity.
std::optional<std::size_t> find_non_finite(std::span<const Segment> segments, DType dtype);

// What a cut did to one segment, in units of |x| or x.
struct CutStatistics {
  std::uint64_t num_removed;
  std::optional<double> largest_removed;
  std::optional<double> smallest_kept;
};

// Where the results of one segment go: both, one or none. `values` may be the segment itself.
struct CutTarget {
  void* values = nullptr;        // x where it stays, +0 where it goes
  std::uint8_t* mask = nullptr;  // 1 where it stays, 0 where it goes
};

// `targets` is empty (statistics only) or as long as `segments`. NaN is not looked for here.
std::vector<CutStatistics> apply_cut(std::span<const Segment> segments, DType dtype, Order order,
                                     const Cut& cut, std::span<const CutTarget> targets);

// out[i] = mask[i] ? values[i] : +0. `out` may be `values`.
void apply_mask(const void* values, const std::uint8_t* mask, void* out, std::size_t size,
                DType dtype);

// Sum of the 64-bit words, modulo 2^64: does nothing but read, so it is the yardstick for the rest.
std::uint64_t read_pass(const void* data, std::size_t num_bytes);

}  // namespace secateur
