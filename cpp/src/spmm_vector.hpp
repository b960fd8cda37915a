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

// Vectors are taken by reference: by value their calling convention depends on the target.
SECATEUR_INLINE float sum_lanes(const Floats& values) {
  float parts[kLanes];
  std::memcpy(parts, &values, sizeof(parts));
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) parts[i] += parts[i + half];
  }
  return parts[0];
}

SECATEUR_INLINE float max_lanes(const Floats& values) {
  float parts[kLanes];
  std::memcpy(parts, &values, sizeof(parts));
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) {
      parts[i] = parts[i] > parts[i + half] ? parts[i] : parts[i + half];
    }
  }
  return parts[0];
}

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

// erfc(z), z >= 0, to 1.2e-7 of its value (Press et al., Numerical Recipes, 6.2): relative, so that
// gelu is right in its left tail as well.
SECATEUR_INLINE void erfc_of(Floats& z) {
  const Floats t = 1.0F / (1.0F + 0.5F * z);
  Floats p = t * 0.17087277F - 0.82215223F;
  p = p * t + 1.48851587F;
  p = p * t - 1.13520398F;
  p = p * t + 0.27886807F;
  p = p * t - 0.18628806F;
  p = p * t + 0.09678418F;
  p = p * t + 0.37409196F;
  p = p * t + 1.00002368F;
  p = p * t - 1.26551223F;
  Floats e = p - z * z;
  exponential_of(e);
  z = t * e;
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
      // The part below 20 is all there is to take off, and keeps infinity from meeting zero.
      Floats part = x < 0 ? -x : x;
      part = part > 20.0F ? Floats{} + 20.0F : part;
      Floats tail = part * 0.70710678118654752F;
      erfc_of(tail);
      part = part * tail * 0.5F;
      x = x < 0 ? -part : x - part;
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
