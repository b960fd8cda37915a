// Runs a test on every instruction set that this machine has, with several numbers of threads.
#pragma once

#include <vector>

#include "secateur/simd.hpp"
#include "secateur/threads.hpp"

namespace secateur {

inline std::vector<Simd> levels() {
  std::vector<Simd> found;
  for (const Simd level : {Simd::scalar, Simd::avx2, Simd::avx512}) {
    if (level <= detected_simd()) found.push_back(level);
  }
  return found;
}

// The level that was active is active again afterwards.
template <class Test>
void at_every_level(const Test& test, const std::vector<int>& thread_counts = {1, 3}) {
  const Simd before = active_simd();
  for (const Simd level : levels()) {
    set_active_simd(level);
    for (const int threads : thread_counts) {
      set_num_threads(threads);
      test();
    }
  }
  set_active_simd(before);
}

}  // namespace secateur
