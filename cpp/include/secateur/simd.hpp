// Which instruction set the kernels use. Each kernel family keeps all its variants in one
// translation unit and marks them with function-level target attributes: per-file -mavx2 would let
// the linker pick an AVX copy of an inline function for code that runs on a machine without it.
#pragma once

#include <string>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SECATEUR_X86 1
#define SECATEUR_TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt,lzcnt,f16c")))
#define SECATEUR_TARGET_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi,bmi2,popcnt,lzcnt,f16c")))
#else
#define SECATEUR_X86 0
#endif

// Bodies shared between instruction sets: inlined into each target function, so that the compiler
// vectorises them for that target.
#define SECATEUR_INLINE inline __attribute__((always_inline))

// Unroll the loop that follows. Not under sanitizers: with a check at every access, what is written
// out eight times takes the compiler many minutes.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SECATEUR_UNROLL(times)
#else
#define SECATEUR_TEXT(words) #words
#define SECATEUR_UNROLL(times) _Pragma(SECATEUR_TEXT(GCC unroll times))
#endif

namespace secateur {

enum class Simd : int { scalar = 0, avx2 = 1, avx512 = 2 };

// The best level this CPU can run.
Simd detected_simd() noexcept;

// The level in use: SECATEUR_SIMD if set, else the detected one. Chosen once at load.
Simd active_simd();

// For tests. Throws std::invalid_argument if this CPU cannot run `level`.
void set_active_simd(Simd level);

// "scalar", "avx2", "avx512"; anything else throws std::invalid_argument.
Simd parse_simd(const std::string& name);
const char* simd_name(Simd level) noexcept;

// Picks one of three variants of the same function for the active level.
template <class Function>
Function pick(Function scalar, [[maybe_unused]] Function avx2, [[maybe_unused]] Function avx512) {
#if SECATEUR_X86
  switch (active_simd()) {
    case Simd::avx512:
      return avx512;
    case Simd::avx2:
      return avx2;
    case Simd::scalar:
      break;
  }
#endif
  return scalar;
}

}  // namespace secateur
