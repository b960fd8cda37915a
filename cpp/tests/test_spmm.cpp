#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "levels.hpp"
#include "secateur/neural.hpp"
#include "secateur/spmm.hpp"

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
  std::vector<BlockedSegment> segments(plan.num_chunks() * plan.num_blocks() + 1);
  const BlockedSizes sizes = measure_blocked(plan, one.view(), segments.data());
  std::vector<float> values(sizes.entries * height + kBlockedSpare);
  std::vector<std::uint8_t> indices(sizes.entries + kBlockedSpare);
  std::vector<std::uint16_t> order(sizes.rows);
  std::vector<BlockedGroup> groups(sizes.groups);
  pack_blocked(plan, one.view(), segments.data(),
               {values.data(), indices.data(), order.data(), groups.data()});
  std::vector<float> scratch(blocked_scratch(plan, one.rows) / sizeof(float));
  multiply_blocked(
      {plan, values.data(), indices.data(), order.data(), groups.data(), segments.data()},
      one.samples(), {false, false}, one.finish(), scratch.data());
  one.check();
}

void bitmask(Case& one, bool even) {
  const std::size_t words = (one.inputs + 15) / 16;
  std::vector<std::uint64_t> starts(one.outputs + 1);
  measure_rows(one.view(), starts.data());
  const std::size_t per_word = even ? widest_word(one.view()) : 0;
  if (even) {
    for (std::size_t i = 0; i <= one.outputs; ++i) starts[i] = i * words * per_word;
  }
  std::vector<float> values(starts.back() + 16);
  std::vector<std::uint16_t> masks(one.outputs * words);
  pack_bitmask(one.view(), starts.data(), per_word, values.data(), masks.data());
  multiply_bitmask({one.outputs, one.inputs, per_word, values.data(), masks.data(), starts.data()},
                   one.samples(), one.finish());
  one.check();
}

void lookup(Case& one) {
  std::vector<LookupStart> starts((one.outputs + 15) / 16 + 1);
  measure_lookup(one.view(), starts.data());
  const std::size_t steps = starts.back().step;
  std::vector<float> values(starts.back().value + 16);
  std::vector<std::uint8_t> indices(steps * 16);
  std::vector<std::uint16_t> masks(steps);
  std::vector<std::uint16_t> windows(steps);
  pack_lookup(one.view(), starts.data(),
              {values.data(), indices.data(), masks.data(), windows.data()});
  multiply_lookup({one.outputs, one.inputs, values.data(), indices.data(), masks.data(),
                   windows.data(), starts.data()},
                  one.samples(), one.finish());
  one.check();
}

void short_csr(Case& one) {
  std::vector<std::uint64_t> starts(one.outputs + 1);
  measure_rows(one.view(), starts.data());
  std::vector<float> values(starts.back());
  std::vector<std::uint16_t> columns(starts.back());
  pack_short_csr(one.view(), starts.data(), values.data(), columns.data());
  multiply_short_csr({one.outputs, one.inputs, values.data(), columns.data(), starts.data()},
                     one.samples(), one.finish());
  one.check();
}

void small(Case& one) {
  bitmask(one, false);
  bitmask(one, true);
  lookup(one);
  short_csr(one);
}

void products_of_every_tail_are_right() {
  for (const std::size_t size : {0U, 1U, 7U, 15U, 16U, 17U, 33U, 65U}) {
    for (Case one : {Case{size, 40, 20}, Case{17, size, 33}, Case{5, 40, size}}) {
      for (const std::size_t height : {1U, 4U, 8U}) blocked(one, height, 32);
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

// Against the definition, with keys masked, widths of any size and the weights asked for.
void attention_is_right(std::size_t queries, std::size_t keys, std::size_t width) {
  const std::size_t heads = 2;
  std::vector<float> q = random_floats(queries * heads * width, 1, 6);
  std::vector<float> k = random_floats(keys * heads * width, 1, 7);
  std::vector<float> v = random_floats(keys * heads * width, 1, 8);
  std::vector<float> out(q.size());
  std::vector<float> weights(heads * queries * keys);
  std::vector<std::uint8_t> mask(keys, 1);
  mask[keys / 2] = 0;
  const std::size_t row = heads * width;
  attend({{q.data(), queries * row, row, width},
          {k.data(), keys * row, row, width},
          {v.data(), keys * row, row, width},
          {out.data(), queries * row, row, width},
          1,
          queries,
          keys,
          heads,
          width,
          width,
          mask.data(),
          {0, 0, 0, 1},
          -1e30F,
          weights.data()});
  for (std::size_t head = 0; head < heads; ++head) {
    for (std::size_t i = 0; i < queries; ++i) {
      std::vector<double> e(keys);
      double total = 0;
      for (std::size_t j = 0; j < keys; ++j) {
        double score = 0;
        for (std::size_t w = 0; w < width; ++w) {
          score += static_cast<double>(q[i * row + head * width + w]) *
                   static_cast<double>(k[j * row + head * width + w]);
        }
        e[j] = mask[j] != 0 ? std::exp(score) : keys == 1 ? 1 : 0;
        total += e[j];
      }
      for (std::size_t w = 0; w < width; ++w) {
        double wanted = 0;
        for (std::size_t j = 0; j < keys; ++j) {
          wanted += e[j] / total * static_cast<double>(v[j * row + head * width + w]);
        }
        CHECK(std::abs(wanted - static_cast<double>(out[i * row + head * width + w])) < 1e-5);
      }
      const float found = weights[(head * queries + i) * keys];
      CHECK(std::abs(e[0] / total - static_cast<double>(found)) < 1e-5);
    }
  }
}

}  // namespace

int main() {
  at_every_level([] {
    products_of_every_tail_are_right();
    rows_are_normalised();
    for (const std::size_t size : {1U, 15U, 16U, 17U, 65U}) {
      attention_is_right(size, 20, 8);
      attention_is_right(5, size, 33);
      attention_is_right(7, 70, size);
    }
  });
  return 0;
}
