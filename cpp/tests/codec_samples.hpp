// Arrays of every kind that the codec tells apart, for its tests and as a start for its fuzzer.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "secateur/codec.hpp"

namespace samples {

struct Sample {
  std::vector<std::uint64_t> memory;  // as raw bytes, aligned for any item
  std::size_t size;
  std::size_t item_size;
  secateur::Numbers numbers;

  secateur::Items items() const { return {memory.data(), size, item_size}; }
  std::size_t num_bytes() const { return size * item_size; }
};

enum class Content { zeros, constant, small, quantised, normal, random, pattern, long_gaps };

inline constexpr Content kContents[] = {Content::zeros,     Content::constant, Content::small,
                                        Content::quantised, Content::normal,   Content::random,
                                        Content::pattern,   Content::long_gaps};

class Maker {
 public:
  Maker(std::size_t item_size, secateur::Numbers numbers, unsigned seed)
      : item_size_(item_size), numbers_(numbers), random_(seed) {}

  Sample make(std::size_t size, Content content, double density) {
    Sample sample{std::vector<std::uint64_t>((size * item_size_ + 7) / 8), size, item_size_,
                  numbers_};
    auto* to = reinterpret_cast<std::uint8_t*>(sample.memory.data());
    std::uniform_real_distribution<double> uniform;
    for (std::size_t i = 0; i < size; ++i) {
      const bool kept = content == Content::pattern     ? i % 4 < 2
                        : content == Content::long_gaps ? i % 1999 == 1998
                                                        : uniform(random_) < density;
      const std::uint64_t bits = kept ? item(content) : 0;
      std::memcpy(to + i * item_size_, &bits, item_size_);
    }
    return sample;
  }

 private:
  std::uint64_t item(Content content) {
    switch (content) {
      case Content::zeros:
        return 0;
      case Content::constant:
        return 0x3F80;
      case Content::small:
        return random_() % 5;
      case Content::quantised:  // few values, but no range that they fill
        return (random_() % 50 + 1) * 0x9E3779B97F4A7C15U | 1U;
      case Content::normal:
      case Content::pattern:
      case Content::long_gaps:
        return normal();
      case Content::random:
        break;
    }
    return random_();
  }

  std::uint64_t normal() {
    const double value = normal_(random_);
    if (item_size_ == 8) return bits_of(value);
    const std::uint64_t wide = bits_of(static_cast<float>(value));
    return item_size_ == 4 ? wide : wide >> 16;  // the halves are bfloat16
  }

  template <class T>
  static std::uint64_t bits_of(T value) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(value));
    return bits;
  }

  std::size_t item_size_;
  secateur::Numbers numbers_;
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
};

inline std::vector<std::uint8_t> encode(const Sample& sample) {
  const secateur::Coded coded = secateur::codec_encode(sample.items(), sample.numbers);
  std::vector<std::uint8_t> bytes(coded.num_bytes());
  coded.write(bytes.data());
  return bytes;
}

}  // namespace samples
