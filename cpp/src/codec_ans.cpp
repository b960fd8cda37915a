// Streams of symbols. The vector variants decode all 32 states of a wide stream side by side: a
// table look-up for each lane, and the words that low states ask for handed out to them in order.
#include "codec_ans.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "secateur/simd.hpp"

#if SECATEUR_X86
#include <immintrin.h>

#include "packing_lanes.hpp"
#endif

namespace secateur::codec {
namespace {

// ---- Encoding ----

struct Interval {
  std::uint32_t start;
  std::uint32_t frequency;
};

std::array<Interval, 256> intervals(const Frequencies& frequencies) {
  std::array<Interval, 256> table{};
  std::uint32_t start = 0;
  for (std::size_t s = 0; s < 256; ++s) {
    table[s] = {start, frequencies[s]};
    start += frequencies[s];
  }
  return table;
}

// From the last symbol to the first, since a state gives back what it took last; `words` comes out
// in reverse.
template <std::size_t N>
void encode_states(const std::uint8_t* symbols, std::size_t count, const Frequencies& frequencies,
                   Bytes& out) {
  const std::array<Interval, 256> table = intervals(frequencies);
  std::array<std::uint32_t, N> states;
  states.fill(kAnsLow);
  std::vector<std::uint16_t> words(count);  // a symbol pushes out one word at most
  std::size_t first = count;
  for (std::size_t i = count; i-- > 0;) {
    const Interval interval = table[symbols[i]];
    std::uint32_t x = states[i % N];
    // A state of this size would leave its range with the symbol added.
    if (x >> (32 - kAnsBits) >= interval.frequency) {
      words[--first] = static_cast<std::uint16_t>(x);
      x >>= 16;
    }
    const std::uint32_t quotient = x / interval.frequency;
    states[i % N] = (quotient << kAnsBits) + (x - quotient * interval.frequency) + interval.start;
  }
  put_bytes(out, states.data(), sizeof(states));
  put_bytes(out, words.data() + first, (count - first) * sizeof(words[0]));
}

// ---- Decoding ----

SECATEUR_INLINE std::uint32_t advance(std::uint32_t x, std::uint32_t entry) {
  return ((entry >> 20) + 1) * (x >> kAnsBits) + (entry >> 8 & (kAnsTotal - 1));
}

SECATEUR_INLINE std::uint32_t look_up(const AnsSlots& slots, std::uint32_t x) {
  return slots.entries[x & (kAnsTotal - 1)];
}

// Whole groups of N symbols for as long as each could take a word; returns how many were decoded.
template <std::size_t N>
std::size_t decode_groups(ByteReader& in, const AnsSlots& slots, std::uint32_t* given,
                          std::uint8_t* symbols, std::size_t count) {
  std::array<std::uint32_t, N> states;
  std::copy_n(given, N, states.data());
  const std::uint8_t* at = in.at;
  std::size_t i = 0;
  for (; i + N <= count && static_cast<std::size_t>(in.end - at) >= 2 * N; i += N) {
#pragma GCC unroll 8
    for (std::size_t lane = 0; lane < N; ++lane) {
      const std::uint32_t entry = look_up(slots, states[lane]);
      const std::uint32_t x = advance(states[lane], entry);
      symbols[i + lane] = static_cast<std::uint8_t>(entry);
      // Without a branch: which states are low is as good as random.
      const bool low = x < kAnsLow;
      states[lane] = low ? x << 16 | load_as<std::uint16_t>(at) : x;
      at += low ? 2 : 0;
    }
  }
  in.at = at;
  std::copy_n(states.data(), N, given);
  return i;
}

bool decode_rest(ByteReader& in, const AnsSlots& slots, std::uint32_t* states,
                 std::size_t num_states, std::uint8_t* symbols, std::size_t begin,
                 std::size_t count) {
  for (std::size_t i = begin; i < count; ++i) {
    std::uint32_t& state = states[i % num_states];
    const std::uint32_t entry = look_up(slots, state);
    state = advance(state, entry);
    symbols[i] = static_cast<std::uint8_t>(entry);
    if (state >= kAnsLow) continue;
    std::uint16_t word = 0;
    if (!in.read(word)) return false;
    state = state << 16 | word;
  }
  return true;
}

using DecodeGroups = std::size_t (*)(ByteReader&, const AnsSlots&, std::uint32_t*, std::uint8_t*,
                                     std::size_t);

#if SECATEUR_X86

// Eight states. Those below kAnsLow take the next words, in order.
SECATEUR_TARGET_AVX2 SECATEUR_INLINE __m256i step256(__m256i x, const AnsSlots& slots,
                                                     __m256i& entry, const std::uint8_t*& at) {
  const __m256i low_bits = _mm256_set1_epi32(static_cast<int>(kAnsTotal - 1));
  entry = _mm256_i32gather_epi32(reinterpret_cast<const int*>(slots.entries.data()),
                                 _mm256_and_si256(x, low_bits), 4);
  const __m256i frequency = _mm256_add_epi32(_mm256_srli_epi32(entry, 20), _mm256_set1_epi32(1));
  const __m256i bias = _mm256_and_si256(_mm256_srli_epi32(entry, 8), low_bits);
  const __m256i next =
      _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32(x, kAnsBits)), bias);
  const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(next, 16), _mm256_setzero_si256());
  const auto set = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(low)));
  const __m256i words =
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  at += 2 * static_cast<std::size_t>(std::popcount(set));
  const __m256i order = _mm256_cvtepi8_epi32(table_row(kExpand[set]));
  const __m256i taken = _mm256_permutevar8x32_epi32(words, order);
  return _mm256_blendv_epi8(next, _mm256_or_si256(_mm256_slli_epi32(next, 16), taken), low);
}

SECATEUR_TARGET_AVX2 SECATEUR_INLINE __m128i symbols256(__m256i first, __m256i second) {
  const __m256i byte = _mm256_set1_epi32(0xFF);
  const __m256i words = _mm256_permute4x64_epi64(
      _mm256_packus_epi32(_mm256_and_si256(first, byte), _mm256_and_si256(second, byte)), 0xD8);
  return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

SECATEUR_TARGET_AVX2 std::size_t decode_groups_avx2(ByteReader& in, const AnsSlots& slots,
                                                    std::uint32_t* given, std::uint8_t* symbols,
                                                    std::size_t count) {
  __m256i a = load256(given);
  __m256i b = load256(given + 8);
  __m256i c = load256(given + 16);
  __m256i d = load256(given + 24);
  const std::uint8_t* at = in.at;
  std::size_t i = 0;
  for (; i + 32 <= count && static_cast<std::size_t>(in.end - at) >= 64; i += 32) {
    __m256i first;
    __m256i second;
    __m256i third;
    __m256i fourth;
    a = step256(a, slots, first, at);
    b = step256(b, slots, second, at);
    c = step256(c, slots, third, at);
    d = step256(d, slots, fourth, at);
    auto* to = reinterpret_cast<__m128i*>(symbols + i);
    _mm_storeu_si128(to, symbols256(first, second));
    _mm_storeu_si128(to + 1, symbols256(third, fourth));
  }
  in.at = at;
  store256(given, a);
  store256(given + 8, b);
  store256(given + 16, c);
  store256(given + 24, d);
  return i;
}

SECATEUR_TARGET_AVX512 SECATEUR_INLINE __m512i step512(__m512i x, const AnsSlots& slots,
                                                       __m512i& entry, const std::uint8_t*& at) {
  const __m512i low_bits = _mm512_set1_epi32(static_cast<int>(kAnsTotal - 1));
  entry = _mm512_i32gather_epi32(_mm512_and_si512(x, low_bits), slots.entries.data(), 4);
  const __m512i frequency = _mm512_add_epi32(_mm512_srli_epi32(entry, 20), _mm512_set1_epi32(1));
  const __m512i bias = _mm512_and_si512(_mm512_srli_epi32(entry, 8), low_bits);
  const __m512i next =
      _mm512_add_epi32(_mm512_mullo_epi32(frequency, _mm512_srli_epi32(x, kAnsBits)), bias);
  const __mmask16 low = _mm512_cmplt_epu32_mask(next, _mm512_set1_epi32(static_cast<int>(kAnsLow)));
  const __m512i words =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  at += 2 * static_cast<std::size_t>(std::popcount(static_cast<unsigned>(low)));
  const __m512i taken = expand512<std::uint32_t>(low, words);
  return _mm512_mask_or_epi32(next, low, _mm512_slli_epi32(next, 16), taken);
}

SECATEUR_TARGET_AVX512 std::size_t decode_groups_avx512(ByteReader& in, const AnsSlots& slots,
                                                        std::uint32_t* given, std::uint8_t* symbols,
                                                        std::size_t count) {
  __m512i a = load512(given);
  __m512i b = load512(given + 16);
  const std::uint8_t* at = in.at;
  std::size_t i = 0;
  for (; i + 32 <= count && static_cast<std::size_t>(in.end - at) >= 64; i += 32) {
    __m512i first;
    __m512i second;
    a = step512(a, slots, first, at);
    b = step512(b, slots, second, at);
    auto* to = reinterpret_cast<__m128i*>(symbols + i);
    _mm_storeu_si128(to, _mm512_cvtepi32_epi8(first));
    _mm_storeu_si128(to + 1, _mm512_cvtepi32_epi8(second));
  }
  in.at = at;
  store512(given, a);
  store512(given + 16, b);
  return i;
}

DecodeGroups wide_groups() {
  return pick(&decode_groups<kAnsWide>, &decode_groups_avx2, &decode_groups_avx512);
}

#else

DecodeGroups wide_groups() { return &decode_groups<kAnsWide>; }

#endif

}  // namespace

void ans_encode(const std::uint8_t* symbols, std::size_t count, const Frequencies& frequencies,
                Bytes& out) {
  if (count == 0 || frequencies[symbols[0]] == kAnsTotal) return;
  const bool wide = ans_states(count) == kAnsWide;
  (wide ? &encode_states<kAnsWide> : &encode_states<kAnsNarrow>)(symbols, count, frequencies, out);
}

bool ans_decode(ByteReader& in, const AnsSlots& slots, std::uint8_t* symbols, std::size_t count) {
  if (slots.entries[0] >> 20 == kAnsTotal - 1) {  // one symbol has all slots
    std::fill_n(symbols, count, static_cast<std::uint8_t>(slots.entries[0]));
    return true;
  }
  const std::size_t num_states = ans_states(count);
  std::array<std::uint32_t, kAnsWide> states;
  const std::uint8_t* from = in.take(num_states * sizeof(states[0]));
  if (from == nullptr) return false;
  std::memcpy(states.data(), from, num_states * sizeof(states[0]));
  const DecodeGroups groups = num_states == kAnsWide ? wide_groups() : &decode_groups<kAnsNarrow>;
  const std::size_t done = groups(in, slots, states.data(), symbols, count);
  if (!decode_rest(in, slots, states.data(), num_states, symbols, done, count)) return false;
  return std::all_of(states.begin(), states.begin() + static_cast<std::ptrdiff_t>(num_states),
                     [](std::uint32_t state) { return state == kAnsLow; });
}

}  // namespace secateur::codec
