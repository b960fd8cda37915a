#include <algorithm>
#include <bit>
#include <cstdint>

#include "own_memory.hpp"
#include "secateur/spmm.hpp"
#include "secateur/threads.hpp"
#include "spmm_vector.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

constexpr std::size_t kPanel = 64;  // samples in a panel: four vectors
// From this many panels on a task takes a whole panel, and keeps its packed samples in its own
// cache; with fewer, they are packed for all, and the outputs are shared out.
constexpr std::size_t kManyPanels = 8;
constexpr std::size_t kMaxChunk = 128;
constexpr std::size_t kWord = 8;  // indices in a word
static_assert(std::endian::native == std::endian::little, "words of indices are taken apart");

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

// How a weight becomes a vector. Four at a time: taken with one load and spread by shuffles, they
// leave the load ports, which bound the kernel, to the samples.
//
// Accumulators are counted in units of 16 floats: AVX-512 has 32 registers of one, AVX2 16 of a
// half.
struct Plain {
  static constexpr std::size_t kUnits = 4;

  struct Four {
    const float* from;
  };

  static SECATEUR_INLINE void take(const float* from, Four& to) { to.from = from; }

  static SECATEUR_INLINE void spread(const Four& four, std::size_t which, Floats& to) {
    SpreadPlain::one(four.from + which, to);
  }
};

#if SECATEUR_X86
struct Wide {
  static constexpr std::size_t kUnits = 16;

  struct Four {
    Floats lanes;
  };

  static SECATEUR_TARGET_FMA512 inline void take(const float* from, Four& to) {
    const __m512 all = _mm512_broadcast_f32x4(_mm_loadu_ps(from));
    std::memcpy(&to.lanes, &all, sizeof(all));
  }

  // `which` is known where this is inlined, so one shuffle is left of it.
  static SECATEUR_TARGET_FMA512 inline void spread(const Four& four, std::size_t which,
                                                   Floats& to) {
    __m512 all;
    std::memcpy(&all, &four.lanes, sizeof(all));
    switch (which) {
      case 0:
        all = _mm512_permute_ps(all, 0x00);
        break;
      case 1:
        all = _mm512_permute_ps(all, 0x55);
        break;
      case 2:
        all = _mm512_permute_ps(all, 0xAA);
        break;
      default:
        all = _mm512_permute_ps(all, 0xFF);
    }
    std::memcpy(&to, &all, sizeof(to));
  }
};

struct Narrow {
  static constexpr std::size_t kUnits = 4;

  using Four = Plain::Four;

  static SECATEUR_INLINE void take(const float* from, Four& to) { to.from = from; }

  static SECATEUR_TARGET_FMA256 inline void spread(const Four& four, std::size_t which,
                                                   Floats& to) {
    Spread256::one(four.from + which, to);
  }
};
#endif

struct Cursor {
  const float* values;
  const std::uint8_t* indices;
  const std::uint16_t* order;
};

// `Count` entries of one block row. Their indices come with one load and are taken apart in integer
// registers: a load each would cost a sixth of the kernel's speed.
template <class Level, std::size_t Height, std::size_t Vectors, std::size_t Width,
          std::size_t Count>
SECATEUR_INLINE void add_entries(const Cursor& at, const float* x, Floats (&acc)[Height][Vectors]) {
  std::uint64_t word;
  std::memcpy(&word, at.indices, sizeof(word));
  typename Level::Four four;
  SECATEUR_UNROLL(8)
  for (std::size_t i = 0; i < Count; ++i) {
    const float* from = x + (word & 0xFFU) * Width;
    word >>= 8U;
    Floats samples[Vectors];
    SECATEUR_UNROLL(4)
    for (std::size_t v = 0; v < Vectors; ++v) load(samples[v], from + v * kLanes);
    SECATEUR_UNROLL(8)
    for (std::size_t h = 0; h < Height; ++h) {
      const std::size_t which = (i * Height + h) % 4;
      if (which == 0) Level::take(at.values + i * Height + h, four);
      Floats weight;
      Level::spread(four, which, weight);
      SECATEUR_UNROLL(4)
      for (std::size_t v = 0; v < Vectors; ++v) acc[h][v] += weight * samples[v];
    }
  }
}

// Block rows of one count, which is 8 n + Rest. Written out for each Rest, a row has no branch but
// its loop of n, the same for the whole group and so predicted.
template <class Level, std::size_t Height, std::size_t Vectors, std::size_t Width, std::size_t Rest>
SECATEUR_INLINE void add_group(Cursor& given, const BlockedGroup& group, const float* x,
                               float* sums) {
  Cursor at = given;
  const std::size_t whole = group.count / kWord;
  for (std::size_t row = 0; row < group.rows; ++row) {
    float* own = sums + *at.order * Height * Width;
    Floats acc[Height][Vectors];
    SECATEUR_UNROLL(8)
    for (std::size_t h = 0; h < Height; ++h) {
      SECATEUR_UNROLL(4)
      for (std::size_t v = 0; v < Vectors; ++v) load(acc[h][v], own + h * Width + v * kLanes);
    }
    for (std::size_t n = 0; n < whole; ++n) {
      add_entries<Level, Height, Vectors, Width, kWord>(at, x, acc);
      at.values += kWord * Height;
      at.indices += kWord;
    }
    if constexpr (Rest > 0) {
      add_entries<Level, Height, Vectors, Width, Rest>(at, x, acc);
      at.values += Rest * Height;
      at.indices += Rest;
    }
    SECATEUR_UNROLL(8)
    for (std::size_t h = 0; h < Height; ++h) {
      SECATEUR_UNROLL(4)
      for (std::size_t v = 0; v < Vectors; ++v) store(own + h * Width + v * kLanes, acc[h][v]);
    }
    ++at.order;
  }
  given = at;
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
  const Blocked& w = *args.weights;
  for (std::size_t v = 0; v < Vectors; v += kPass) {
    Cursor at{w.values + segment.entry * Height, w.indices + segment.entry, w.order + segment.row};
    const float* from = x + v * kLanes;
    float* to = sums + v * kLanes;
    for (std::size_t g = segment.group; g < next.group; ++g) {
      switch (const BlockedGroup group = w.groups[g]; group.count % kWord) {
#define SECATEUR_REST(rest)                                             \
  case rest:                                                            \
    add_group<Level, Height, kPass, kWidth, rest>(at, group, from, to); \
    break;
        SECATEUR_REST(0)
        SECATEUR_REST(1)
        SECATEUR_REST(2)
        SECATEUR_REST(3)
        SECATEUR_REST(4)
        SECATEUR_REST(5)
        SECATEUR_REST(6)
        SECATEUR_REST(7)
#undef SECATEUR_REST
        default:
          break;
      }
    }
  }
}

// Bias and activation of a chunk's sums, into `to`, which may be where they are. Apart from the
// products, so that every activation is compiled once per instruction set and not once per shape.
SECATEUR_INLINE void finish_sums(const ChunkArgs& args, float* to) {
  const Finish& finish = *args.finish;
  const std::size_t outputs = args.num_outputs();
  if (finish.bias != nullptr || to != args.sums) {
    for (std::size_t n = 0; n < outputs; ++n) {
      const float bias = finish.bias == nullptr ? 0.0F : finish.bias[args.first_output() + n];
      for (std::size_t at = n * args.width; at < (n + 1) * args.width; at += kLanes) {
        Floats sums;
        load(sums, args.sums + at);
        sums = sums + bias;
        store(to + at, sums);
      }
    }
  }
  activate_all(to, outputs * args.width, finish);
}

// Sixteen samples at a time: rows of y that are a multiple of 4 KiB apart share one set of L1, and
// with more of them every line would be fetched anew.
struct WriteOutputs {
  static SECATEUR_INLINE void run(const ChunkArgs& args) {
    finish_sums(args, args.sums);
    const std::size_t all = args.weights->plan.outputs;
    const std::size_t outputs = args.num_outputs();
    for (std::size_t row = 0; row < args.rows; row += kLanes) {
      const std::size_t samples = std::min(kLanes, args.rows - row);
      for (std::size_t n = 0; n < outputs; n += kLanes) {
        const std::size_t here = std::min(kLanes, outputs - n);
        Floats square[kLanes];
        SECATEUR_UNROLL(16)
        for (std::size_t i = 0; i < kLanes; ++i) {
          load(square[i], args.sums + (n + i) * args.width + row);
        }
        transpose_lanes(square);
        const std::size_t offset = (args.first_row + row) * all + args.first_output() + n;
        const float* residual = args.finish->residual;
        if (samples == kLanes && here == kLanes && residual == nullptr) {
          SECATEUR_UNROLL(16)
          for (std::size_t i = 0; i < kLanes; ++i) store(args.y + offset + i * all, square[i]);
          continue;
        }
        for (std::size_t i = 0; i < samples; ++i) {
          if (residual != nullptr) {
            Floats other;
            load_some(other, residual + offset + i * all, here);
            square[i] = square[i] + other;
          }
          store_some(args.y + offset + i * all, square[i], here);
        }
      }
    }
  }
};

// The same into panels, for a product that reads them: nothing is turned.
struct WritePanel {
  static SECATEUR_INLINE void run(const ChunkArgs& args) {
    finish_sums(args, args.y + args.first_row * args.weights->plan.outputs +
                          args.first_output() * args.width);
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

std::size_t panel_floats(std::size_t rows, std::size_t features) {
  const std::size_t last = rows == 0 ? 0 : (rows - 1) / kPanel;
  return features * (last * kPanel + panel_width(rows - last * kPanel));
}

std::size_t blocked_scratch(const BlockedPlan& plan, std::size_t rows) {
  if (ceil_div(rows, kPanel) >= kManyPanels) return 0;
  return panel_floats(rows, plan.inputs) * sizeof(float) + kAlignment;
}

void multiply_blocked(const Blocked& weights, const Samples& samples, const PanelUse& use,
                      const Finish& finish, float* scratch) {
  const Panels panels{samples, weights.plan.inputs};
  const auto multiply = kernel_for(weights.plan.height);
  const auto write =
      use.y ? fma_variant<WritePanel, ChunkArgs>() : fma_variant<WriteOutputs, ChunkArgs>();
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
      const float* packed = samples.x + panel * kPanel * inputs;
      if (!use.x) {
        float* own = own_floats(kPanel * inputs);
        pack(panels.pack(panel, 0, inputs, own));
        packed = own;
      }
      for (std::size_t chunk = 0; chunk < chunks; ++chunk) one(panel, chunk, packed);
    });
    return;
  }
  const float* packed = samples.x;
  if (!use.x) {
    float* own = aligned(scratch);
    // A quarter of a millisecond's work is worth handing out; less is packed right here.
    constexpr std::size_t kPackTask = std::size_t{1} << 16;
    const std::size_t step = std::max(kLanes, kPackTask / kPanel);
    const std::size_t pieces = ceil_div(inputs, step);
    parallel_for(panels.count() * pieces, [&](std::size_t task) {
      const std::size_t panel = task / pieces;
      const std::size_t begin = task % pieces * step;
      pack(
          panels.pack(panel, begin, std::min(inputs, begin + step), own + panel * kPanel * inputs));
    });
    packed = own;
  }
  parallel_for(panels.count() * chunks, [&](std::size_t task) {
    const std::size_t panel = task % panels.count();
    one(panel, task / panels.count(), packed + panel * kPanel * inputs);
  });
}

}  // namespace secateur
