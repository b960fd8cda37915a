// Frequency tables: what they cost, how counts become one, and how it is stored.
#include <algorithm>
#include <bit>

#include "codec_ans.hpp"

namespace secateur::codec {
namespace {

std::uint64_t sum(const Histogram& counts) {
  std::uint64_t total = 0;
  for (const std::uint64_t count : counts) total += count;
  return total;
}

// Whether count_a / frequency_a > count_b / frequency_b. Counts stay below 2^51, see normalise.
bool ranks_above(std::uint64_t count_a, std::uint32_t frequency_a, std::uint64_t count_b,
                 std::uint32_t frequency_b) {
  return count_a * frequency_b > count_b * frequency_a;
}

// One more for the symbol that has least of what it should have.
void raise_one(const Histogram& counts, Frequencies& frequencies) {
  std::size_t best = 256;
  for (std::size_t s = 0; s < 256; ++s) {
    if (counts[s] == 0) continue;
    if (best == 256 || ranks_above(counts[s], frequencies[s], counts[best], frequencies[best])) {
      best = s;
    }
  }
  ++frequencies[best];
}

// One less for the symbol that has most over what it should have, and can spare it.
void lower_one(const Histogram& counts, Frequencies& frequencies) {
  std::size_t best = 256;
  for (std::size_t s = 0; s < 256; ++s) {
    if (frequencies[s] < 2) continue;
    if (best == 256 ||
        ranks_above(counts[best], frequencies[best] - 1U, counts[s], frequencies[s] - 1U)) {
      best = s;
    }
  }
  --frequencies[best];
}

}  // namespace

std::uint64_t log2_cost(std::uint64_t n) {
  const auto exponent = static_cast<unsigned>(std::bit_width(n)) - 1;
  // 1 <= x < 2 in 1/2^31; squaring it doubles its logarithm, whose next bit then shows.
  std::uint64_t x = exponent <= 31 ? n << (31 - exponent) : n >> (exponent - 31);
  std::uint64_t fraction = 0;
  for (int bit = 0; bit < 8; ++bit) {
    x = (x * x) >> 31;
    fraction <<= 1;
    if (x >> 32 != 0) {
      fraction |= 1;
      x >>= 1;
    }
  }
  return std::uint64_t{exponent} * 256 + fraction;
}

std::uint64_t entropy_cost(const Histogram& counts) {
  const std::uint64_t total = sum(counts);
  if (total == 0) return 0;
  std::uint64_t cost = total * log2_cost(total);
  for (const std::uint64_t count : counts) {
    if (count != 0) cost -= count * log2_cost(count);
  }
  return cost;
}

Frequencies normalise(const Histogram& counts) {
  // Large counts are made smaller first, so that no product overflows.
  const auto width = static_cast<unsigned>(std::bit_width(sum(counts)));
  const unsigned drop = width > 48 ? width - 48 : 0;
  Histogram scaled{};
  for (std::size_t s = 0; s < 256; ++s) {
    if (counts[s] != 0) scaled[s] = std::max<std::uint64_t>(1, counts[s] >> drop);
  }
  const std::uint64_t total = sum(scaled);
  Frequencies frequencies{};
  std::int64_t missing = kAnsTotal;
  for (std::size_t s = 0; s < 256; ++s) {
    if (scaled[s] == 0) continue;
    const std::uint64_t nearest = (scaled[s] * kAnsTotal + total / 2) / total;
    frequencies[s] = static_cast<std::uint16_t>(std::max<std::uint64_t>(1, nearest));
    missing -= frequencies[s];
  }
  for (; missing > 0; --missing) raise_one(scaled, frequencies);
  for (; missing < 0; ++missing) lower_one(scaled, frequencies);
  return frequencies;
}

std::uint64_t stream_cost(const Histogram& counts, const Frequencies& frequencies) {
  std::uint64_t cost = 0;
  std::uint64_t total = 0;
  for (std::size_t s = 0; s < 256; ++s) {
    if (counts[s] == 0) continue;
    if (frequencies[s] == 0) return kNoCost;
    if (frequencies[s] == kAnsTotal) return 0;
    cost += counts[s] * (std::uint64_t{kAnsBits} * 256 - log2_cost(frequencies[s]));
    total += counts[s];
  }
  return cost + ans_states(static_cast<std::size_t>(total)) * sizeof(std::uint32_t) * kCostPerByte;
}

void write_frequencies(const Frequencies& frequencies, Bytes& out) {
  std::size_t first = 0;
  std::size_t last = 255;
  while (frequencies[first] == 0) ++first;
  while (frequencies[last] == 0) --last;
  out.push_back(static_cast<std::uint8_t>(first));
  out.push_back(static_cast<std::uint8_t>(last));
  GammaWriter bits(out);
  for (std::size_t s = first; s <= last; ++s) bits.put(frequencies[s] + 1U);
  bits.pad();
}

bool read_frequencies(ByteReader& in, Frequencies& frequencies) {
  std::uint8_t first = 0;
  std::uint8_t last = 0;
  if (!in.read(first) || !in.read(last) || first > last) return false;
  frequencies.fill(0);
  GammaReader bits(in);
  std::uint32_t total = 0;
  for (std::size_t s = first; s <= last; ++s) {
    std::uint32_t next = 0;
    if (!bits.read(kAnsBits, next) || next - 1 > kAnsTotal - total) return false;
    frequencies[s] = static_cast<std::uint16_t>(next - 1);
    total += next - 1;
  }
  return total == kAnsTotal && frequencies[first] != 0 && frequencies[last] != 0 &&
         bits.padding_is_zero();
}

AnsSlots::AnsSlots(const Frequencies& frequencies) {
  std::size_t slot = 0;
  for (std::uint32_t s = 0; s < 256; ++s) {
    const std::uint32_t frequency = frequencies[s];
    if (frequency == 0) continue;
    const std::uint32_t fixed = s | (frequency - 1) << 20;
    for (std::uint32_t k = 0; k < frequency; ++k) entries[slot++] = fixed | k << 8;
  }
}

}  // namespace secateur::codec
