// Reading bytes that may say anything, and writing them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace secateur::codec {

static_assert(std::endian::native == std::endian::little, "coded bytes are little-endian");

using Bytes = std::vector<std::uint8_t>;

template <class T>
T load_as(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <class T>
void put(Bytes& out, T value) {
  const std::size_t at = out.size();
  out.resize(at + sizeof(T));
  std::memcpy(out.data() + at, &value, sizeof(T));
}

inline void put_bytes(Bytes& out, const void* from, std::size_t count) {
  const std::size_t at = out.size();
  out.resize(at + count);
  if (count != 0) std::memcpy(out.data() + at, from, count);
}

// What is left to be read. Nothing is ever read past `end`.
struct ByteReader {
  const std::uint8_t* at;
  const std::uint8_t* end;

  std::size_t left() const { return static_cast<std::size_t>(end - at); }

  // The next `count` bytes, or null if there are not so many.
  const std::uint8_t* take(std::size_t count) {
    if (count > left()) return nullptr;
    const std::uint8_t* from = at;
    at += count;
    return from;
  }

  template <class T>
  bool read(T& value) {
    const std::uint8_t* from = take(sizeof(T));
    if (from != nullptr) value = load_as<T>(from);
    return from != nullptr;
  }
};

// Elias gamma code of n >= 1, lowest bit first: as many zeros as n has bits after its first, a one,
// and those bits.
class GammaWriter {
 public:
  explicit GammaWriter(Bytes& out) : out_(out) {}

  void put(std::uint32_t n) {
    const unsigned extra = static_cast<unsigned>(std::bit_width(n)) - 1;
    put_bits(std::uint64_t{1} << extra, extra + 1);
    put_bits(n ^ (std::uint32_t{1} << extra), extra);
  }

  void pad() {
    if (used_ != 0) put_bits(0, 8 - used_);
  }

 private:
  void put_bits(std::uint64_t bits, unsigned count) {
    held_ |= bits << used_;
    for (used_ += count; used_ >= 8; used_ -= 8, held_ >>= 8) {
      out_.push_back(static_cast<std::uint8_t>(held_));
    }
  }

  Bytes& out_;
  std::uint64_t held_ = 0;
  unsigned used_ = 0;
};

class GammaReader {
 public:
  explicit GammaReader(ByteReader& in) : in_(in) {}

  // A number of at most `max_extra` bits after its first; false if there is none.
  bool read(unsigned max_extra, std::uint32_t& n) {
    unsigned extra = 0;
    std::uint32_t bit = 0;
    while (read_bit(bit) && bit == 0 && extra <= max_extra) ++extra;
    if (bit == 0 || extra > max_extra) return false;
    n = std::uint32_t{1} << extra;
    for (unsigned k = 0; k < extra; ++k) {
      if (!read_bit(bit)) return false;
      n |= bit << k;
    }
    return true;
  }

  // Whether nothing but zeros fills up the last byte.
  bool padding_is_zero() const { return held_ == 0; }

 private:
  bool read_bit(std::uint32_t& bit) {
    if (left_ == 0) {
      std::uint8_t next = 0;
      if (!in_.read(next)) return false;
      held_ = next;
      left_ = 8;
    }
    bit = held_ & 1U;
    held_ >>= 1;
    --left_;
    return true;
  }

  ByteReader& in_;
  std::uint32_t held_ = 0;
  unsigned left_ = 0;
};

}  // namespace secateur::codec
