// Sixteen floats as one value, in the compiler's own vector type: one AVX-512 register, two AVX2
// ones or four SSE ones, whatever the function that it is inlined into may use.
#pragma once

// GCC 12 warns of its own intrinsics: they start from a register that is left undefined on purpose.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "secateur/simd.hpp"
#include "secateur/spmm.hpp"

#if SECATEUR_X86
#include <immintrin.h>
#endif

#if SECATEUR_X86
#define SECATEUR_TARGET_FMA256 __attribute__((target("avx2,fma,bmi,bmi2,popcnt,lzcnt,f16c")))
#define SECATEUR_TARGET_FMA512                                                    \
  __attribute__((                                                                 \
      target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2,popcnt,lzcnt," \
             "f16c")))
#endif

namespace secateur {

inline constexpr std::size_t kLanes = 16;

using Floats = float __attribute__((vector_size(64)));
using Ints = std::int32_t __attribute__((vector_size(64)));

SECATEUR_INLINE void load(Floats& to, const float* from) { std::memcpy(&to, from, sizeof(Floats)); }

SECATEUR_INLINE void store(float* to, const Floats& from) {
  std::memcpy(to, &from, sizeof(Floats));
}

SECATEUR_INLINE void load_some(Floats& to, const float* from, std::size_t count) {
  if (count == kLanes) return load(to, from);
  to = Floats{};
  std::memcpy(&to, from, count * sizeof(float));
}

SECATEUR_INLINE void store_some(float* to, const Floats& from, std::size_t count) {
  if (count == kLanes) return store(to, from);
  std::memcpy(to, &from, count * sizeof(float));
}

// One float in all lanes. By hand: the compiler's own way from a float to a vector of its vector
// type is a lane at a time.
struct SpreadPlain {
  static SECATEUR_INLINE void one(const float* value, Floats& to) { to = *value + Floats{}; }
};

#if SECATEUR_X86
struct Spread256 {
  static SECATEUR_TARGET_FMA256 inline void one(const float* value, Floats& to) {
    const __m256 half = _mm256_broadcast_ss(value);
    std::memcpy(&to, &half, sizeof(half));
    std::memcpy(reinterpret_cast<char*>(&to) + sizeof(half), &half, sizeof(half));
  }
};

struct Spread512 {
  static SECATEUR_TARGET_FMA512 inline void one(const float* value, Floats& to) {
    const __m512 all = _mm512_set1_ps(*value);
    std::memcpy(&to, &all, sizeof(to));
  }
};

// The next values spread over the lanes of the mask's set bits, zeros elsewhere. Merged into zeros
// that the compiler does not see through: the zero-masked form takes 5.5 cycles on Zen 4 and 5, the
// merging one 2.2.
SECATEUR_TARGET_FMA512 inline __m512 expand_lanes(const float* values, std::uint32_t mask) {
  __m512 zeros = _mm512_setzero_ps();
  asm("" : "+v"(zeros));
  return _mm512_mask_expand_ps(zeros, static_cast<__mmask16>(mask), _mm512_loadu_ps(values));
}
#endif

// Vectors are taken by reference: by value their calling convention depends on the target. Halves
// are folded onto each other by shuffles: through memory every fold waits for the store before it.
#define SECATEUR_FOLD(all, fold)                                                                 \
  fold(all,                                                                                      \
       __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)); \
  fold(all,                                                                                      \
       __builtin_shufflevector(all, all, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)); \
  fold(all,                                                                                      \
       __builtin_shufflevector(all, all, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)); \
  fold(all, __builtin_shufflevector(all, all, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14))
#define SECATEUR_PLUS(all, ...) all = all + __VA_ARGS__
#define SECATEUR_LARGER(all, ...)     \
  {                                   \
    const Floats other = __VA_ARGS__; \
    all = all > other ? all : other;  \
  }

SECATEUR_INLINE float sum_lanes(const Floats& values) {
  Floats all = values;
  SECATEUR_FOLD(all, SECATEUR_PLUS);
  return all[0];
}

SECATEUR_INLINE float max_lanes(const Floats& values) {
  Floats all = values;
  SECATEUR_FOLD(all, SECATEUR_LARGER);
  return all[0];
}
#undef SECATEUR_FOLD
#undef SECATEUR_PLUS
#undef SECATEUR_LARGER

// e^x to 2 ulp: x = n ln 2 + r, a polynomial in r, and n put into the exponent. Below -87.3 it is 0
// (Keras's softmax and ours then agree to the smallest normal number), above 88.7 infinity.
SECATEUR_INLINE void exponential_of(Floats& x) {
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  const Floats given = x;
  Floats t = x < -87.3F ? Floats{} - 87.3F : x;
  t = t > 88.7F ? Floats{} + 88.7F : t;
  const Floats scaled = t * kLog2E;
  const Ints n =
      __builtin_convertvector(scaled + (scaled < 0 ? Floats{} - 0.5F : Floats{} + 0.5F), Ints);
  const Floats whole = __builtin_convertvector(n, Floats);
  const Floats r = (t - whole * kLn2High) - whole * kLn2Low;
  Floats p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  // In two steps, as n may be 128, which no exponent holds.
  const Ints first = n >> 1;
  const Ints second = n - first;
  const Ints one = (first + 127) << 23;
  const Ints two = (second + 127) << 23;
  Floats a;
  Floats b;
  std::memcpy(&a, &one, sizeof(a));
  std::memcpy(&b, &two, sizeof(b));
  p = p * a * b;
  p = given < -87.3F ? Floats{} : p;
  p = given > 88.72283F ? Floats{} + __builtin_inff() : p;
  x = given == given ? p : given;  // NaN stays
}

// x + x^3 P(x^2) near zero, where 1 - 2 / (e^2x + 1) would cancel (Cephes' division of the range).
SECATEUR_INLINE void tanh_of(Floats& x) {
  const Floats magnitude = x < 0 ? -x : x;
  const Floats square = x * x;
  Floats p = square * -5.70498872745e-3F + 2.06390887954e-2F;
  p = p * square - 5.37397155531e-2F;
  p = p * square + 1.33314422036e-1F;
  p = p * square - 3.33332819422e-1F;
  const Floats near = p * square * x + x;
  Floats e = magnitude * 2.0F;
  exponential_of(e);
  const Floats far = 1.0F - 2.0F / (e + 1.0F);
  const Floats with_sign = x < 0 ? -far : far;
  x = magnitude < 0.625F ? near : with_sign;
}

SECATEUR_INLINE void sigmoid_of(Floats& x) {
  Floats e = -x;
  exponential_of(e);
  x = 1.0F / (1.0F + e);
}

// erf to 4e-7, by the quotient of polynomials that Eigen, and so TensorFlow, uses: x P(x^2) /
// Q(x^2) up to 4, where the result is 1.
SECATEUR_INLINE void erf_of(Floats& x) {
  x = x < -4.0F ? Floats{} - 4.0F : x;
  x = x > 4.0F ? Floats{} + 4.0F : x;
  const Floats square = x * x;
  Floats p = square * -2.72614225801306e-10F + 2.77068142495902e-08F;
  p = p * square - 2.10102402082508e-06F;
  p = p * square - 5.69250639462346e-05F;
  p = p * square - 7.34990630326855e-04F;
  p = p * square - 2.95459980854025e-03F;
  p = p * square - 1.60960333262415e-02F;
  Floats q = square * -1.45660718464996e-05F - 2.13374055278905e-04F;
  q = q * square - 1.68282697438203e-03F;
  q = q * square - 7.37332916720468e-03F;
  q = q * square - 1.42647390514189e-02F;
  x = x * p / q;
}

SECATEUR_INLINE void log1p_of_small_exponential(Floats& e) {
  // log(1 + e) for 0 <= e <= 1, by atanh: log(1 + e) = 2 atanh(e / (2 + e)).
  const Floats s = e / (2.0F + e);
  const Floats q = s * s;
  Floats p = q * (1.0F / 15) + (1.0F / 13);
  p = p * q + (1.0F / 11);
  p = p * q + (1.0F / 9);
  p = p * q + (1.0F / 7);
  p = p * q + (1.0F / 5);
  p = p * q + (1.0F / 3);
  e = 2.0F * (s + s * q * p);
}

SECATEUR_INLINE void activate(Floats& x, Activation activation, float slope, float ceiling) {
  Floats limit;
  switch (activation) {
    case Activation::linear:
      return;
    case Activation::relu:
      x = x < 0 ? x * slope : x;
      limit = ceiling + Floats{};
      x = x > limit ? limit : x;
      return;
    case Activation::tanh:
      tanh_of(x);
      return;
    case Activation::sigmoid:
      sigmoid_of(x);
      return;
    case Activation::silu: {
      Floats s = x;
      sigmoid_of(s);
      x = x * s;
      return;
    }
    case Activation::gelu: {
      Floats half = x * 0.70710678118654752F;
      erf_of(half);
      // Past the range it is 0, which -infinity must not be multiplied by.
      x = x < -5.65685425F ? Floats{} : 0.5F * x * (1.0F + half);
      return;
    }
    case Activation::gelu_tanh: {
      Floats t = 0.7978845608028654F * (x + 0.044715F * x * x * x);
      tanh_of(t);
      x = 0.5F * x * (1.0F + t);
      return;
    }
    case Activation::hard_sigmoid:
    case Activation::hard_silu: {
      Floats h = x * (1.0F / 6) + 0.5F;
      h = h < 0 ? Floats{} : h;
      h = h > 1.0F ? Floats{} + 1.0F : h;
      x = activation == Activation::hard_silu ? x * h : h;
      return;
    }
    case Activation::elu:
    case Activation::selu: {
      const bool is_selu = activation == Activation::selu;
      const float alpha = is_selu ? 1.6732632423543772F : slope;
      const float scale = is_selu ? 1.0507009873554805F : 1.0F;
      Floats e = x < 0 ? x : Floats{};
      // e^x - 1 = 2 tanh(x / 2) / (1 - tanh(x / 2)), which does not cancel near zero.
      e = e * 0.5F;
      tanh_of(e);
      e = 2.0F * e / (1.0F - e);
      x = (x < 0 ? alpha * e : x) * scale;
      return;
    }
    case Activation::softplus: {
      Floats e = x < 0 ? x : -x;
      exponential_of(e);
      log1p_of_small_exponential(e);
      x = (x > 0 ? x : Floats{}) + e;
      return;
    }
    case Activation::exponential:
      exponential_of(x);
      return;
    case Activation::softsign:
      x = x / (1.0F + (x < 0 ? -x : x));
      return;
  }
}

template <Activation Kind>
SECATEUR_INLINE void activate_all(float* values, std::size_t count, float slope, float ceiling) {
  for (std::size_t i = 0; i < count; i += kLanes) {
    Floats x;
    load(x, values + i);
    activate(x, Kind, slope, ceiling);
    store(values + i, x);
  }
}

// Whole vectors; the choice of the activation is made once and not for each of them.
SECATEUR_INLINE void activate_all(float* values, std::size_t count, const Finish& finish) {
  switch (finish.activation) {
#define SECATEUR_ALL(kind)                                                       \
  case Activation::kind:                                                         \
    activate_all<Activation::kind>(values, count, finish.slope, finish.ceiling); \
    return;
    case Activation::linear:
      return;
      SECATEUR_ALL(relu)
      SECATEUR_ALL(tanh)
      SECATEUR_ALL(sigmoid)
      SECATEUR_ALL(silu)
      SECATEUR_ALL(gelu)
      SECATEUR_ALL(gelu_tanh)
      SECATEUR_ALL(hard_sigmoid)
      SECATEUR_ALL(hard_silu)
      SECATEUR_ALL(elu)
      SECATEUR_ALL(selu)
      SECATEUR_ALL(softplus)
      SECATEUR_ALL(exponential)
      SECATEUR_ALL(softsign)
#undef SECATEUR_ALL
  }
}

// Writes `count` (at most 16) finished sums of one sample, outputs first ... first + count.
SECATEUR_INLINE void finish_some(Floats& sums, const Finish& finish, std::size_t first,
                                 std::size_t offset, std::size_t count, float* y) {
  Floats other;
  if (finish.bias != nullptr) {
    load_some(other, finish.bias + first, count);
    sums = sums + other;
  }
  activate(sums, finish.activation, finish.slope, finish.ceiling);
  if (finish.residual != nullptr) {
    load_some(other, finish.residual + offset, count);
    sums = sums + other;
  }
  store_some(y + offset, sums, count);
}

// Columns become rows, by exchanging ever larger squares across the diagonal.
SECATEUR_INLINE void transpose_lanes(Floats (&rows)[kLanes]) {
#define SECATEUR_EXCHANGE(step, low, high)                  \
  for (std::size_t i = 0; i < kLanes; ++i) {                \
    if ((i & (step)) != 0) continue;                        \
    const Floats a = rows[i];                               \
    const Floats b = rows[i + (step)];                      \
    rows[i] = __builtin_shufflevector(a, b, low);           \
    rows[i + (step)] = __builtin_shufflevector(a, b, high); \
  }
#define SECATEUR_LIST(...) __VA_ARGS__
  SECATEUR_EXCHANGE(8, SECATEUR_LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
                    SECATEUR_LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
  SECATEUR_EXCHANGE(4, SECATEUR_LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
                    SECATEUR_LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
  SECATEUR_EXCHANGE(2, SECATEUR_LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
                    SECATEUR_LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
  SECATEUR_EXCHANGE(1, SECATEUR_LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
                    SECATEUR_LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#undef SECATEUR_LIST
#undef SECATEUR_EXCHANGE
}

// ---- One body, compiled for each instruction set, with FMA where there is one ----

template <class Body, class Args>
void run_plain(const Args& args) {
  Body::run(args);
}

#if SECATEUR_X86
template <class Body, class Args>
SECATEUR_TARGET_FMA256 void run_fma256(const Args& args) {
  Body::run(args);
}

template <class Body, class Args>
SECATEUR_TARGET_FMA512 void run_fma512(const Args& args) {
  Body::run(args);
}
#endif

template <class Body, class Args>
auto fma_variant() {
#if SECATEUR_X86
  return pick(&run_plain<Body, Args>, &run_fma256<Body, Args>, &run_fma512<Body, Args>);
#else
  return &run_plain<Body, Args>;
#endif
}

}  // namespace secateur
