#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "secateur/spmm.hpp"
#include "secateur/threads.hpp"
#include "spmm_vector.hpp"
#include "variants.hpp"

#if SECATEUR_X86
#include <immintrin.h>
#endif

namespace secateur {
namespace {

constexpr std::size_t kPanel = 64;  // samples in a panel: four vectors
constexpr std::size_t kAlignment = 64;
// From this many panels on a task takes a whole panel, and keeps its packed samples in its own
// cache; with fewer, they are packed for all, and the outputs are shared out.
constexpr std::size_t kManyPanels = 8;
constexpr std::size_t kMaxChunk = 128;

float* aligned(float* pointer) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  const std::uintptr_t rest = address % kAlignment;
  const std::size_t skipped = rest == 0 ? 0 : (kAlignment - rest) / sizeof(float);
  return pointer + skipped;
}

// Grown once per thread and then kept: engines that have run once allocate nothing.
float* own_panel(std::size_t floats) {
  thread_local std::vector<float> memory;
  if (memory.size() < floats + kAlignment) memory.resize(floats + kAlignment);
  return aligned(memory.data());
}

// ---- Samples into panels: (rows, inputs) -> (inputs, width), zeros beyond the last sample ----

struct PackArgs {
  const float* x;  // first sample of the panel
  std::size_t inputs;
  std::size_t rows;   // samples in the panel
  std::size_t width;  // rows, rounded up to whole vectors
  std::size_t begin;  // inputs to pack
  std::size_t end;
  float* panel;
};

struct PackPanel {
  static SECATEUR_INLINE void run(const PackArgs& args) {
    for (std::size_t row = 0; row < args.width; row += kLanes) {
      const std::size_t here = args.rows > row ? std::min(kLanes, args.rows - row) : 0;
      std::size_t k = args.begin;
      for (; k + kLanes <= args.end; k += kLanes) {
        Floats square[kLanes];
        for (std::size_t i = 0; i < kLanes; ++i) {
          if (i < here) {
            load(square[i], args.x + (row + i) * args.inputs + k);
          } else {
            square[i] = Floats{};
          }
        }
        transpose_lanes(square);
        for (std::size_t i = 0; i < kLanes; ++i) {
          store(args.panel + (k + i) * args.width + row, square[i]);
        }
      }
      for (; k < args.end; ++k) {
        float* to = args.panel + k * args.width + row;
        for (std::size_t i = 0; i < here; ++i) to[i] = args.x[(row + i) * args.inputs + k];
        std::fill(to + here, to + kLanes, 0.0F);
      }
    }
  }
};

// ---- One chunk of outputs for one panel ----

struct ChunkArgs {
  const Blocked* weights;
  const Finish* finish;
  const float* panel;
  std::size_t width;
  std::size_t chunk;
  std::size_t first_row;  // of the panel
  std::size_t rows;
  float* y;
  float* sums;  // (outputs of the chunk in whole vectors, width)

  std::size_t first_output() const noexcept { return chunk * weights->plan.chunk; }
  std::size_t num_outputs() const noexcept {
    return std::min(weights->plan.chunk, weights->plan.outputs - first_output());
  }
};

// Accumulators in registers, in units of 16 floats: AVX-512 has 32 registers of one, AVX2 16 of a
// half, and both want eight chains of FMAs under way.
struct Plain {
  static constexpr std::size_t kUnits = 4;
  static constexpr std::size_t kChains = 4;

  static SECATEUR_INLINE void spread(const float* value, Floats& to) { to = *value + Floats{}; }
};

#if SECATEUR_X86
// By hand: the compiler's own way from a float to a vector of its vector type is a lane at a time.
struct Wide {
  static constexpr std::size_t kUnits = 16;
  static constexpr std::size_t kChains = 8;

  static SECATEUR_TARGET_FMA512 inline void spread(const float* value, Floats& to) {
    const __m512 all = _mm512_set1_ps(*value);
    std::memcpy(&to, &all, sizeof(to));
  }
};

struct Narrow {
  static constexpr std::size_t kUnits = 4;
  static constexpr std::size_t kChains = 4;

  static SECATEUR_TARGET_FMA256 inline void spread(const float* value, Floats& to) {
    const __m256 half = _mm256_broadcast_ss(value);
    std::memcpy(&to, &half, sizeof(half));
    std::memcpy(reinterpret_cast<char*>(&to) + sizeof(half), &half, sizeof(half));
  }
};
#endif

struct Cursor {
  const float* values;
  const std::uint8_t* indices;
  const std::uint16_t* order;
};

// `Side` block rows of `count` entries each, for `Vectors` vectors of samples.
template <class Level, std::size_t Height, std::size_t Vectors, std::size_t Side>
SECATEUR_INLINE void add_rows(const Cursor& at, std::size_t count, const float* x, float* sums,
                              std::size_t width) {
  Floats acc[Side][Height][Vectors];
#pragma GCC unroll 16
  for (std::size_t s = 0; s < Side; ++s) {
#pragma GCC unroll 16
    for (std::size_t h = 0; h < Height; ++h) {
#pragma GCC unroll 16
      for (std::size_t v = 0; v < Vectors; ++v) {
        load(acc[s][h][v], sums + (at.order[s] * Height + h) * width + v * kLanes);
      }
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
#pragma GCC unroll 16
    for (std::size_t s = 0; s < Side; ++s) {
      const std::size_t entry = s * count + i;
      const float* from = x + at.indices[entry] * width;
      Floats samples[Vectors];
#pragma GCC unroll 16
      for (std::size_t v = 0; v < Vectors; ++v) load(samples[v], from + v * kLanes);
#pragma GCC unroll 16
      for (std::size_t h = 0; h < Height; ++h) {
        Floats weight;
        Level::spread(at.values + entry * Height + h, weight);
#pragma GCC unroll 16
        for (std::size_t v = 0; v < Vectors; ++v) acc[s][h][v] += weight * samples[v];
      }
    }
  }
#pragma GCC unroll 16
  for (std::size_t s = 0; s < Side; ++s) {
#pragma GCC unroll 16
    for (std::size_t h = 0; h < Height; ++h) {
#pragma GCC unroll 16
      for (std::size_t v = 0; v < Vectors; ++v) {
        store(sums + (at.order[s] * Height + h) * width + v * kLanes, acc[s][h][v]);
      }
    }
  }
}

template <class Level, std::size_t Height, std::size_t Vectors, std::size_t Side>
SECATEUR_INLINE void add_group(Cursor& at, const BlockedGroup& group, std::size_t rows,
                               const float* x, float* sums, std::size_t width) {
  for (; rows >= Side; rows -= Side) {
    add_rows<Level, Height, Vectors, Side>(at, group.count, x, sums, width);
    at.values += Side * group.count * Height;
    at.indices += Side * group.count;
    at.order += Side;
  }
  if constexpr (Side > 1) {
    if (rows > 0) add_group<Level, Height, Vectors, Side / 2>(at, group, rows, x, sums, width);
  }
}

// Vectors a pass can hold, halved until they fit.
constexpr std::size_t pass_vectors(std::size_t vectors, std::size_t height, std::size_t units) {
  while (vectors > 1 && vectors * height > units) vectors /= 2;
  return vectors;
}

template <class Level, std::size_t Height, std::size_t Vectors>
SECATEUR_INLINE void add_segment(const ChunkArgs& args, const BlockedSegment& segment,
                                 const BlockedSegment& next, const float* x, float* sums) {
  constexpr std::size_t kWidth = Vectors * kLanes;
  constexpr std::size_t kPass = pass_vectors(Vectors, Height, Level::kUnits);
  constexpr std::size_t kSide = std::max<std::size_t>(1, Level::kChains / (Height * kPass));
  const Blocked& w = *args.weights;
  for (std::size_t v = 0; v < Vectors; v += kPass) {
    Cursor at{w.values + segment.entry * Height, w.indices + segment.entry, w.order + segment.row};
    for (std::size_t g = segment.group; g < next.group; ++g) {
      const BlockedGroup group = w.groups[g];
      add_group<Level, Height, kPass, kSide>(at, group, group.rows, x + v * kLanes,
                                             sums + v * kLanes, kWidth);
    }
  }
}

// Apart from the sums, so that every activation is compiled once per instruction set and not once
// per shape of the sums.
struct WriteOutputs {
  static SECATEUR_INLINE void run(const ChunkArgs& args) {
    const std::size_t all = args.weights->plan.outputs;
    const std::size_t first = args.first_output();
    const std::size_t outputs = args.num_outputs();
    for (std::size_t n = 0; n < outputs; n += kLanes) {
      const std::size_t here = std::min(kLanes, outputs - n);
      for (std::size_t row = 0; row < args.rows; row += kLanes) {
        Floats square[kLanes];
        for (std::size_t i = 0; i < kLanes; ++i) {
          load(square[i], args.sums + (n + i) * args.width + row);
        }
        transpose_lanes(square);
        const std::size_t samples = std::min(kLanes, args.rows - row);
        for (std::size_t i = 0; i < samples; ++i) {
          const std::size_t offset = (args.first_row + row + i) * all + first + n;
          finish_some(square[i], *args.finish, first + n, offset, here, args.y);
        }
      }
    }
  }
};

template <class Level, std::size_t Height, std::size_t Vectors>
SECATEUR_INLINE void multiply_chunk(const ChunkArgs& args) {
  const BlockedPlan& plan = args.weights->plan;
  const BlockedSegment* segment = args.weights->segments + args.chunk * plan.num_blocks();
  for (std::size_t block = 0; block < plan.num_blocks(); ++block, ++segment) {
    add_segment<Level, Height, Vectors>(args, segment[0], segment[1],
                                        args.panel + block * plan.block * args.width, args.sums);
  }
}

template <class Level, std::size_t Height>
struct MultiplyChunk {
  static SECATEUR_INLINE void run(const ChunkArgs& args) {
    switch (args.width / kLanes) {
      case 1:
        return multiply_chunk<Level, Height, 1>(args);
      case 2:
        return multiply_chunk<Level, Height, 2>(args);
      default:
        return multiply_chunk<Level, Height, 4>(args);
    }
  }
};

template <std::size_t Height>
auto chunk_kernel() {
#if SECATEUR_X86
  return pick(&run_plain<MultiplyChunk<Plain, Height>, ChunkArgs>,
              &run_fma256<MultiplyChunk<Narrow, Height>, ChunkArgs>,
              &run_fma512<MultiplyChunk<Wide, Height>, ChunkArgs>);
#else
  return &run_plain<MultiplyChunk<Plain, Height>, ChunkArgs>;
#endif
}

auto kernel_for(std::size_t height) {
  switch (height) {
    case 2:
      return chunk_kernel<2>();
    case 4:
      return chunk_kernel<4>();
    case 8:
      return chunk_kernel<8>();
    default:
      return chunk_kernel<1>();
  }
}

// 16, 32 or 64: samples beyond the last are zeros.
std::size_t panel_width(std::size_t rows) noexcept {
  return rows <= kLanes ? kLanes : rows <= 2 * kLanes ? 2 * kLanes : kPanel;
}

struct Panels {
  const Samples& samples;
  std::size_t inputs;

  std::size_t count() const noexcept { return ceil_div(samples.rows, kPanel); }
  std::size_t rows(std::size_t panel) const noexcept {
    return std::min(kPanel, samples.rows - panel * kPanel);
  }
  std::size_t width(std::size_t panel) const noexcept { return panel_width(rows(panel)); }
  PackArgs pack(std::size_t panel, std::size_t begin, std::size_t end, float* to) const noexcept {
    return {samples.x + panel * kPanel * inputs, inputs, rows(panel), width(panel), begin, end, to};
  }
};

}  // namespace

std::size_t blocked_scratch(const BlockedPlan& plan, std::size_t rows) {
  const std::size_t panels = ceil_div(rows, kPanel);
  if (panels >= kManyPanels) return 0;
  return (panels * kPanel * plan.inputs) * sizeof(float) + kAlignment;
}

void multiply_blocked(const Blocked& weights, const Samples& samples, const Finish& finish,
                      float* scratch) {
  const Panels panels{samples, weights.plan.inputs};
  const auto multiply = kernel_for(weights.plan.height);
  const auto write = fma_variant<WriteOutputs, ChunkArgs>();
  const auto pack = fma_variant<PackPanel, PackArgs>();
  const std::size_t chunks = weights.plan.num_chunks();
  const std::size_t inputs = weights.plan.inputs;
  const auto one = [&](std::size_t panel, std::size_t chunk, const float* packed) {
    alignas(kAlignment) float sums[kMaxChunk * kPanel];
    const ChunkArgs args{
        &weights,           &finish,   packed, panels.width(panel), chunk, panel * kPanel,
        panels.rows(panel), samples.y, sums};
    std::fill(sums, sums + ceil_div(args.num_outputs(), kLanes) * kLanes * args.width, 0.0F);
    multiply(args);
    write(args);
  };
  if (panels.count() >= kManyPanels) {
    parallel_for(panels.count(), [&](std::size_t panel) {
      float* packed = own_panel(kPanel * inputs);
      pack(panels.pack(panel, 0, inputs, packed));
      for (std::size_t chunk = 0; chunk < chunks; ++chunk) one(panel, chunk, packed);
    });
    return;
  }
  float* packed = aligned(scratch);
  // A quarter of a millisecond's work is worth handing out; less is packed right here.
  constexpr std::size_t kPackTask = std::size_t{1} << 16;
  const std::size_t step = std::max(kLanes, kPackTask / kPanel);
  const std::size_t pieces = ceil_div(inputs, step);
  parallel_for(panels.count() * pieces, [&](std::size_t task) {
    const std::size_t panel = task / pieces;
    const std::size_t begin = task % pieces * step;
    pack(panels.pack(panel, begin, std::min(inputs, begin + step),
                     packed + panel * kPanel * inputs));
  });
  parallel_for(panels.count() * chunks, [&](std::size_t task) {
    const std::size_t panel = task % panels.count();
    one(panel, task / panels.count(), packed + panel * kPanel * inputs);
  });
}

}  // namespace secateur
