#include <cstddef>
#include <random>
#include <vector>

#include "check.hpp"
#include "levels.hpp"
#include "secateur/gemm.hpp"
#include "secateur/simd.hpp"

namespace {

using namespace secateur;

// A matrix of small whole numbers, whose products are exact, in a vector without a spare element,
// so that sanitizers see every step beyond it.
struct Whole {
  std::vector<float> values;
  FloatView view;

  Whole(std::size_t rows, std::size_t cols, bool turned, unsigned seed)
      : values(rows * cols), view{values.data(), rows, cols, turned ? 1 : cols, turned ? rows : 1} {
    std::mt19937 random(seed);
    for (float& value : values) value = static_cast<float>(random() % 9) - 4.0F;
  }

  double at(std::size_t row, std::size_t col) const {
    return static_cast<double>(values[row * view.row_stride + col * view.col_stride]);
  }
};

std::vector<double> oracle(const Whole& a, const Whole& b) {
  std::vector<double> out(a.view.rows * b.view.cols, 0.0);
  for (std::size_t i = 0; i < a.view.rows; ++i) {
    for (std::size_t k = 0; k < a.view.cols; ++k) {
      for (std::size_t j = 0; j < b.view.cols; ++j) {
        out[i * b.view.cols + j] += a.at(i, k) * b.at(k, j);
      }
    }
  }
  return out;
}

void check_product(std::size_t m, std::size_t k, std::size_t n, bool left, bool right) {
  const Whole a(m, k, left, 1);
  const Whole b(k, n, right, 2);
  const std::vector<double> expected = oracle(a, b);
  std::vector<float> out(m * n, 9.0F);
  std::vector<double> wide(m * n, 1.0);
  multiply(a.view, b.view, out.data(), Update::set);
  for (std::size_t i = 0; i < m * n; ++i) CHECK(static_cast<double>(out[i]) == expected[i]);
  multiply(a.view, b.view, out.data(), Update::add);
  for (std::size_t i = 0; i < m * n; ++i) CHECK(static_cast<double>(out[i]) == 2 * expected[i]);
  multiply(a.view, b.view, out.data(), Update::subtract);
  for (std::size_t i = 0; i < m * n; ++i) CHECK(static_cast<double>(out[i]) == expected[i]);
  add_product(a.view, b.view, wide.data());
  for (std::size_t i = 0; i < m * n; ++i) CHECK(wide[i] == 1 + expected[i]);
}

void check_gram(std::size_t rows, std::size_t width, bool turned) {
  const Whole x(rows, width, turned, 3);
  Whole other = x;
  other.view = {x.values.data(), width, rows, x.view.col_stride, x.view.row_stride};
  const std::vector<double> expected = oracle(other, x);
  std::vector<double> out(width * width, 5.0);
  add_gram(x.view, out.data());
  for (std::size_t i = 0; i < width; ++i) {
    for (std::size_t j = 0; j < width; ++j) {
      CHECK(out[i * width + j] == (j < i ? 5.0 : 5.0 + expected[i * width + j]));
    }
  }
  mirror_upper(out.data(), width);
  for (std::size_t i = 0; i < width * width; ++i) CHECK(out[i] == 5.0 + expected[i]);
}

}  // namespace

int main() {
  at_every_level([] {
    for (const bool left : {false, true}) {
      for (const bool right : {false, true}) {
        for (const std::size_t size : {0U, 1U, 2U, 13U, 15U, 33U}) {
          check_product(size, 7, 100, left, right);
          check_product(100, size, 17, left, right);
          check_product(5, 37, size, left, right);
        }
        check_product(150, 30, 200, left, right);
        check_product(20, 1050, 40, left, right);
      }
      for (const std::size_t width : {0U, 1U, 13U, 33U, 100U, 200U, 301U}) {
        check_gram(width == 200 ? 1030 : 19, width, left);
      }
    }
  });
  // Beyond the lines that are packed at a time.
  const Simd before = active_simd();
  set_active_simd(detected_simd());
  check_product(3100, 2, 3, false, false);
  check_product(3, 2, 3100, false, true);
  check_gram(1, 3100, false);
  set_active_simd(before);
  return 0;
}
