// Sparse times dense: y = activation(x W^T + bias) + residual, float32, x and y row-major.
//
// What bounds it. One non-zero meets a run of samples; per vector of 16 samples that is one FMA
// with one load from L1, and both run at two a cycle, so an unstructured kernel reaches at best V /
// (V + 2) of the FMA peak with V vectors of samples a pass (one load more for the value's
// broadcast, one for its index): 67 % at V = 4. Blocks of H outputs that share an input reuse the
// loaded vectors H times, and the FMA ports become the bound. Hence
//  - samples in the vector direction, 64 at a time, copied once into a transposed panel;
//  - inputs in blocks of 128, whose 32 KiB of the panel stay in L1, and which 8-bit indices reach;
//  - within a block, outputs ordered by their number of non-zeros: equal trip counts are predicted.
// An output's sum is taken in the order of its inputs, whatever the width of the vectors, the
// number of outputs side by side and the number of threads.
//
// The load ports are the bound to work on: four weights come with one load and are spread by
// shuffles, eight indices with another and are taken apart in integer registers.
//
// With few samples there is no vector of samples to fill, so the weights are the vector: a bitmask
// kernel expands 16 weights at a time in a register (fewer bytes to read than dense, the same
// arithmetic), a lookup kernel works on 16 outputs at once, and a CSR kernel gathers the inputs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace secateur {

enum class Activation : int {
  linear = 0,
  relu = 1,  // slope below zero, ceiling above
  tanh = 2,
  sigmoid = 3,
  silu = 4,
  gelu = 5,  // by erf
  gelu_tanh = 6,
  hard_sigmoid = 7,
  hard_silu = 8,
  elu = 9,  // slope is alpha
  selu = 10,
  softplus = 11,
  exponential = 12,
  softsign = 13,
};

inline constexpr int kNumActivations = 14;

// y = activation(sum + bias) + residual. Null pointers for what is not there.
struct Finish {
  const float* bias;      // per output
  const float* residual;  // of y's shape
  Activation activation;
  float slope;
  float ceiling;
};

struct Samples {
  const float* x;  // (rows, inputs)
  float* y;        // (rows, outputs)
  std::size_t rows;
};

// A matrix (outputs, inputs) to pack; strides in elements.
struct WeightView {
  const float* data;
  std::size_t outputs;
  std::size_t inputs;
  std::size_t output_stride;
  std::size_t input_stride;
};

// ---- Blocks of `height` outputs x 1 input; height 1 is unstructured ----

// A segment is one chunk of outputs in one block of inputs, all segments of a chunk in a row. Its
// entries are those of its groups; a group is `rows` block rows of `count` entries each.
struct BlockedSegment {
  std::uint64_t entry;  // first of its entries
  std::uint32_t row;    // first of its block rows in `order`
  std::uint32_t group;  // first of its groups
};

struct BlockedGroup {
  std::uint16_t count;
  std::uint16_t rows;
};

struct BlockedPlan {
  std::size_t outputs;
  std::size_t inputs;
  std::size_t height;  // 1, 2, 4 or 8
  std::size_t block;   // inputs in a block, 16 to 256
  std::size_t chunk;   // outputs in a chunk, a multiple of 16

  std::size_t num_chunks() const noexcept { return (outputs + chunk - 1) / chunk; }
  std::size_t num_blocks() const noexcept { return (inputs + block - 1) / block; }
};

// Throws std::invalid_argument unless height and block are among those above.
BlockedPlan plan_blocked(std::size_t outputs, std::size_t inputs, std::size_t height,
                         std::size_t block);

// How many elements beyond the last the kernels may read, of values and of indices.
inline constexpr std::size_t kBlockedSpare = 8;

struct BlockedSizes {
  std::uint64_t entries;
  std::uint64_t rows;
  std::uint64_t groups;
};

// A block is an entry if any of its weights is not zero. Fills segments, num_chunks * num_blocks
// + 1.
BlockedSizes measure_blocked(const BlockedPlan& plan, const WeightView& weights,
                             BlockedSegment* segments);

struct BlockedOut {
  float* values;          // entries * height + kBlockedSpare
  std::uint8_t* indices;  // entries + kBlockedSpare: input within its block
  std::uint16_t* order;   // rows: block row within its chunk
  BlockedGroup* groups;   // groups
};

// Segments as measure_blocked gave them for the same weights.
void pack_blocked(const BlockedPlan& plan, const WeightView& weights,
                  const BlockedSegment* segments, const BlockedOut& out);

struct Blocked {
  BlockedPlan plan;
  const float* values;          // kBlockedSpare more may be read than there are
  const std::uint8_t* indices;  // the same
  const std::uint16_t* order;
  const BlockedGroup* groups;
  const BlockedSegment* segments;
};

// Panels: 64 samples at a time, (features, width of the panel) each, the last one 16, 32 or 64
// wide.
std::size_t panel_floats(std::size_t rows, std::size_t features);

// Whether x and y are given in panels and not in rows, 64-byte aligned: between two products that
// follow each other nothing need be turned. y in panels takes no residual.
struct PanelUse {
  bool x;
  bool y;
};

// Bytes of the packed panels that multiply_blocked wants from its caller, unless x is given in
// such.
std::size_t blocked_scratch(const BlockedPlan& plan, std::size_t rows);

void multiply_blocked(const Blocked& weights, const Samples& samples, const PanelUse& use,
                      const Finish& finish, float* scratch);

// ---- One bit per weight, for few samples ----

// Where the non-zeros of each output start among all: starts has (outputs + 1).
void measure_rows(const WeightView& weights, std::uint64_t* starts);

// The most non-zeros that sixteen consecutive inputs of an output have.
std::size_t widest_word(const WeightView& weights);

// For n:m patterns, and others that are as even, `per_word` is the room that every sixteen inputs
// have among the values, so that where they lie is known and not counted; else 0.
struct Bitmask {
  std::size_t outputs;
  std::size_t inputs;
  std::size_t per_word;
  const float* values;          // 16 more may be read than there are
  const std::uint16_t* masks;   // (outputs, ceil(inputs / 16))
  const std::uint64_t* starts;  // (outputs + 1): first value of each output
};

void pack_bitmask(const WeightView& weights, const std::uint64_t* starts, std::size_t per_word,
                  float* values, std::uint16_t* masks);
void multiply_bitmask(const Bitmask& weights, const Samples& samples, const Finish& finish);

// ---- Sixteen outputs side by side, for very few samples ----

// Lanes are outputs. A window of 32 inputs fills two registers, in which one instruction looks up
// an input for each lane: no gather, which takes a load a lane. Step s of a window holds the s-th
// non-zero that each of the sixteen outputs has there; outputs without one are not in its mask and
// take no value. Steps lie in a row over all windows, so there is no branch within a group.
inline constexpr std::size_t kLookupWindow = 32;

struct LookupStart {
  std::uint64_t step;
  std::uint64_t value;
};

struct LookupOut {
  float* values;
  std::uint8_t* indices;   // (steps, 16): input within its window
  std::uint16_t* masks;    // (steps)
  std::uint16_t* windows;  // (steps)
};

struct Lookup {
  std::size_t outputs;
  std::size_t inputs;   // at most 65536 windows
  const float* values;  // 16 more may be read than there are
  const std::uint8_t* indices;
  const std::uint16_t* masks;
  const std::uint16_t* windows;
  const LookupStart* starts;  // (ceil(outputs / 16) + 1)
};

void measure_lookup(const WeightView& weights, LookupStart* starts);
void pack_lookup(const WeightView& weights, const LookupStart* starts, const LookupOut& out);
void multiply_lookup(const Lookup& weights, const Samples& samples, const Finish& finish);

// ---- CSR with 16-bit columns, for very few samples of very sparse weights ----

struct ShortCsr {
  std::size_t outputs;
  std::size_t inputs;  // at most 65536
  const float* values;
  const std::uint16_t* columns;
  const std::uint64_t* starts;  // (outputs + 1)
};

void pack_short_csr(const WeightView& weights, const std::uint64_t* starts, float* values,
                    std::uint16_t* columns);
void multiply_short_csr(const ShortCsr& weights, const Samples& samples, const Finish& finish);

// ---- For what NumPy's BLAS has multiplied ----

// y = activation(y + bias) + residual over (rows, outputs), in place; samples.x is not read.
void finish_rows(const Samples& samples, std::size_t outputs, const Finish& finish);

}  // namespace secateur
