// One body per kernel, compiled once per instruction set.
#pragma once

#include <algorithm>
#include <cstddef>

#include "secateur/simd.hpp"
#include "secateur/threads.hpp"

namespace secateur {

// `Body::run(args)` must be SECATEUR_INLINE: it is inlined into each of these, so that the compiler
// vectorises it for that target. Element-wise arithmetic then rounds alike everywhere.
template <class Body, class Args>
auto run_scalar(const Args& args) {
  return Body::run(args);
}

#if SECATEUR_X86
template <class Body, class Args>
SECATEUR_TARGET_AVX2 auto run_avx2(const Args& args) {
  return Body::run(args);
}

template <class Body, class Args>
SECATEUR_TARGET_AVX512 auto run_avx512(const Args& args) {
  return Body::run(args);
}
#endif

template <class Body, class Args>
auto variant() {
#if SECATEUR_X86
  return pick(&run_scalar<Body, Args>, &run_avx2<Body, Args>, &run_avx512<Body, Args>);
#else
  return &run_scalar<Body, Args>;
#endif
}

constexpr std::size_t ceil_div(std::size_t value, std::size_t step) noexcept {
  return value / step + (value % step != 0);
}

// Runs span(begin, end) over [0, num_items) in parallel. A task gets about 128 Ki elements: large
// against the cost of handing it out, small enough to even out two threads of unequal speed.
template <class Span>
void parallel_spans(std::size_t num_items, std::size_t elements_per_item, const Span& span) {
  constexpr std::size_t kTaskElements = std::size_t{1} << 17;
  const std::size_t step =
      std::max<std::size_t>(1, kTaskElements / std::max<std::size_t>(1, elements_per_item));
  parallel_for(ceil_div(num_items, step), [&](std::size_t task) {
    const std::size_t begin = task * step;
    span(begin, std::min(num_items, begin + step));
  });
}

}  // namespace secateur
