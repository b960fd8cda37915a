#include "secateur/simd.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace secateur {
namespace {

void check_runs_here(Simd level) {
  if (level > detected_simd()) {
    throw std::invalid_argument(std::string("this CPU cannot run '") + simd_name(level) +
                                "' kernels; the best it has is '" + simd_name(detected_simd()) +
                                "'");
  }
}

Simd initial_level() {
  const char* text = std::getenv("SECATEUR_SIMD");
  if (text == nullptr || *text == '\0') return detected_simd();
  const Simd level = parse_simd(text);
  check_runs_here(level);
  return level;
}

std::atomic<Simd>& level_slot() {
  static std::atomic<Simd> level{initial_level()};
  return level;
}

}  // namespace

Simd detected_simd() noexcept {
#if SECATEUR_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
                    __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512) return Simd::avx512;
  if (avx2) return Simd::avx2;
#endif
  return Simd::scalar;
}

Simd active_simd() { return level_slot().load(std::memory_order_relaxed); }

void set_active_simd(Simd level) {
  check_runs_here(level);
  level_slot().store(level);
}

Simd parse_simd(const std::string& name) {
  for (const Simd level : {Simd::scalar, Simd::avx2, Simd::avx512}) {
    if (name == simd_name(level)) return level;
  }
  throw std::invalid_argument("SECATEUR_SIMD must be 'scalar', 'avx2' or 'avx512', got '" + name +
                              "'");
}

const char* simd_name(Simd level) noexcept {
  switch (level) {
    case Simd::avx512:
      return "avx512";
    case Simd::avx2:
      return "avx2";
    case Simd::scalar:
      break;
  }
  return "scalar";
}

}  // namespace secateur
