#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "secateur/neural.hpp"
#include "secateur/simd.hpp"
#include "secateur/spmm.hpp"
#include "secateur/threads.hpp"

using namespace secateur;

namespace {

std::vector<float> random_floats(std::size_t count, double density, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<float> found(count);
  for (float& item : found) {
    if (std::abs(uniform(random)) < density) item = static_cast<float>(uniform(random));
  }
  return found;
}

struct Case {
  std::size_t rows;
  std::size_t inputs;
  std::size_t outputs;
  std::vector<float> weights = random_floats(inputs * outputs, 0.3, 1);
  std::vector<float> x = random_floats(rows * inputs, 1, 2);
  std::vector<float> bias = random_floats(outputs, 1, 3);
  std::vector<float> residual = random_floats(rows * outputs, 1, 4);
  std::vector<float> y = std::vector<float>(rows * outputs);

  WeightView view() const { return {weights.data(), outputs, inputs, inputs, 1}; }
  Samples samples() { return {x.data(), y.data(), rows}; }
  Finish finish() const {
    return {bias.data(), residual.data(), Activation::relu, 0,
            std::numeric_limits<float>::infinity()};
  }

  // Checks y against the definition, and clears it.
  void check() {
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t output = 0; output < outputs; ++output) {
        double sum = static_cast<double>(bias[output]);
        for (std::size_t k = 0; k < inputs; ++k) {
          sum += static_cast<double>(weights[output * inputs + k]) *
                 static_cast<double>(x[row * inputs + k]);
        }
        const double wanted =
            std::max(sum, 0.0) + static_cast<double>(residual[row * outputs + output]);
        CHECK(std::abs(wanted - static_cast<double>(y[row * outputs + output])) < 1e-4);
      }
    }
    std::fill(y.begin(), y.end(), -7.0F);
  }
};

void blocked(Case& one, std::size_t height, std::size_t block) {
  const BlockedPlan plan = plan_blocked(one.outputs, one.inputs, height, block);
  const BlockedSizes sizes = measure_blocked(plan, one.view());
  std::vector<float> values(sizes.entries * height);
  std::vector<std::uint8_t> indices(sizes.entries);
  std::vector<std::uint16_t> order(sizes.rows);
  std::vector<BlockedGroup> groups(sizes.groups);
  std::vector<BlockedSegment> segments(plan.num_chunks() * plan.num_blocks() + 1);
  pack_blocked(plan, one.view(),
               {values.data(), indices.data(), order.data(), groups.data(), segments.data()});
  std::vector<float> scratch(blocked_scratch(plan, one.rows) / sizeof(float));
  multiply_blocked(
      {plan, values.data(), indices.data(), order.data(), groups.data(), segments.data()},
      one.samples(), one.finish(), scratch.data());
  one.check();
}

void small(Case& one) {
  const std::uint64_t count = count_nonzeros(one.view());
  std::vector<float> values(count + 16);
  std::vector<std::uint16_t> masks(one.outputs * ((one.inputs + 15) / 16));
  std::vector<std::uint64_t> starts(one.outputs + 1);
  pack_bitmask(one.view(), values.data(), masks.data(), starts.data());
  multiply_bitmask({one.outputs, one.inputs, values.data(), masks.data(), starts.data()},
                   one.samples(), one.finish());
  one.check();
  std::vector<float> entries(count);
  std::vector<std::uint16_t> columns(count);
  pack_short_csr(one.view(), entries.data(), columns.data(), starts.data());
  multiply_short_csr({one.outputs, one.inputs, entries.data(), columns.data(), starts.data()},
                     one.samples(), one.finish());
  one.check();
}

void products_of_every_tail_are_right() {
  for (const std::size_t size : {0U, 1U, 7U, 15U, 16U, 17U, 33U, 65U}) {
    for (Case one : {Case{size, 40, 20}, Case{17, size, 33}, Case{5, 40, size}}) {
      for (const std::size_t height : {1U, 2U, 4U, 8U}) blocked(one, height, 32);
      small(one);
    }
  }
  Case many{520, 30, 20};
  blocked(many, 1, 128);
  blocked(many, 4, 16);
}

void rows_are_normalised() {
  for (const std::size_t width : {1U, 7U, 16U, 33U}) {
    std::vector<float> x = random_floats(3 * width, 1, 5);
    std::vector<float> y(x.size());
    softmax_rows({x.data(), y.data(), 3, width});
    for (std::size_t row = 0; row < 3; ++row) {
      float total = 0;
      for (std::size_t i = 0; i < width; ++i) total += y[row * width + i];
      CHECK(std::abs(total - 1) < 1e-5F);
    }
    normalize_rows({x.data(), y.data(), 3, width}, RowNorm::layer, nullptr, nullptr, 1e-6F);
    for (std::size_t row = 0; row < 3; ++row) {
      float total = 0;
      for (std::size_t i = 0; i < width; ++i) total += y[row * width + i];
      CHECK(std::abs(total) < 1e-3F);
    }
  }
}

}  // namespace

int main() {
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    for (const Simd level : {Simd::scalar, Simd::avx2, Simd::avx512}) {
      if (level > detected_simd()) continue;
      set_active_simd(level);
      products_of_every_tail_are_right();
      rows_are_normalised();
    }
  }
  return 0;
}
