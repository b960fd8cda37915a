#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "levels.hpp"
#include "secateur/saliency.hpp"

namespace {

using namespace secateur;

const std::size_t kSizes[] = {0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 65, 300};

std::vector<float> numbers(std::size_t size) {
  std::mt19937 random(static_cast<unsigned>(size));
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

double chunked_sum(const std::vector<double>& terms) {
  double total = 0.0;
  for (std::size_t start = 0; start < terms.size(); start += kSumChunk) {
    double lanes[kSumLanes] = {};
    const std::size_t end = std::min(terms.size(), start + kSumChunk);
    for (std::size_t i = start; i < end; ++i) lanes[(i - start) % kSumLanes] += terms[i];
    for (std::size_t half = kSumLanes / 2; half > 0; half /= 2) {
      for (std::size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    total += lanes[0];
  }
  return total;
}

void sums_are_exact_to_the_bit() {
  for (const std::size_t outer : {std::size_t{1}, std::size_t{3}, std::size_t{70}}) {
    for (const std::size_t inner : kSizes) {
      const std::vector<float> values = numbers(outer * inner);
      const Matrix matrix{values.data(), DType::float32, outer, inner};
      std::vector<double> across(outer);
      CHECK(squared_sums(matrix, true, nullptr, across.data()));
      for (std::size_t row = 0; row < outer; ++row) {
        std::vector<double> terms(inner);
        for (std::size_t i = 0; i < inner; ++i) {
          const double value = values[row * inner + i];
          terms[i] = value * value;
        }
        CHECK(across[row] == chunked_sum(terms));
      }
      std::vector<double> down(inner);
      CHECK(squared_sums(matrix, false, nullptr, down.data()));
      for (std::size_t col = 0; col < inner; ++col) {
        std::vector<double> terms(outer);
        for (std::size_t i = 0; i < outer; ++i) {
          const double value = values[i * inner + col];
          terms[i] = value * value;
        }
        CHECK(down[col] == chunked_sum(terms));
      }
    }
  }
}

void long_axes_are_summed_in_chunks() {
  const std::size_t size = 2 * kSumChunk + 5;
  const std::vector<float> values = numbers(size);
  std::vector<double> terms(size);
  for (std::size_t i = 0; i < size; ++i) terms[i] = static_cast<double>(values[i]) * values[i];
  double sum = 0.0;
  CHECK(squared_sums({values.data(), DType::float32, 1, size}, true, nullptr, &sum));
  CHECK(sum == chunked_sum(terms));
  CHECK(squared_sums({values.data(), DType::float32, size, 1}, false, nullptr, &sum));
  CHECK(sum == chunked_sum(terms));
}

void magnitudes_are_scaled_in_both_orders() {
  const std::size_t rows = 33;
  const std::size_t cols = 65;
  const std::vector<float> values = numbers(rows * cols);
  std::vector<double> row(rows, 0.3);
  std::vector<double> col(cols, 1.7);
  for (const bool transposed : {false, true}) {
    const Matrix matrix{values.data(), DType::float32, transposed ? cols : rows,
                        transposed ? rows : cols};
    std::vector<float> out(values.size());
    CHECK(scaled_magnitude(matrix, transposed, {row.data(), col.data(), Combine::product},
                           out.data()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double magnitude = std::fabs(static_cast<double>(values[i]));
      CHECK(out[i] == static_cast<float>(magnitude * 0.3 * 1.7));
    }
    CHECK(
        scaled_magnitude(matrix, transposed, {row.data(), nullptr, Combine::root_sum}, out.data()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double magnitude = std::fabs(static_cast<double>(values[i]));
      CHECK(out[i] == static_cast<float>(magnitude * std::sqrt(0.3)));
    }
  }
}

void check_blocks(std::size_t rows, std::size_t cols, bool transposed, BlockShape block) {
  const std::vector<float> values = numbers(rows * cols);
  const std::size_t height = transposed ? block.inner : block.outer;
  const std::size_t width = transposed ? block.outer : block.inner;
  const std::size_t down = (rows + height - 1) / height;
  const std::size_t across = (cols + width - 1) / width;
  std::vector<float> scores(down * across);
  const Matrix matrix{values.data(), DType::float32, transposed ? cols : rows,
                      transposed ? rows : cols};
  CHECK(block_scores(matrix, transposed, block, Norm::l2, scores.data()));
  for (std::size_t i = 0; i < down; ++i) {
    for (std::size_t j = 0; j < across; ++j) {
      double sum = 0.0;
      for (std::size_t c = j * width; c < std::min(cols, (j + 1) * width); ++c) {
        double column = 0.0;
        for (std::size_t r = i * height; r < std::min(rows, (i + 1) * height); ++r) {
          const double value = transposed ? values[c * rows + r] : values[r * cols + c];
          column += value * value;
        }
        sum += column;
      }
      CHECK(scores[i * across + j] == static_cast<float>(std::sqrt(sum)));
    }
  }
}

void block_norms_are_exact_to_the_bit() {
  for (const std::size_t size : kSizes) {
    for (const bool transposed : {false, true}) {
      for (const std::size_t outer : {std::size_t{1}, std::size_t{4}, std::size_t{5}}) {
        for (const std::size_t inner : {std::size_t{1}, std::size_t{2}, std::size_t{3},
                                        std::size_t{4}, std::size_t{16}, std::size_t{1000}}) {
          check_blocks(17, size, transposed, {outer, inner});
        }
      }
    }
  }
  check_blocks(3, 5000, false, {1, 3000});
}

void what_is_not_finite_is_found_anywhere() {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    for (const std::size_t place : {std::size_t{0}, std::size_t{64}, std::size_t{299}}) {
      std::vector<float> values = numbers(300);
      const Matrix matrix{values.data(), DType::float32, 3, 100};
      std::vector<float> out(300);
      std::vector<double> sums(100);
      CHECK(all_finite(matrix));
      values[place] = bad;
      CHECK(!all_finite(matrix));
      CHECK(!squared_sums(matrix, true, nullptr, sums.data()));
      CHECK(!squared_sums(matrix, false, nullptr, sums.data()));
      CHECK(!scaled_magnitude(matrix, false, {nullptr, nullptr, Combine::product}, out.data()));
      CHECK(!block_scores(matrix, true, {2, 2}, Norm::l1, out.data()));
    }
  }
}

void halves_are_widened_exactly() {
  for (std::uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits | 0x8000U);
    const double mantissa = bits & 0x3ffU;
    const int exponent = static_cast<int>(bits >> 10);
    const double expected =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024, exponent - 25);
    float out = 0;
    CHECK(scaled_magnitude({&half, DType::float16, 1, 1}, false,
                           {nullptr, nullptr, Combine::product}, &out));
    CHECK(out == static_cast<float>(expected));
  }
}

}  // namespace

int main() {
  at_every_level(
      [] {
        sums_are_exact_to_the_bit();
        long_axes_are_summed_in_chunks();
        magnitudes_are_scaled_in_both_orders();
        block_norms_are_exact_to_the_bit();
        what_is_not_finite_is_found_anywhere();
      },
      {1, 2, 3});
  halves_are_widened_exactly();
  return 0;
}
