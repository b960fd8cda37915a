// Working memory that a thread keeps for itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace secateur {

inline constexpr std::size_t kAlignment = 64;

inline float* aligned(float* pointer) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  const std::uintptr_t rest = address % kAlignment;
  const std::size_t skipped = rest == 0 ? 0 : (kAlignment - rest) / sizeof(float);
  return pointer + skipped;
}

// Grown once per thread and then kept: engines that have run once allocate nothing. Valid until the
// thread's next call.
inline float* own_floats(std::size_t count) {
  thread_local std::vector<float> memory;
  if (memory.size() < count + kAlignment) memory.resize(count + kAlignment);
  return aligned(memory.data());
}

}  // namespace secateur
