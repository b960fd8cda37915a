#include "secateur/patterns.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "patterns_groups.hpp"
#include "variants.hpp"

namespace secateur {
namespace {

constexpr std::size_t kTileLanes = 64;          // groups that are sorted together
constexpr std::size_t kRunElements = 1U << 16;  // elements of one call of a run kernel, about

// Finds the key of a given rank by a fixed sequence of comparisons, so that a whole register of
// groups is searched at once: Batcher's merge exchange (Knuth, The Art of Computer Programming,
// vol. 3, 5.2.2, algorithm M), less the comparisons that the wanted place does not depend on. For
// 16:32 that leaves 160 comparisons, where ranking every pair would take 496.
struct Comparison {
  std::uint8_t low, high;
  bool low_used, high_used;
};

struct Network {
  std::vector<Comparison> comparisons;
  std::size_t wanted = 0;  // the place where the smallest key that stays comes to lie
};

std::vector<Comparison> merge_exchange(int size) {
  std::vector<Comparison> comparisons;
  int top = 1;
  while (2 * top < size) top *= 2;
  for (int p = top; p > 0 && size > 1; p /= 2) {
    int q = top;
    int r = 0;
    int d = p;
    for (;;) {
      for (int i = 0; i < size - d; ++i) {
        if ((i & p) != r) continue;
        comparisons.push_back(
            {static_cast<std::uint8_t>(i), static_cast<std::uint8_t>(i + d), true, true});
      }
      if (q == p) break;
      d = q - p;
      q /= 2;
      r = p;
    }
  }
  return comparisons;
}

// The network for groups of `size` keys of which `kept` stay.
Network selection_network(std::size_t size, std::size_t kept) {
  Network network;
  if (kept == 0 || kept >= size) return network;
  network.wanted = size - kept;
  bool used[kMaxGroup] = {};
  used[network.wanted] = true;
  std::vector<Comparison> all = merge_exchange(static_cast<int>(size));
  for (auto step = all.rbegin(); step != all.rend(); ++step) {
    step->low_used = used[step->low];
    step->high_used = used[step->high];
    if (!step->low_used && !step->high_used) continue;
    used[step->low] = used[step->high] = true;
    network.comparisons.push_back(*step);
  }
  std::reverse(network.comparisons.begin(), network.comparisons.end());
  return network;
}

template <class Bits>
using Row = Key<Bits>[kTileLanes];

// Afterwards keys[network.wanted] holds the threshold of each group.
template <class Bits>
SECATEUR_INLINE void search(Row<Bits>* keys, const Network& network) {
  for (const Comparison& step : network.comparisons) {
    Key<Bits>* __restrict low = keys[step.low];
    Key<Bits>* __restrict high = keys[step.high];
    if (step.low_used && step.high_used) {
      for (std::size_t w = 0; w < kTileLanes; ++w) {
        const Key<Bits> a = low[w];
        const Key<Bits> b = high[w];
        low[w] = std::min(a, b);
        high[w] = std::max(a, b);
      }
    } else if (step.low_used) {
      for (std::size_t w = 0; w < kTileLanes; ++w) low[w] = std::min(low[w], high[w]);
    } else {
      for (std::size_t w = 0; w < kTileLanes; ++w) high[w] = std::max(low[w], high[w]);
    }
  }
}

// Groups side by side: element p of group w is data[p * stride + w].
template <class Bits>
struct GroupTile {
  const Bits* data;
  std::size_t stride;
  std::size_t lanes;   // groups, at most kTileLanes
  std::size_t length;  // of each group
  const Network* network;
  std::uint8_t* mask;
  GroupRule rule;
};

template <class Bits>
struct MaskTile {
  static SECATEUR_INLINE Bits run(const GroupTile<Bits>& tile) {
    // With a fixed number of lanes the compiler vectorises without remainders.
    return tile.lanes == kTileLanes ? each<true>(tile) : each<false>(tile);
  }

  template <bool kFull>
  static SECATEUR_INLINE Bits each(const GroupTile<Bits>& tile) {
    alignas(64) Row<Bits> keys[kMaxGroup];
    alignas(64) Row<Bits> scratch[kMaxGroup];
    const std::size_t lanes = kFull ? kTileLanes : tile.lanes;
    if (!kFull) std::memset(keys, 0, tile.length * sizeof(keys[0]));
    Bits tops[kTileLanes] = {};  // reduced at the end only, to keep the loop free of it
    for (std::size_t p = 0; p < tile.length; ++p) {
      const Bits* data = tile.data + p * tile.stride;
      for (std::size_t w = 0; w < lanes; ++w) {
        tops[w] = std::max<Bits>(tops[w], data[w] & kMagnitudeBits<Bits>);
        keys[p][w] = to_key(data[w], tile.rule.order);
      }
    }
    Bits largest = 0;
    for (const Bits top : tops) largest = std::max(largest, top);
    const auto kept = std::min(tile.length, static_cast<std::size_t>(tile.rule.n));
    if (kept == 0 || kept == tile.length) {
      for (std::size_t p = 0; p < tile.length; ++p) {
        std::memset(tile.mask + p * tile.stride, kept != 0, lanes);
      }
      return largest;
    }
    std::memcpy(scratch, keys, tile.length * sizeof(keys[0]));
    search<Bits>(scratch, *tile.network);
    select(tile, lanes, keys, scratch[tile.network->wanted], static_cast<Key<Bits>>(kept));
    return largest;
  }

  static SECATEUR_INLINE void select(const GroupTile<Bits>& tile, std::size_t lanes,
                                     const Row<Bits>* keys, const Row<Bits>& threshold,
                                     Key<Bits> kept) {
    alignas(64) Row<Bits> ties;  // how many keys equal to the threshold still may stay
    for (std::size_t w = 0; w < kTileLanes; ++w) ties[w] = kept;
    for (std::size_t p = 0; p < tile.length; ++p) {
      for (std::size_t w = 0; w < kTileLanes; ++w) {
        ties[w] = static_cast<Key<Bits>>(ties[w] - (keys[p][w] > threshold[w] ? 1 : 0));
      }
    }
    for (std::size_t p = tile.length; p-- > 0;) {
      std::uint8_t* mask = tile.mask + p * tile.stride;
      for (std::size_t w = 0; w < lanes; ++w) {
        const Key<Bits> tied = keys[p][w] == threshold[w] ? 1 : 0;
        const Key<Bits> above = keys[p][w] > threshold[w] ? 1 : 0;
        const Key<Bits> stays = ties[w] > 0 ? tied : Key<Bits>{0};
        ties[w] = static_cast<Key<Bits>>(ties[w] - stays);
        mask[w] = static_cast<std::uint8_t>(above | stays);
      }
    }
  }
};

// Groups one after another, at most kTileLanes of them and all of the same length.
template <class Bits>
struct GroupRow {
  GroupRun<Bits> run;
  std::size_t length;
  const Network* network;
};

template <class Bits>
struct MaskRow {
  using Word = Key<Bits>;

  static SECATEUR_INLINE Bits run(const GroupRow<Bits>& row) {
    alignas(64) Word keys[kMaxGroup * kTileLanes];
    Bits largest = 0;
    for (std::size_t i = 0; i < row.run.size; ++i) {
      largest = std::max<Bits>(largest, row.run.data[i] & kMagnitudeBits<Bits>);
      keys[i] = to_key(row.run.data[i], row.run.rule.order);
    }
    const auto kept = std::min(row.length, static_cast<std::size_t>(row.run.rule.n));
    if (kept == 0 || kept == row.length) {
      std::memset(row.run.mask, kept != 0, row.run.size);
      return largest;
    }
    alignas(64) Row<Bits> columns[kMaxGroup];
    // Sorting takes so long that reading would stand still: ask for what the next call will read.
    constexpr std::size_t kLine = 64 / sizeof(Bits);
    const std::size_t groups = row.run.size / row.length;
    if (groups < kTileLanes) std::memset(columns, 0, row.length * sizeof(columns[0]));
    for (std::size_t w = 0; w < groups; ++w) {
      const Bits* next = row.run.data + row.run.size + w * row.length;
      for (std::size_t p = 0; p < row.length; p += kLine) __builtin_prefetch(next + p);
      for (std::size_t p = 0; p < row.length; ++p) columns[p][w] = keys[w * row.length + p];
    }
    search<Bits>(columns, *row.network);
    for (std::size_t w = 0; w < groups; ++w) {
      const std::size_t start = w * row.length;
      select(keys + start, row.length, columns[row.network->wanted][w], kept, row.run.mask + start);
    }
    return largest;
  }

  static SECATEUR_INLINE void select(const Word* keys, std::size_t length, Word threshold,
                                     std::size_t kept, std::uint8_t* mask) {
    Word not_below = 0;
    for (std::size_t p = 0; p < length; ++p) {
      const Word stays = keys[p] >= threshold ? 1 : 0;
      mask[p] = static_cast<std::uint8_t>(stays);
      not_below = static_cast<Word>(not_below + stays);
    }
    // Only with ties at the threshold are there too many: the earlier of them go.
    auto excess = static_cast<std::size_t>(not_below) - kept;
    for (std::size_t p = 0; excess > 0; ++p) {
      if (keys[p] != threshold) continue;
      mask[p] = 0;
      --excess;
    }
  }
};

template <class Bits>
using RunKernel = Bits (*)(const GroupRun<Bits>&);

template <class Bits>
Bits mask_run_by_rows(const GroupRun<Bits>& run) {
  const auto m = static_cast<std::size_t>(run.rule.m);
  const auto n = static_cast<std::size_t>(run.rule.n);
  const auto mask_row = variant<MaskRow<Bits>, GroupRow<Bits>>();
  const Network network = selection_network(m, n);
  const std::size_t whole = run.size / m * m;
  Bits largest = 0;
  for (std::size_t start = 0; start < whole; start += kTileLanes * m) {
    const std::size_t size = std::min(kTileLanes * m, whole - start);
    largest = std::max(
        largest, mask_row({{run.data + start, size, run.mask + start, run.rule}, m, &network}));
  }
  const std::size_t rest = run.size - whole;
  if (rest == 0) return largest;
  const Network short_network = selection_network(rest, n);
  return std::max(
      largest,
      mask_row({{run.data + whole, rest, run.mask + whole, run.rule}, rest, &short_network}));
}

template <class Bits>
RunKernel<Bits> run_kernel([[maybe_unused]] int m) {
#if SECATEUR_X86
  const Simd level = active_simd();
  if (level == Simd::avx512 && m <= kKeysAvx512<Bits>) return &rotate_avx512<Bits>;
  if constexpr (sizeof(Bits) <= 4) {
    if (level == Simd::avx2 && m <= kKeysAvx2) return &rotate_avx2<Bits>;
  }
#endif
  return &mask_run_by_rows<Bits>;
}

template <class Bits>
void raise_to(std::atomic<Bits>& largest, Bits value) {
  Bits seen = largest.load(std::memory_order_relaxed);
  while (seen < value && !largest.compare_exchange_weak(seen, value)) {
  }
}

template <class Bits>
Bits mask_runs(const Grouped& elements, GroupRule rule, std::uint8_t* mask) {
  const auto* data = static_cast<const Bits*>(elements.data);
  const auto m = static_cast<std::size_t>(rule.m);
  // Rows of whole groups follow one another without a seam.
  const bool seamless = elements.length % m == 0;
  const std::size_t size = seamless ? elements.outer * elements.length : elements.length;
  const std::size_t runs = seamless ? 1 : elements.outer;
  const std::size_t step = kRunElements / m * m;
  const std::size_t steps = ceil_div(size, step);
  const RunKernel<Bits> kernel = run_kernel<Bits>(rule.m);
  std::atomic<Bits> largest{0};
  parallel_spans(runs * steps, std::min(size, step), [&](std::size_t begin, std::size_t end) {
    for (std::size_t item = begin; item < end; ++item) {
      const std::size_t first = item % steps * step;
      const std::size_t start = item / steps * size + first;
      raise_to(largest, kernel({data + start, std::min(step, size - first), mask + start, rule}));
    }
  });
  return largest;
}

template <class Bits>
Bits mask_across(const Grouped& elements, GroupRule rule, std::uint8_t* mask) {
  const auto* data = static_cast<const Bits*>(elements.data);
  const auto m = static_cast<std::size_t>(rule.m);
  const std::size_t groups = ceil_div(elements.length, m);
  const std::size_t tiles = ceil_div(elements.inner, kTileLanes);
  const Network network = selection_network(m, static_cast<std::size_t>(rule.n));
  const Network short_network =
      selection_network(elements.length % m, static_cast<std::size_t>(rule.n));
  const auto mask_tile = variant<MaskTile<Bits>, GroupTile<Bits>>();
  std::atomic<Bits> largest{0};
  parallel_spans(
      elements.outer * groups * tiles, m * kTileLanes, [&](std::size_t begin, std::size_t end) {
        for (std::size_t item = begin; item < end; ++item) {
          const std::size_t first = item % tiles * kTileLanes;
          const std::size_t position = item / tiles % groups * m;
          const std::size_t length = std::min(m, elements.length - position);
          const std::size_t row = item / tiles / groups * elements.length + position;
          const std::size_t start = row * elements.inner + first;
          raise_to(
              largest,
              mask_tile({data + start, elements.inner, std::min(kTileLanes, elements.inner - first),
                         length, length == m ? &network : &short_network, mask + start, rule}));
        }
      });
  return largest;
}

}  // namespace

bool nm_mask(const Grouped& elements, GroupRule rule, std::uint8_t* mask) {
  return with_format(elements.dtype, [&](auto format) {
    using Format = decltype(format);
    using Bits = typename Format::Bits;
    const Bits largest = elements.inner == 1 ? mask_runs<Bits>(elements, rule, mask)
                                             : mask_across<Bits>(elements, rule, mask);
    return largest <= largest_allowed<Format>(rule.order);
  });
}

}  // namespace secateur
