#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "check.hpp"
#include "levels.hpp"
#include "secateur/obs.hpp"

namespace {

using namespace secateur;

struct Case {
  std::size_t rows, width, kept, group;
  std::vector<float> weight, factor, errors;
  std::vector<std::uint8_t> mask;

  Case(std::size_t r, std::size_t w, std::size_t n, std::size_t m)
      : rows(r),
        width(w),
        kept(n),
        group(m),
        weight(r * w),
        factor(w * w),
        errors(r * w, 9.0F),
        mask(r * w) {
    std::mt19937 random(static_cast<unsigned>(w));
    for (float& value : weight) value = static_cast<float>(random() % 7) - 3.0F;
    for (std::size_t i = 0; i < w * w; ++i) {
      factor[i] = 0.25F + static_cast<float>(random() % 64) / 64.0F;
    }
    for (std::uint8_t& keep : mask) keep = static_cast<std::uint8_t>(random() % 2);
  }

  ObsBlock block() {
    return {weight.data(), factor.data(), mask.data(), errors.data(), rows, width, kept, group};
  }
};

// Column by column over the whole block, as the paper's code goes.
void oracle(Case& c) {
  for (std::size_t j = 0; j < c.width; ++j) {
    for (std::size_t r = 0; r < c.rows; ++r) {
      float* w = &c.weight[r * c.width];
      std::uint8_t* mask = &c.mask[r * c.width];
      if (c.group != 0 && j % c.group == 0) {
        const std::size_t end = std::min(c.width, j + c.group);
        for (std::size_t i = j; i < end; ++i) {
          std::size_t better = 0;
          for (std::size_t k = j; k < end; ++k) {
            const float a = std::fabs(w[i] / c.factor[i * c.width + i]);
            const float b = std::fabs(w[k] / c.factor[k * c.width + k]);
            better += b > a || (b == a && k > i);
          }
          mask[i] = better < c.kept;
        }
      }
      const float error = mask[j] != 0 ? 0.0F : w[j] / c.factor[j * c.width + j];
      c.errors[r * c.width + j] = error;
      if (mask[j] != 0) continue;
      for (std::size_t i = j + 1; i < c.width; ++i) w[i] -= error * c.factor[j * c.width + i];
      w[j] = 0.0F;
    }
  }
}

void check_case(std::size_t rows, std::size_t width, std::size_t kept, std::size_t group) {
  Case swept(rows, width, kept, group);
  Case expected(rows, width, kept, group);
  obs_sweep(swept.block());
  oracle(expected);
  CHECK(swept.weight == expected.weight);
  CHECK(swept.mask == expected.mask);
  CHECK(swept.errors == expected.errors);
}

}  // namespace

int main() {
  at_every_level([] {
    for (const std::size_t width : {1U, 7U, 16U, 17U, 33U, 128U}) {
      check_case(300, width, 0, 0);
      check_case(300, width, 2, 4);
      check_case(3, width, 1, 3);
      check_case(0, width, 1, 3);
    }
  });
  return 0;
}
