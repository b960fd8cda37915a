#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "levels.hpp"
#include "secateur/patterns.hpp"

namespace {

using namespace secateur;

template <class Number>
constexpr DType dtype_of() {
  return sizeof(Number) == 8 ? DType::float64 : DType::float32;
}

// Few different values, so that ties are everywhere; both zeros are among them.
template <class Number>
std::vector<Number> numbers(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Number> values(size);
  for (Number& value : values) {
    value = static_cast<Number>(random() % 7) * static_cast<Number>(random() % 2 == 0 ? 1 : -1);
  }
  return values;
}

// True if element `a` of a group goes before element `b` when weights are removed.
template <class Number>
bool goes_first(Number a, std::size_t place_a, Number b, std::size_t place_b, Order order) {
  const Number x = order == Order::value ? a : std::fabs(a);
  const Number y = order == Order::value ? b : std::fabs(b);
  return x < y || (x == y && place_a < place_b);
}

template <class Number>
void check_groups(std::size_t outer, std::size_t length, std::size_t inner, GroupRule rule) {
  const auto values = numbers<Number>(outer * length * inner, static_cast<unsigned>(length));
  std::vector<std::uint8_t> mask(values.size(), 7);
  CHECK(nm_mask({values.data(), dtype_of<Number>(), outer, length, inner}, rule, mask.data()));
  const auto m = static_cast<std::size_t>(rule.m);
  for (std::size_t o = 0; o < outer; ++o) {
    for (std::size_t w = 0; w < inner; ++w) {
      const auto at = [&](std::size_t p) { return (o * length + p) * inner + w; };
      for (std::size_t p = 0; p < length; ++p) {
        const std::size_t start = p / m * m;
        int beaten_by = 0;
        for (std::size_t q = start; q < std::min(length, start + m); ++q) {
          beaten_by += goes_first(values[at(p)], p, values[at(q)], q, rule.order) ? 1 : 0;
        }
        CHECK(mask[at(p)] == (beaten_by < rule.n ? 1 : 0));
      }
    }
  }
}

template <class Number>
void every_rule_at_every_tail() {
  for (int m = 1; m <= kMaxGroup; ++m) {
    for (int n = 0; n <= m; n += (m > 8 && n > 0 ? 6 : 1)) {
      const Order order = (n + m) % 2 == 0 ? Order::magnitude : Order::value;
      for (const std::size_t length : {0U, 1U, 17U, 33U, 65U}) {
        check_groups<Number>(2, length, 1, {n, m, order});
      }
      check_groups<Number>(1, static_cast<std::size_t>(m) * 70 + 1, 1, {n, m, order});
      check_groups<Number>(1, 35, 65, {n, m, order});
      check_groups<Number>(2, 5, 3, {n, m, order});
    }
  }
}

void what_cannot_be_ranked_is_found() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const int m : {1, 4, 16, 20, 32}) {
    for (const std::size_t inner : {std::size_t{1}, std::size_t{3}}) {
      std::vector<float> values = numbers<float>(99, 1);
      std::vector<std::uint8_t> mask(values.size());
      const Grouped elements{values.data(), DType::float32, 1, 99 / inner, inner};
      for (const int n : {0, 1, m}) {
        values[98] = -kInfinity;
        CHECK(!nm_mask(elements, {n, m, Order::magnitude}, mask.data()));
        CHECK(nm_mask(elements, {n, m, Order::value}, mask.data()));
        values[98] = std::numeric_limits<float>::quiet_NaN();
        CHECK(!nm_mask(elements, {n, m, Order::value}, mask.data()));
      }
    }
  }
}

void check_expansion(std::size_t outer, std::size_t inner, bool transposed, std::size_t high,
                     std::size_t wide) {
  const BlockGrid grid{outer, inner, high, wide};
  const std::size_t bands = (outer + high - 1) / high;
  const std::size_t per_band = (inner + wide - 1) / wide;
  std::vector<std::uint8_t> blocks(bands * per_band);
  std::mt19937 random(static_cast<unsigned>(outer));
  for (auto& block : blocks) block = static_cast<std::uint8_t>(random() % 2);
  std::vector<std::uint8_t> mask(outer * inner, 7);
  expand_blocks(blocks.data(), transposed, grid, mask.data());
  for (std::size_t i = 0; i < outer; ++i) {
    for (std::size_t j = 0; j < inner; ++j) {
      const std::size_t band = i / high;
      const std::size_t block = j / wide;
      CHECK(mask[i * inner + j] ==
            blocks[transposed ? block * bands + band : band * per_band + block]);
    }
  }
}

void blocks_are_expanded() {
  for (const bool transposed : {false, true}) {
    for (const std::size_t high : {1U, 2U, 4U, 5U, 1000U}) {
      for (const std::size_t wide : {1U, 2U, 3U, 4U, 8U, 16U, 1000U}) {
        for (const std::size_t size : {0U, 1U, 7U, 33U, 65U}) {
          check_expansion(size, 33, transposed, high, wide);
          check_expansion(19, size, transposed, high, wide);
        }
        check_expansion(530, 270, transposed, high, wide);
      }
    }
  }
}

}  // namespace

int main() {
  at_every_level([] {
    every_rule_at_every_tail<float>();
    every_rule_at_every_tail<double>();
    what_cannot_be_ranked_is_found();
    blocks_are_expanded();
  });
  return 0;
}
