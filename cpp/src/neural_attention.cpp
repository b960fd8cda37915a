#include <algorithm>
#include <cstdint>
#include <cstring>

#include "neural_softmax.hpp"
#include "own_memory.hpp"
#include "secateur/neural.hpp"
#include "spmm_vector.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

constexpr std::size_t kQueries = 64;  // in a task

std::size_t padded(std::size_t width) noexcept { return ceil_div(width, kLanes) * kLanes; }

// c = a b for small matrices in cache. b and its stride are whole vectors wide; of c only `columns`
// are written.
struct Small {
  const float* a;  // (rows, depth)
  std::size_t a_stride;
  const float* b;  // (depth, padded columns)
  std::size_t b_stride;
  float* c;  // (rows, columns)
  std::size_t c_stride;
  std::size_t rows;
  std::size_t depth;
  std::size_t columns;
};

// Tiles of rows x vectors that the registers hold.
struct TilePlain : SpreadPlain {
  static constexpr std::size_t kRows = 2;
  static constexpr std::size_t kVectors = 1;
};

#if SECATEUR_X86
struct Tile256 : Spread256 {
  static constexpr std::size_t kRows = 4;
  static constexpr std::size_t kVectors = 1;
};

struct Tile512 : Spread512 {
  static constexpr std::size_t kRows = 6;
  static constexpr std::size_t kVectors = 4;
};
#endif

template <class Level, std::size_t Rows, std::size_t Vectors>
SECATEUR_INLINE void multiply_tile(const Small& m, std::size_t row, std::size_t column) {
  Floats acc[Rows][Vectors] = {};
  const float* a = m.a + row * m.a_stride;
  const float* b = m.b + column;
  for (std::size_t k = 0; k < m.depth; ++k, b += m.b_stride) {
    Floats right[Vectors];
    SECATEUR_UNROLL(8)
    for (std::size_t v = 0; v < Vectors; ++v) load(right[v], b + v * kLanes);
    SECATEUR_UNROLL(8)
    for (std::size_t r = 0; r < Rows; ++r) {
      Floats left;
      Level::one(a + r * m.a_stride + k, left);
      SECATEUR_UNROLL(8)
      for (std::size_t v = 0; v < Vectors; ++v) acc[r][v] += left * right[v];
    }
  }
  SECATEUR_UNROLL(8)
  for (std::size_t r = 0; r < Rows; ++r) {
    SECATEUR_UNROLL(8)
    for (std::size_t v = 0; v < Vectors; ++v) {
      const std::size_t at = column + v * kLanes;
      const std::size_t here = m.columns > at ? std::min(kLanes, m.columns - at) : 0;
      store_some(m.c + (row + r) * m.c_stride + at, acc[r][v], here);
    }
  }
}

template <class Level, std::size_t Rows>
SECATEUR_INLINE void multiply_rows(const Small& m, std::size_t row) {
  const std::size_t width = padded(m.columns);
  constexpr std::size_t kStep = Level::kVectors * kLanes;
  std::size_t column = 0;
  for (; column + kStep <= width; column += kStep) {
    multiply_tile<Level, Rows, Level::kVectors>(m, row, column);
  }
  if constexpr (Level::kVectors > 2) {
    for (; column + 2 * kLanes <= width; column += 2 * kLanes) {
      multiply_tile<Level, Rows, 2>(m, row, column);
    }
  }
  for (; column < width; column += kLanes) multiply_tile<Level, Rows, 1>(m, row, column);
}

template <class Level>
SECATEUR_INLINE void multiply_small(const Small& m) {
  std::size_t row = 0;
  for (; row + Level::kRows <= m.rows; row += Level::kRows) {
    multiply_rows<Level, Level::kRows>(m, row);
  }
  for (; row < m.rows; ++row) multiply_rows<Level, 1>(m, row);
}

struct AttendArgs {
  const Attention* attention;
  std::size_t batch;
  std::size_t head;
  std::size_t first_query;
  std::size_t num_queries;
  float* memory;
};

// What a task works in.
struct Room {
  std::size_t keys;    // padded
  std::size_t values;  // padded
  float* transposed;   // (width, keys)
  float* copied;       // (keys, values)
  float* scores;       // (kQueries, keys)
  float* seen;         // (keys)

  Room(const Attention& a, float* memory)
      : keys(padded(a.keys)),
        values(padded(a.value_width)),
        transposed(memory),
        copied(transposed + a.width * keys),
        scores(copied + keys * values),
        seen(scores + kQueries * keys) {}

  static std::size_t floats(const Attention& a) {
    const Room room(a, nullptr);
    return room.keys * (a.width + room.values + kQueries + 1);
  }
};

SECATEUR_INLINE void transpose_keys(const AttendArgs& args, const Room& room) {
  const Attention& a = *args.attention;
  for (std::size_t k = 0; k < room.keys; k += kLanes) {
    for (std::size_t w = 0; w < a.width; w += kLanes) {
      const std::size_t here = std::min(kLanes, a.width - w);
      Floats square[kLanes];
      for (std::size_t i = 0; i < kLanes; ++i) {
        if (k + i < a.keys) {
          load_some(square[i], a.key.at(args.batch, k + i, args.head) + w, here);
        } else {
          square[i] = Floats{};
        }
      }
      transpose_lanes(square);
      for (std::size_t i = 0; i < here; ++i) {
        store(room.transposed + (w + i) * room.keys + k, square[i]);
      }
    }
  }
}

SECATEUR_INLINE void copy_values(const AttendArgs& args, const Room& room) {
  const Attention& a = *args.attention;
  for (std::size_t k = 0; k < a.keys; ++k) {
    const float* from = a.value.at(args.batch, k, args.head);
    float* to = room.copied + k * room.values;
    std::memcpy(to, from, a.value_width * sizeof(float));
    std::fill(to + a.value_width, to + room.values, 0.0F);
  }
}

// Which keys a query may look at, as 1 and 0, whole vectors.
SECATEUR_INLINE void widen_mask(const AttendArgs& args, std::size_t query, float* seen) {
  const Attention& a = *args.attention;
  const std::uint8_t* mask = a.mask + args.batch * a.mask_strides[0] +
                             args.head * a.mask_strides[1] + query * a.mask_strides[2];
  const std::size_t stride = a.mask_strides[3];
  for (std::size_t k = 0; k < a.keys; ++k) seen[k] = mask[k * stride] != 0 ? 1.0F : 0.0F;
}

SECATEUR_INLINE void mask_scores(const float* seen, std::size_t width, float masked,
                                 float* scores) {
  for (std::size_t k = 0; k < width; k += kLanes) {
    Floats score;
    Floats keep;
    load(score, scores + k);
    load(keep, seen + k);
    score = keep != 0 ? score : masked + Floats{};
    store(scores + k, score);
  }
}

template <class Level>
struct Attend {
  static SECATEUR_INLINE void run(const AttendArgs& args) {
    const Attention& a = *args.attention;
    const Room room(a, args.memory);
    transpose_keys(args, room);
    copy_values(args, room);
    multiply_small<Level>({a.query.at(args.batch, args.first_query, args.head), a.query.time_stride,
                           room.transposed, room.keys, room.scores, room.keys, args.num_queries,
                           a.width, a.keys});
    for (std::size_t q = 0; q < args.num_queries; ++q) {
      float* scores = room.scores + q * room.keys;
      if (a.mask != nullptr) {
        if (q == 0 || a.mask_strides[2] != 0) widen_mask(args, args.first_query + q, room.seen);
        mask_scores(room.seen, room.keys, a.masked, scores);
      }
      softmax_row(scores, scores, a.keys);
      if (a.weights != nullptr) {
        const std::size_t row =
            (args.batch * a.heads + args.head) * a.queries + args.first_query + q;
        std::memcpy(a.weights + row * a.keys, scores, a.keys * sizeof(float));
      }
    }
    multiply_small<Level>({room.scores, room.keys, room.copied, room.values,
                           a.out.at(args.batch, args.first_query, args.head), a.out.time_stride,
                           args.num_queries, a.keys, a.value_width});
  }
};

auto attend_kernel() {
#if SECATEUR_X86
  return pick(&run_plain<Attend<TilePlain>, AttendArgs>, &run_fma256<Attend<Tile256>, AttendArgs>,
              &run_fma512<Attend<Tile512>, AttendArgs>);
#else
  return &run_plain<Attend<TilePlain>, AttendArgs>;
#endif
}

}  // namespace

void attend(const Attention& attention) {
  const auto kernel = attend_kernel();
  const std::size_t blocks = ceil_div(attention.queries, kQueries);
  const std::size_t floats = Room::floats(attention);
  parallel_for(attention.batch * attention.heads * blocks, [&](std::size_t task) {
    const std::size_t first = task % blocks * kQueries;
    const std::size_t head = task / blocks % attention.heads;
    kernel({&attention, task / blocks / attention.heads, head, first,
            std::min(kQueries, attention.queries - first), own_floats(floats)});
  });
}

}  // namespace secateur
