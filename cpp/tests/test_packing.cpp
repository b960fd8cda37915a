#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "levels.hpp"
#include "secateur/packing.hpp"

using namespace secateur;

namespace {

template <class T>
std::vector<T> make_array(std::size_t size, double density, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform;
  std::vector<T> array(size);
  for (T& item : array) {
    item = uniform(random) < density ? static_cast<T>(random() | 1U) : T{0};
  }
  return array;
}

template <class T>
Items items_of(const std::vector<T>& array) {
  return {array.data(), array.size(), sizeof(T)};
}

// Vectors of exactly the right size: AddressSanitizer sees any access past them.
template <class T>
void round_trips(std::size_t size, double density) {
  const std::vector<T> array = make_array<T>(size, density, static_cast<unsigned>(size));
  std::vector<std::uint64_t> offsets(packing_chunks(size) + 1);
  const std::uint64_t total = nonzero_offsets(items_of(array), Zero::by_bits, offsets.data());
  std::vector<T> expected;
  for (const T item : array) {
    if (item != 0) expected.push_back(item);
  }
  CHECK(total == expected.size());

  std::vector<std::uint8_t> bits((size + 7) / 8);
  std::vector<T> values(total);
  bitmask_pack(items_of(array), offsets.data(), bits.data(), values.data());
  CHECK(values == expected);
  std::vector<std::uint64_t> again(offsets.size());
  CHECK(bitmask_offsets(bits.data(), size, again.data()));
  CHECK(again == offsets);
  std::vector<T> out(size, 7);
  bitmask_unpack(bits.data(), offsets.data(), items_of(values), size, out.data());
  CHECK(out == array);

  std::vector<std::uint16_t> positions(total);
  values.assign(total, 0);
  csr16_pack(items_of(array), offsets.data(), positions.data(), values.data());
  CHECK(values == expected);
  out.assign(size, 7);
  CHECK(csr16_unpack(offsets.data(), positions.data(), items_of(values), size, out.data()));
  CHECK(out == array);
}

void every_size_and_type_comes_back() {
  for (const std::size_t size :
       {0U, 1U, 7U, 8U, 15U, 16U, 17U, 31U, 33U, 63U, 64U, 65U, 65535U, 65536U, 65537U, 131080U}) {
    for (const double density : {0.0, 0.3, 1.0}) {
      round_trips<std::uint8_t>(size, density);
      round_trips<std::uint16_t>(size, density);
      round_trips<std::uint32_t>(size, density);
      round_trips<std::uint64_t>(size, density);
    }
  }
}

template <class Index>
void indices_agree(MatrixShape shape, double density) {
  const std::size_t size = shape.rows * shape.cols;
  const auto array = make_array<std::uint32_t>(size, density, 3);
  std::vector<std::uint64_t> offsets(packing_chunks(size) + 1);
  const std::uint64_t total = nonzero_offsets(items_of(array), Zero::by_bits, offsets.data());
  std::vector<std::uint8_t> bits((size + 7) / 8);
  std::vector<std::uint32_t> values(total);
  std::vector<std::uint16_t> positions(total);
  bitmask_pack(items_of(array), offsets.data(), bits.data(), values.data());
  csr16_pack(items_of(array), offsets.data(), positions.data(), values.data());

  std::vector<Index> expected;
  std::vector<Index> starts{0};
  for (std::size_t r = 0; r < shape.rows; ++r) {
    for (std::size_t c = 0; c < shape.cols; ++c) {
      if (array[r * shape.cols + c] != 0) expected.push_back(static_cast<Index>(c));
    }
    starts.push_back(static_cast<Index>(expected.size()));
  }
  std::vector<Index> indices(total);
  std::vector<Index> indptr(shape.rows + 1, 7);
  bitmask_to_csr(bits.data(), offsets.data(), shape, indices.data(), indptr.data());
  CHECK(indices == expected && indptr == starts);
  indices.assign(total, 7);
  indptr.assign(shape.rows + 1, 7);
  CHECK(csr16_to_csr(offsets.data(), positions.data(), shape, indices.data(), indptr.data()));
  CHECK(indices == expected && indptr == starts);
}

void matrices_of_every_form_get_their_indices() {
  for (const std::size_t cols : {0U, 1U, 3U, 8U, 15U, 16U, 17U, 100U, 70000U}) {
    for (const std::size_t rows : {0U, 1U, 2U, 66000U}) {
      if (rows * cols > 150000) continue;
      for (const double density : {0.0, 0.3, 1.0}) {
        indices_agree<std::int32_t>({rows, cols}, density);
        indices_agree<std::int64_t>({rows, cols}, density);
      }
    }
  }
}

void bad_input_is_found() {
  std::vector<std::uint64_t> offsets(2);
  const std::vector<std::uint8_t> bits{0xFF, 0x10};
  CHECK(!bitmask_offsets(bits.data(), 12, offsets.data()));
  CHECK(bitmask_offsets(bits.data(), 13, offsets.data()));

  const std::vector<std::uint32_t> values{1, 2};
  std::vector<std::uint32_t> out(10);
  offsets = {0, 2};
  for (const std::vector<std::uint16_t>& positions :
       {std::vector<std::uint16_t>{3, 3}, {4, 3}, {3, 10}, {65535, 1}}) {
    CHECK(!csr16_unpack(offsets.data(), positions.data(), items_of(values), 10, out.data()));
  }
}

// The array may change while we read it: the result is then wrong, but stays in its bounds.
void more_nonzeros_than_counted_write_nothing_more() {
  for (const std::size_t size : {40U, 200U, 65536U}) {
    const auto array = make_array<std::uint16_t>(size, 1.0, 1);
    const std::size_t counted = size / 3;
    const std::vector<std::uint64_t> offsets{0, counted};
    std::vector<std::uint16_t> values(counted);
    std::vector<std::uint16_t> positions(counted);
    std::vector<std::uint8_t> bits((size + 7) / 8);
    bitmask_pack(items_of(array), offsets.data(), bits.data(), values.data());
    csr16_pack(items_of(array), offsets.data(), positions.data(), values.data());
    std::vector<std::uint16_t> out(size);
    bitmask_unpack(bits.data(), offsets.data(), items_of(values), size, out.data());
    CHECK(std::memcmp(values.data(), array.data(), counted * sizeof(values[0])) == 0);
  }
}

}  // namespace

int main() {
  at_every_level([] {
    every_size_and_type_comes_back();
    matrices_of_every_form_get_their_indices();
    bad_input_is_found();
    more_nonzeros_than_counted_write_nothing_more();
  });
  return 0;
}
