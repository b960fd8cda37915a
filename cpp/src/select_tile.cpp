#include "select_tile.hpp"

#include "select_lanes.hpp"

namespace secateur::select {
namespace {

template <class U, Order order>
TileCounts<U> tile_scalar(const U* data, std::size_t size, Bracket<U> bracket, U* out) {
  const auto [low, high] = bracket;
  std::uint32_t less = 0;
  std::uint32_t equal_low = 0;
  std::uint32_t equal_high = 0;
  std::size_t kept = 0;
  Lane<U> max_magnitude = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const Lane<U> magnitude = magnitude_of(data[i]);
    const Lane<U> key = lane_of<U, order>(data[i]);
    max_magnitude = magnitude > max_magnitude ? magnitude : max_magnitude;
    less += key < low;
    equal_low += key == low;
    equal_high += key == high;
    // Written every time and overwritten if not picked: a branch here would be mispredicted often.
    out[kept] = data[i];
    kept += static_cast<std::size_t>((low < key) & (key < high));
  }
  return {less, equal_low, low == high ? 0 : equal_high, static_cast<std::uint32_t>(kept),
          max_magnitude};
}

#if SECATEUR_X86
template <class U>
struct State512 {
  using L = Lanes512<U>;
  typename L::Reg less, equal_low, equal_high, max_magnitude;
  U* out;
};

template <class U, Order order>
SECATEUR_INLINE SECATEUR_TARGET_AVX512 void step_512(State512<U>& state,
                                                     typename Lanes512<U>::Reg bits,
                                                     typename Lanes512<U>::Mask lanes,
                                                     typename Lanes512<U>::Reg low,
                                                     typename Lanes512<U>::Reg high) {
  using L = Lanes512<U>;
  const auto magnitude = L::magnitude(bits);
  const auto key = lane_key_512<L, order>(magnitude, bits);
  state.max_magnitude = L::max(state.max_magnitude, magnitude);
  state.less = L::count(state.less, L::less(lanes, key, low));
  state.equal_low = L::count(state.equal_low, L::equal(lanes, key, low));
  state.equal_high = L::count(state.equal_high, L::equal(lanes, key, high));
  const auto between = L::less(L::less(lanes, low, key), key, high);
  // Compressed in a register, then stored whole: compressstoreu costs 75 cycles on Zen 4, this 3.
  L::store(state.out, L::compress(between, bits));
  state.out += _mm_popcnt_u32(between);
}

template <class U, Order order>
SECATEUR_TARGET_AVX512 TileCounts<U> tile_avx512(const U* data, std::size_t size,
                                                 Bracket<U> bracket, U* out) {
  using L = Lanes512<U>;
  const auto low = L::set(bracket.low);
  const auto high = L::set(bracket.high);
  State512<U> state{L::zero(), L::zero(), L::zero(), L::zero(), out};
  const auto all = L::first(L::kWidth);
  std::size_t i = 0;
  for (; i + L::kWidth <= size; i += L::kWidth) {
    prefetch(data + i);
    step_512<U, order>(state, L::load(data + i), all, low, high);
  }
  if (i < size) {
    const auto lanes = L::first(size - i);
    step_512<U, order>(state, L::load(data + i, lanes), lanes, low, high);
  }
  return {L::sum(state.less), L::sum(state.equal_low),
          bracket.low == bracket.high ? 0 : L::sum(state.equal_high),
          static_cast<std::uint32_t>(state.out - out), L::max(state.max_magnitude)};
}

template <class U>
SECATEUR_INLINE SECATEUR_TARGET_AVX2 std::uint32_t sum_256(typename Lanes256<U>::Reg x) {
  alignas(32) Lane<U> lanes[Lanes256<U>::kWidth];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), x);
  Lane<U> total = 0;
  for (const Lane<U> lane : lanes) total += lane;
  return static_cast<std::uint32_t>(total);
}

template <class U>
SECATEUR_INLINE SECATEUR_TARGET_AVX2 Lane<U> max_256(typename Lanes256<U>::Reg x) {
  alignas(32) Lane<U> lanes[Lanes256<U>::kWidth];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), x);
  Lane<U> best = lanes[0];
  for (const Lane<U> lane : lanes) best = lane > best ? lane : best;
  return best;
}

template <class U, Order order>
SECATEUR_TARGET_AVX2 TileCounts<U> tile_avx2(const U* data, std::size_t size, Bracket<U> bracket,
                                             U* out) {
  using L = Lanes256<U>;
  const auto low = L::set(bracket.low);
  const auto high = L::set(bracket.high);
  auto less = L::zero();
  auto equal_low = L::zero();
  auto equal_high = L::zero();
  auto max_magnitude = L::zero();
  std::size_t kept = 0;
  std::size_t i = 0;
  for (; i + L::kWidth <= size; i += L::kWidth) {
    prefetch(data + i);
    const auto bits = L::load(data + i);
    const auto magnitude = L::magnitude(bits);
    const auto key = lane_key_256<L, order>(magnitude, bits);
    max_magnitude = L::max(max_magnitude, magnitude);
    less = L::count(less, L::less(key, low));
    equal_low = L::count(equal_low, L::equal(key, low));
    equal_high = L::count(equal_high, L::equal(key, high));
    // Few are picked (about one in a hundred), so they are fetched one at a time.
    unsigned between = L::bits(L::both(L::less(low, key), L::less(key, high)));
    for (; between != 0; between &= between - 1) out[kept++] = data[i + _tzcnt_u32(between)];
  }
  const TileCounts<U> tail = tile_scalar<U, order>(data + i, size - i, bracket, out + kept);
  const Lane<U> best = max_256<U>(max_magnitude);
  return {sum_256<U>(less) + tail.less, sum_256<U>(equal_low) + tail.equal_low,
          (bracket.low == bracket.high ? 0 : sum_256<U>(equal_high)) + tail.equal_high,
          static_cast<std::uint32_t>(kept) + tail.kept,
          best > tail.max_magnitude ? best : tail.max_magnitude};
}
#endif

template <class U, Order order>
TileKernel<U> pick_kernel() {
#if SECATEUR_X86
  return pick<TileKernel<U>>(tile_scalar<U, order>, tile_avx2<U, order>, tile_avx512<U, order>);
#else
  return tile_scalar<U, order>;
#endif
}

}  // namespace

template <class U>
TileKernel<U> tile_kernel(Order order) {
  return order == Order::magnitude ? pick_kernel<U, Order::magnitude>()
                                   : pick_kernel<U, Order::value>();
}

template TileKernel<std::uint16_t> tile_kernel(Order);
template TileKernel<std::uint32_t> tile_kernel(Order);
template TileKernel<std::uint64_t> tile_kernel(Order);

}  // namespace secateur::select
