#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "codec_samples.hpp"
#include "levels.hpp"
#include "secateur/codec.hpp"

using namespace secateur;
using samples::Content;
using samples::Maker;
using samples::Sample;

namespace {

constexpr std::array<Numbers, 3> kNumbers{Numbers::unsigned_integers, Numbers::signed_integers,
                                          Numbers::floats};

CodedItems coded_items(const std::vector<std::uint8_t>& bytes, const Sample& sample) {
  return {bytes.data(), bytes.size(), sample.size, sample.item_size, sample.numbers};
}

// Vectors of exactly the right size: AddressSanitizer sees any access past them.
struct Decoded {
  CodecFault fault;
  std::vector<std::uint8_t> bytes;
};

Decoded decode(const CodedItems& coded) {
  std::vector<std::uint64_t> offsets(packing_chunks(coded.size) + 1);
  Decoded result{codec_offsets(coded, offsets.data()), {}};
  if (result.fault != CodecFault::none) return result;
  result.bytes.resize(coded.size * coded.item_size);
  result.fault = codec_decode(coded, offsets.data(), result.bytes.data());
  return result;
}

bool is_same(const std::vector<std::uint8_t>& bytes, const Sample& sample) {
  return bytes.size() == sample.num_bytes() &&
         (bytes.empty() || std::memcmp(bytes.data(), sample.memory.data(), bytes.size()) == 0);
}

// ---- Round trips ----

template <class Index>
std::vector<std::uint8_t> dense_from_csr(const CodedItems& coded, std::size_t cols) {
  const MatrixShape shape{coded.size / cols, cols};
  std::vector<std::uint64_t> offsets(packing_chunks(coded.size) + 1);
  CHECK(codec_offsets(coded, offsets.data()) == CodecFault::none);
  const auto count = static_cast<std::size_t>(offsets.back());
  std::vector<std::uint8_t> values(count * coded.item_size);
  std::vector<Index> indices(count);
  std::vector<Index> indptr(shape.rows + 1);
  CHECK(codec_to_csr(coded, offsets.data(), shape, values.data(), indices.data(), indptr.data()) ==
        CodecFault::none);
  std::vector<std::uint8_t> dense(coded.size * coded.item_size);
  for (std::size_t row = 0; row < shape.rows; ++row) {
    for (auto k = static_cast<std::size_t>(indptr[row]);
         k < static_cast<std::size_t>(indptr[row + 1]); ++k) {
      const std::size_t at = row * cols + static_cast<std::size_t>(indices[k]);
      std::memcpy(dense.data() + at * coded.item_size, values.data() + k * coded.item_size,
                  coded.item_size);
    }
  }
  return dense;
}

void comes_back(const Sample& sample) {
  const std::vector<std::uint8_t> bytes = samples::encode(sample);
  CHECK(bytes.size() >= codec_least_bytes(sample.size));
  CHECK(bytes.size() <= codec_least_bytes(sample.size) + sample.num_bytes());
  const Decoded decoded = decode(coded_items(bytes, sample));
  CHECK(decoded.fault == CodecFault::none);
  CHECK(is_same(decoded.bytes, sample));
  if (sample.size % 5 == 0 && sample.size != 0) {
    CHECK(is_same(dense_from_csr<std::int32_t>(coded_items(bytes, sample), 5), sample));
    CHECK(is_same(dense_from_csr<std::int64_t>(coded_items(bytes, sample), sample.size), sample));
  }
}

void every_size_and_type_comes_back() {
  for (const std::size_t item_size : {1U, 2U, 4U, 8U}) {
    for (const Numbers numbers : kNumbers) {
      Maker maker(item_size, numbers, 7);
      for (const std::size_t size : {0U, 1U, 2U, 7U, 8U, 15U, 33U, 64U, 65U, 4095U, 4096U, 4130U}) {
        for (const Content content : samples::kContents) {
          for (const double density : {0.02, 0.4, 1.0}) {
            comes_back(maker.make(size, content, density));
          }
        }
      }
    }
  }
}

void large_ones_come_back() {
  for (const std::size_t item_size : {2U, 4U}) {
    Maker maker(item_size, Numbers::floats, 3);
    for (const std::size_t size : {65535U, 65536U, 65537U, 131080U, 200000U}) {
      for (const Content content : samples::kContents) comes_back(maker.make(size, content, 0.1));
      comes_back(maker.make(size, Content::normal, 0.5));
      comes_back(maker.make(size, Content::normal, 1.0));
    }
  }
}

// ---- The bytes ----

void the_bytes_depend_on_nothing_else() {
  Maker maker(4, Numbers::floats, 11);
  for (const double density : {0.02, 0.2, 0.5, 1.0}) {
    const Sample sample = maker.make(150000, Content::normal, density);
    std::vector<std::uint8_t> first;
    at_every_level([&] {
      const std::vector<std::uint8_t> bytes = samples::encode(sample);
      if (first.empty()) first = bytes;
      CHECK(bytes == first);
    });
  }
}

// Of an array of one chunk: flags, a length, and the header's first byte.
unsigned positions_of(const std::vector<std::uint8_t>& bytes) { return bytes[5] & 7U; }

void every_form_is_used_where_it_is_smallest() {
  Maker maker(4, Numbers::floats, 5);
  const std::size_t size = 60000;
  CHECK(positions_of(samples::encode(maker.make(size, Content::zeros, 1))) == 0);
  CHECK(positions_of(samples::encode(maker.make(size, Content::normal, 1))) == 1);
  CHECK(positions_of(samples::encode(maker.make(size, Content::normal, 0.5))) == 2);
  CHECK(positions_of(samples::encode(maker.make(size, Content::pattern, 0))) == 3);
  CHECK(positions_of(samples::encode(maker.make(size, Content::long_gaps, 0))) == 4);
  CHECK(positions_of(samples::encode(maker.make(200, Content::random, 0.99))) == 5);
}

void values_that_repeat_have_a_palette() {
  for (const std::size_t item_size : {2U, 4U, 8U}) {
    const Sample sample = Maker(item_size, Numbers::floats, 5).make(60000, Content::quantised, 1);
    const std::vector<std::uint8_t> bytes = samples::encode(sample);
    CHECK((bytes[5] >> 6 & 1U) == 1);
    CHECK(8 * bytes.size() < 6 * sample.size);
  }
}

void float32_is_near_its_entropy() {
  Maker maker(4, Numbers::floats, 6);
  const std::size_t size = 1 << 18;
  // H(1/10) + 1/10 of a normal value's 26.46 bits.
  const std::size_t bytes = samples::encode(maker.make(size, Content::normal, 0.1)).size();
  const double bits = static_cast<double>(8 * bytes) / static_cast<double>(size);
  CHECK(bits > 3.115 && bits < 3.18);
}

// ---- Bytes that no encoder made ----

void truncations_and_tails_are_found() {
  const Sample sample = Maker(4, Numbers::floats, 2).make(700, Content::normal, 0.2);
  const std::vector<std::uint8_t> bytes = samples::encode(sample);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    const std::vector<std::uint8_t> cut(bytes.begin(),
                                        bytes.begin() + static_cast<std::ptrdiff_t>(length));
    CHECK(decode(coded_items(cut, sample)).fault != CodecFault::none);
  }
  std::vector<std::uint8_t> longer = bytes;
  longer.push_back(0);
  CHECK(decode(coded_items(longer, sample)).fault == CodecFault::lengths);
}

void flipped_bits_are_found() {
  for (const Content content : samples::kContents) {
    const Sample sample = Maker(4, Numbers::floats, 4).make(300, content, 0.2);
    std::vector<std::uint8_t> bytes = samples::encode(sample);
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
      const Decoded decoded = decode(coded_items(bytes, sample));
      CHECK(decoded.fault != CodecFault::none || is_same(decoded.bytes, sample));
      bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    }
  }
}

void bytes_of_another_array_are_refused() {
  const Sample sample = Maker(4, Numbers::floats, 9).make(1000, Content::normal, 0.3);
  const std::vector<std::uint8_t> bytes = samples::encode(sample);
  for (const std::size_t size : {std::size_t{0}, std::size_t{999}, std::size_t{1001},
                                 std::size_t{70000}, std::size_t{1} << 40}) {
    const CodedItems other{bytes.data(), bytes.size(), size, 4, Numbers::floats};
    // What the caller has to see before it sets memory aside.
    if (bytes.size() < codec_least_bytes(size)) continue;
    CHECK(decode(other).fault != CodecFault::none);
  }
}

// One edit of a few kinds that a fuzzer would make too.
void mutate(std::vector<std::uint8_t>& bytes, std::mt19937& random) {
  if (bytes.empty()) return;
  const std::size_t at = random() % bytes.size();
  const std::size_t length = std::min<std::size_t>(1 + random() % 8, bytes.size() - at);
  const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  switch (random() % 5) {
    case 0:
      *place ^= static_cast<std::uint8_t>(1U << random() % 8);
      break;
    case 1:
      *place = static_cast<std::uint8_t>(random());
      break;
    case 2:
      std::fill_n(place, length, random() % 2 == 0 ? 0x00 : 0xFF);
      break;
    case 3:
      bytes.erase(place, place + static_cast<std::ptrdiff_t>(length));
      break;
    default:
      bytes.insert(place, length, static_cast<std::uint8_t>(random()));
  }
}

// Whatever the bytes are: no access outside, and nothing passes for another array.
void mutated_bytes_are_refused_or_harmless() {
  std::mt19937 random(1);
  std::size_t refused = 0;
  std::size_t tried = 0;
  for (const std::size_t item_size : {1U, 2U, 4U, 8U}) {
    Maker maker(item_size, kNumbers[item_size % 3], 8);
    for (const Content content : samples::kContents) {
      for (const std::size_t size : {40U, 5000U}) {
        const Sample sample = maker.make(size, content, 0.2);
        const std::vector<std::uint8_t> bytes = samples::encode(sample);
        for (int step = 0; step < 300; ++step) {
          std::vector<std::uint8_t> mutated = bytes;
          for (auto edits = 1 + random() % 3; edits > 0; --edits) mutate(mutated, random);
          if (mutated.size() < codec_least_bytes(size)) continue;
          const Decoded decoded = decode(coded_items(mutated, sample));
          CHECK(decoded.fault != CodecFault::none || is_same(decoded.bytes, sample));
          refused += decoded.fault != CodecFault::none;
          ++tried;
        }
      }
    }
  }
  CHECK(refused > tried / 2);
}

void random_bytes_are_refused() {
  std::mt19937 random(2);
  for (int step = 0; step < 5000; ++step) {
    std::vector<std::uint8_t> bytes(13 + random() % 200);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    if (step % 2 == 0) {  // lengths that add up let it further in
      const auto payload = static_cast<std::uint32_t>(bytes.size() - 5);
      bytes[0] = 0;
      std::memcpy(bytes.data() + 1, &payload, sizeof(payload));
      bytes[6] = static_cast<std::uint8_t>(random() % 100);
      bytes[7] = bytes[8] = 0;
    }
    const CodedItems coded{bytes.data(), bytes.size(), 100, 4, Numbers::floats};
    CHECK(decode(coded).fault != CodecFault::none);
  }
}

}  // namespace

int main() {
  at_every_level([] { large_ones_come_back(); });
  at_every_level(
      [] {
        every_size_and_type_comes_back();
        truncations_and_tails_are_found();
        flipped_bits_are_found();
        mutated_bytes_are_refused_or_harmless();
        random_bytes_are_refused();
        bytes_of_another_array_are_refused();
      },
      {1});
  every_form_is_used_where_it_is_smallest();
  values_that_repeat_have_a_palette();
  float32_is_near_its_entropy();
  the_bytes_depend_on_nothing_else();
  return 0;
}
