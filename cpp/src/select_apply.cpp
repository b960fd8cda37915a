// Taking out what lies below a cut: one read, and at most one write of the numbers and one of the
// mask.
#include <algorithm>
#include <limits>

#include "secateur/select.hpp"
#include "secateur/threads.hpp"
#include "select_lanes.hpp"

namespace secateur {
namespace select {
namespace {

// What happened to one run of numbers. Keys are the extremes' starting values if there was none.
struct Outcome {
  std::uint64_t num_removed = 0;
  std::int64_t largest_removed = std::numeric_limits<std::int64_t>::min();
  std::int64_t smallest_kept = std::numeric_limits<std::int64_t>::max();

  void add(const Outcome& other) {
    num_removed += other.num_removed;
    largest_removed = std::max(largest_removed, other.largest_removed);
    smallest_kept = std::min(smallest_kept, other.smallest_kept);
  }
};

// Keys below `limit` go. No pointer may overlap another, but `out` may be `data`.
template <class U>
using CutKernel = Outcome (*)(const U* data, std::size_t size, Lane<U> limit, U* out,
                              std::uint8_t* mask);

template <class U>
Outcome outcome(std::uint64_t num_removed, Lane<U> largest_removed, Lane<U> smallest_kept,
                std::size_t size) {
  Outcome result;
  result.num_removed = num_removed;
  if (num_removed > 0) result.largest_removed = largest_removed;
  if (num_removed < size) result.smallest_kept = smallest_kept;
  return result;
}

template <class U, Order order, bool kOut, bool kMask>
Outcome cut_scalar(const U* data, std::size_t size, Lane<U> limit, U* out, std::uint8_t* mask) {
  std::uint64_t num_removed = 0;
  Lane<U> largest = std::numeric_limits<Lane<U>>::min();
  Lane<U> smallest = std::numeric_limits<Lane<U>>::max();
  for (std::size_t i = 0; i < size; ++i) {
    const U bits = data[i];
    const Lane<U> key = lane_of<U, order>(bits);
    const bool keep = key >= limit;
    num_removed += !keep;
    largest = std::max(largest, keep ? largest : key);
    smallest = std::min(smallest, keep ? key : smallest);
    if constexpr (kOut) out[i] = keep ? bits : U{0};
    if constexpr (kMask) mask[i] = keep;
  }
  return outcome<U>(num_removed, largest, smallest, size);
}

#if SECATEUR_X86
template <class U>
struct Extremes512 {
  typename Lanes512<U>::Reg largest, smallest;
  std::uint64_t num_removed;
};

template <class U, Order order>
SECATEUR_INLINE SECATEUR_TARGET_AVX512 typename Lanes512<U>::Mask cut_step_512(
    Extremes512<U>& extremes, typename Lanes512<U>::Reg bits, typename Lanes512<U>::Mask lanes,
    typename Lanes512<U>::Reg limit) {
  using L = Lanes512<U>;
  const auto key = lane_key_512<L, order>(L::magnitude(bits), bits);
  const auto goes = L::less(lanes, key, limit);
  const auto stays = static_cast<typename L::Mask>(lanes & ~goes);
  extremes.num_removed += static_cast<unsigned>(_mm_popcnt_u32(goes));
  extremes.largest = L::max(extremes.largest, goes, key);
  extremes.smallest = L::min(extremes.smallest, stays, key);
  return stays;
}

template <class U, Order order, bool kOut, bool kMask>
SECATEUR_TARGET_AVX512 Outcome cut_avx512(const U* data, std::size_t size, Lane<U> limit, U* out,
                                          std::uint8_t* mask) {
  using L = Lanes512<U>;
  const auto limits = L::set(limit);
  Extremes512<U> extremes{L::set(std::numeric_limits<Lane<U>>::min()),
                          L::set(std::numeric_limits<Lane<U>>::max()), 0};
  const auto all = L::first(L::kWidth);
  std::size_t i = 0;
  for (; i + L::kWidth <= size; i += L::kWidth) {
    prefetch(data + i);
    const auto bits = L::load(data + i);
    const auto stays = cut_step_512<U, order>(extremes, bits, all, limits);
    if constexpr (kOut) L::store(out + i, L::keep(stays, bits));
    if constexpr (kMask) L::store_bytes(mask + i, stays);
  }
  if (i < size) {
    const auto lanes = L::first(size - i);
    const auto bits = L::load(data + i, lanes);
    const auto stays = cut_step_512<U, order>(extremes, bits, lanes, limits);
    if constexpr (kOut) L::store(out + i, lanes, L::keep(stays, bits));
    if constexpr (kMask) L::store_bytes(mask + i, lanes, stays);
  }
  return outcome<U>(extremes.num_removed, L::max(extremes.largest), L::min(extremes.smallest),
                    size);
}

template <class U>
SECATEUR_INLINE SECATEUR_TARGET_AVX2 Outcome outcome_256(std::uint64_t num_removed,
                                                         typename Lanes256<U>::Reg largest,
                                                         typename Lanes256<U>::Reg smallest,
                                                         std::size_t size) {
  constexpr std::size_t kWidth = Lanes256<U>::kWidth;
  alignas(32) Lane<U> large[kWidth];
  alignas(32) Lane<U> small[kWidth];
  _mm256_store_si256(reinterpret_cast<__m256i*>(large), largest);
  _mm256_store_si256(reinterpret_cast<__m256i*>(small), smallest);
  return outcome<U>(num_removed, *std::max_element(large, large + kWidth),
                    *std::min_element(small, small + kWidth), size);
}

template <class U, Order order, bool kOut, bool kMask>
SECATEUR_TARGET_AVX2 Outcome cut_avx2(const U* data, std::size_t size, Lane<U> limit, U* out,
                                      std::uint8_t* mask) {
  using L = Lanes256<U>;
  const auto limits = L::set(limit);
  const auto lowest = L::set(std::numeric_limits<Lane<U>>::min());
  const auto highest = L::set(std::numeric_limits<Lane<U>>::max());
  auto largest = lowest;
  auto smallest = highest;
  std::uint64_t num_removed = 0;
  std::size_t i = 0;
  for (; i + L::kWidth <= size; i += L::kWidth) {
    prefetch(data + i);
    const auto bits = L::load(data + i);
    const auto key = lane_key_256<L, order>(L::magnitude(bits), bits);
    const auto goes = L::less(key, limits);
    num_removed += static_cast<unsigned>(_mm_popcnt_u32(L::bits(goes)));
    largest = L::max(largest, L::choose(goes, key, lowest));
    smallest = L::min(smallest, L::choose(goes, highest, key));
    if constexpr (kOut) L::store(out + i, L::choose(goes, L::zero(), bits));
    if constexpr (kMask) L::store_bytes(mask + i, L::neither(goes));
  }
  Outcome result = outcome_256<U>(num_removed, largest, smallest, i);
  result.add(cut_scalar<U, order, kOut, kMask>(data + i, size - i, limit, kOut ? out + i : nullptr,
                                               kMask ? mask + i : nullptr));
  return result;
}
#endif

template <class U, Order order, bool kOut, bool kMask>
CutKernel<U> pick_kernel() {
#if SECATEUR_X86
  return pick<CutKernel<U>>(cut_scalar<U, order, kOut, kMask>, cut_avx2<U, order, kOut, kMask>,
                            cut_avx512<U, order, kOut, kMask>);
#else
  return cut_scalar<U, order, kOut, kMask>;
#endif
}

template <class U, Order order>
CutKernel<U> cut_kernel(const CutTarget& target) {
  if (target.values != nullptr) {
    return target.mask != nullptr ? pick_kernel<U, order, true, true>()
                                  : pick_kernel<U, order, true, false>();
  }
  return target.mask != nullptr ? pick_kernel<U, order, false, true>()
                                : pick_kernel<U, order, false, false>();
}

// Within a chunk everything before `split` goes below `before`, the rest below `after`: the numbers
// that tie with the cut go up to its position and stay from there on.
struct Limits {
  std::size_t split;
  std::int64_t before;
  std::int64_t after;
};

Limits limits_in(const Chunk& chunk, const Cut& cut, std::int64_t lane) {
  if (chunk.segment < cut.segment) return {chunk.end, lane + 1, lane};
  if (chunk.segment > cut.segment) return {chunk.begin, lane + 1, lane};
  return {std::clamp<std::size_t>(cut.position, chunk.begin, chunk.end), lane + 1, lane};
}

template <class U>
Outcome cut_chunk(const Chunk& chunk, const U* data, const CutTarget& target, CutKernel<U> kernel,
                  const Limits& limits) {
  auto* out = static_cast<U*>(target.values);
  const auto run = [&](std::size_t begin, std::size_t end, std::int64_t limit) {
    if (begin == end) return Outcome{};
    return kernel(data + begin, end - begin, static_cast<Lane<U>>(limit),
                  out == nullptr ? nullptr : out + begin,
                  target.mask == nullptr ? nullptr : target.mask + begin);
  };
  Outcome result = run(chunk.begin, limits.split, limits.before);
  result.add(run(limits.split, chunk.end, limits.after));
  return result;
}

template <class U>
std::vector<Outcome> cut_all(std::span<const Segment> segments, Order order, const Cut& cut,
                             std::int64_t lane, std::span<const CutTarget> targets) {
  const std::vector<Chunk> chunks = make_chunks(segments, sizeof(U));
  std::vector<Outcome> per_chunk(chunks.size());
  parallel_for(chunks.size(), [&](std::size_t c) {
    const Chunk& chunk = chunks[c];
    const CutTarget target = targets.empty() ? CutTarget{} : targets[chunk.segment];
    const CutKernel<U> kernel = order == Order::magnitude ? cut_kernel<U, Order::magnitude>(target)
                                                          : cut_kernel<U, Order::value>(target);
    per_chunk[c] = cut_chunk(chunk, static_cast<const U*>(segments[chunk.segment].data), target,
                             kernel, limits_in(chunk, cut, lane));
  });
  std::vector<Outcome> per_segment(segments.size());
  for (std::size_t c = 0; c < chunks.size(); ++c) per_segment[chunks[c].segment].add(per_chunk[c]);
  return per_segment;
}

template <class U>
SECATEUR_INLINE void mask_values(const U* values, const std::uint8_t* mask, U* out,
                                 std::size_t size) {
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC ivdep  // `out` may be `values`, which the compiler would take for a hazard
#endif
  for (std::size_t i = 0; i < size; ++i) out[i] = mask[i] != 0 ? values[i] : U{0};
}

template <class U>
void mask_scalar(const U* values, const std::uint8_t* mask, U* out, std::size_t size) {
  mask_values(values, mask, out, size);
}

#if SECATEUR_X86
template <class U>
SECATEUR_TARGET_AVX2 void mask_avx2(const U* values, const std::uint8_t* mask, U* out,
                                    std::size_t size) {
  mask_values(values, mask, out, size);
}
template <class U>
SECATEUR_TARGET_AVX512 void mask_avx512(const U* values, const std::uint8_t* mask, U* out,
                                        std::size_t size) {
  mask_values(values, mask, out, size);
}
#endif

template <class U>
auto mask_kernel() {
#if SECATEUR_X86
  return pick(mask_scalar<U>, mask_avx2<U>, mask_avx512<U>);
#else
  return mask_scalar<U>;
#endif
}

}  // namespace
}  // namespace select

std::vector<CutStatistics> apply_cut(std::span<const Segment> segments, DType dtype, Order order,
                                     const Cut& cut, std::span<const CutTarget> targets) {
  const std::int64_t lane = select::to_lane(cut.key, dtype, order);
  const std::vector<select::Outcome> outcomes = select::with_bits(dtype, [&](auto zero) {
    return select::cut_all<decltype(zero)>(segments, order, cut, lane, targets);
  });
  std::vector<CutStatistics> statistics;
  statistics.reserve(outcomes.size());
  for (std::size_t s = 0; s < outcomes.size(); ++s) {
    const auto value = [&](std::int64_t key) { return select::decode_lane(key, dtype); };
    CutStatistics result{outcomes[s].num_removed, std::nullopt, std::nullopt};
    if (result.num_removed > 0) result.largest_removed = value(outcomes[s].largest_removed);
    if (result.num_removed < segments[s].size) {
      result.smallest_kept = value(outcomes[s].smallest_kept);
    }
    statistics.push_back(result);
  }
  return statistics;
}

void apply_mask(const void* values, const std::uint8_t* mask, void* out, std::size_t size,
                DType dtype) {
  select::with_bits(dtype, [&](auto zero) {
    using U = decltype(zero);
    const Segment segment{values, size};
    const std::vector<select::Chunk> chunks = select::make_chunks({&segment, 1}, sizeof(U));
    const auto kernel = select::mask_kernel<U>();
    parallel_for(chunks.size(), [&](std::size_t c) {
      const std::size_t begin = chunks[c].begin;
      kernel(static_cast<const U*>(values) + begin, mask + begin, static_cast<U*>(out) + begin,
             chunks[c].end - begin);
    });
  });
}

}  // namespace secateur
