#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "check.hpp"
#include "levels.hpp"
#include "secateur/select.hpp"

using namespace secateur;

namespace {

// Bits of numbers that are drawn from a small generator: the same everywhere.
struct Random {
  std::uint64_t state;
  std::uint64_t next() {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return state >> 33;
  }
};

enum class Shape { wide, few, zeros, equal, sorted };

template <class U>
U draw(Random& random, Shape shape, std::size_t i, DType dtype) {
  const U sign = static_cast<U>((random.next() & 1) << (8 * sizeof(U) - 1));
  // Exponents around 1, so that no number is infinite.
  const auto one = static_cast<U>(dtype == DType::float16    ? 0x3C00
                                  : dtype == DType::bfloat16 ? 0x3F80
                                  : dtype == DType::float32  ? 0x3F800000
                                                             : 0x3FF0000000000000);
  const std::uint64_t noise = random.next() << 31 ^ random.next();
  switch (shape) {
    case Shape::wide:
      return static_cast<U>((one / 2 + noise % (one / 2)) | sign);
    case Shape::few:
      return static_cast<U>((one + noise % 5) | sign);
    case Shape::zeros:
      return noise % 10 != 0 ? sign : static_cast<U>((one + noise % 1000) | sign);
    case Shape::equal:
      return one;
    case Shape::sorted:
      break;
  }
  return static_cast<U>(std::min<std::size_t>(i, one));
}

template <class U>
struct Data {
  std::vector<std::vector<U>> arrays;
  std::vector<Segment> segments;
  std::size_t total = 0;

  Data(const std::vector<std::size_t>& sizes, Shape shape, DType dtype) {
    Random random{sizes.size() + static_cast<std::size_t>(shape)};
    for (const std::size_t size : sizes) {
      std::vector<U> array;
      array.reserve(size);
      for (std::size_t i = 0; i < size; ++i)
        array.push_back(draw<U>(random, shape, total + i, dtype));
      arrays.push_back(std::move(array));
      total += size;
    }
    for (const auto& array : arrays) segments.push_back({array.data(), array.size()});
  }
};

template <class U>
std::uint64_t plain_key(U bits, Order order) {
  constexpr std::uint64_t kSign = std::uint64_t{1} << (8 * sizeof(U) - 1);
  const std::uint64_t magnitude = bits & (kSign - 1);
  if (order == Order::magnitude) return magnitude;
  return bits & kSign ? kSign - magnitude : kSign + magnitude;
}

using Place = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>;

template <class U>
std::vector<Place> ranked(const Data<U>& data, Order order) {
  std::vector<Place> places;
  for (std::size_t s = 0; s < data.arrays.size(); ++s) {
    for (std::size_t i = 0; i < data.arrays[s].size(); ++i) {
      places.emplace_back(plain_key(data.arrays[s][i], order), s, i);
    }
  }
  std::sort(places.begin(), places.end());
  return places;
}

template <class U>
Place expected_cut(const std::vector<Place>& places, std::size_t k) {
  const auto [key, segment, position] = places[k];
  if (std::get<0>(places[k - 1]) != key) return {key, 0, 0};
  return places[k];
}

template <class U>
void finds_the_rank(const std::vector<std::size_t>& sizes, Shape shape, DType dtype,
                    const FindTuning& tuning = {}) {
  const Data<U> data(sizes, shape, dtype);
  for (const Order order : {Order::magnitude, Order::value}) {
    const std::vector<Place> places = ranked(data, order);
    const std::size_t n = data.total;
    // Fewer ranks of the long ones: under TSan they take a second each.
    const std::vector<std::size_t> ranks = n > 30000
                                               ? std::vector{n / 10, n * 9 / 10}
                                               : std::vector{std::size_t{1}, n / 10, n / 2, n - 1};
    for (const std::size_t k : ranks) {
      if (k == 0 || k >= n) continue;
      const Place expected = expected_cut<U>(places, k);
      at_every_level(
          [&] {
            const FoundCut found = find_cut(data.segments, dtype, order, k, tuning);
            CHECK(!found.non_finite);
            CHECK((Place{found.cut.key, found.cut.segment, found.cut.position}) == expected);
          },
          n > 30000 ? std::vector{3} : std::vector{1, 3});
    }
  }
}

// `out` and `mask` against a loop that follows the definition of a cut.
template <class U>
void applies_the_cut(const std::vector<std::size_t>& sizes, Shape shape, DType dtype) {
  const Data<U> data(sizes, shape, dtype);
  for (const Order order : {Order::magnitude, Order::value}) {
    const std::vector<Place> places = ranked(data, order);
    const auto [key, segment, position] = places[data.total / 2];
    const Cut cut{key, segment, position};
    at_every_level([&] {
      auto out = data.arrays;
      std::vector<std::vector<std::uint8_t>> masks;
      masks.reserve(out.size());
      std::vector<CutTarget> targets;
      std::vector<Segment> in_place;
      for (auto& array : out) masks.emplace_back(array.size(), std::uint8_t{7});
      for (std::size_t s = 0; s < out.size(); ++s) {
        targets.push_back({out[s].data(), masks[s].data()});
        in_place.push_back({out[s].data(), out[s].size()});
      }
      const auto statistics = apply_cut(in_place, dtype, order, cut, targets);
      std::uint64_t num_removed = 0;
      for (std::size_t s = 0; s < out.size(); ++s) {
        num_removed += statistics[s].num_removed;
        for (std::size_t i = 0; i < out[s].size(); ++i) {
          const U bits = data.arrays[s][i];
          const bool keep = Place{plain_key(bits, order), s, i} >= places[data.total / 2];
          CHECK(masks[s][i] == keep);
          CHECK(out[s][i] == (keep ? bits : 0));
        }
      }
      CHECK(num_removed == data.total / 2);
    });
  }
}

template <class U>
void every_width(DType dtype) {
  const std::size_t chunk = (std::size_t{1} << 18) / sizeof(U);
  for (const std::size_t size : {1U, 7U, 8U, 15U, 16U, 17U, 31U, 33U, 64U, 65U}) {
    finds_the_rank<U>({size, 0, 3}, Shape::wide, dtype);
    finds_the_rank<U>({size, 0, 3}, Shape::few, dtype, {.direct_limit = 0, .sample_size = 3});
    applies_the_cut<U>({size, 0, 3}, Shape::few, dtype);
  }
  applies_the_cut<U>({5, chunk + 1, 100}, Shape::zeros, dtype);
  for (const Shape shape : {Shape::wide, Shape::few, Shape::zeros, Shape::equal, Shape::sorted}) {
    finds_the_rank<U>({5, chunk + 1, 0, 100}, shape, dtype);
  }
}

// Samples that mislead and buffers that overflow, so that histograms must narrow the bracket.
void misled_searches_stay_exact() {
  const std::vector<std::size_t> sizes{3000, 1, 70000};
  for (const Shape shape : {Shape::wide, Shape::few, Shape::zeros, Shape::sorted}) {
    for (const std::size_t budget : {0U, 4096U}) {
      const FindTuning tuning{.direct_limit = 16, .sample_size = 50, .budget_bytes = budget};
      finds_the_rank<std::uint32_t>(sizes, shape, DType::float32, tuning);
    }
  }
  const FindTuning tuning{.direct_limit = 16, .sample_size = 50, .budget_bytes = 64};
  finds_the_rank<std::uint64_t>({20000}, Shape::wide, DType::float64, tuning);
  finds_the_rank<std::uint16_t>({20000}, Shape::wide, DType::float16, tuning);
}

// The sample sees only ones, although all others are small: the whole sample is wrong.
void an_unlucky_sample_stays_exact() {
  std::vector<float> numbers(20000, 1.0F);
  for (std::size_t i = 0; i < numbers.size(); i += 3) numbers[i] = 1e-6F * static_cast<float>(i);
  const Segment segment{numbers.data(), numbers.size()};
  for (const std::size_t sample_size : {1U, 2U, 9U}) {
    const FindTuning tuning{.direct_limit = 0, .sample_size = sample_size, .budget_bytes = 400};
    const FoundCut found = find_cut({&segment, 1}, DType::float32, Order::magnitude, 100, tuning);
    CHECK(cut_value(found.cut.key, DType::float32, Order::magnitude) == double{numbers[300]});
  }
}

void the_ends_remove_nothing_and_everything() {
  std::vector<float> numbers{1.0F, -2.0F, 0.0F};
  const std::vector<Segment> segments{{numbers.data(), 3}, {nullptr, 0}};
  for (const Order order : {Order::magnitude, Order::value}) {
    for (const std::uint64_t k : {0U, 3U}) {
      const Cut cut = find_cut(segments, DType::float32, order, k).cut;
      CHECK(apply_cut(segments, DType::float32, order, cut, {})[0].num_removed == k);
    }
  }
  bool caught = false;
  try {
    find_cut(segments, DType::float32, Order::magnitude, 4);
  } catch (const std::invalid_argument&) {
    caught = true;
  }
  CHECK(caught);
}

void non_finite_numbers_are_named() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> good(30000, 1.0F);
  std::vector<float> bad(30000, 1.0F);
  const std::vector<Segment> segments{{good.data(), good.size()}, {bad.data(), bad.size()}};
  at_every_level([&] {
    for (const std::size_t place : {0U, 12345U, 29999U}) {
      for (const std::uint64_t k : {0U, 5U, 50000U, 60000U}) {
        bad[place] = kNan;
        CHECK(find_cut(segments, DType::float32, Order::value, k).non_finite == 1U);
        CHECK(find_cut(segments, DType::float32, Order::magnitude, k).non_finite == 1U);
        CHECK(find_non_finite(segments, DType::float32) == 1U);
        bad[place] = -kInfinity;
        CHECK(!find_cut(segments, DType::float32, Order::value, k).non_finite);
        CHECK(find_cut(segments, DType::float32, Order::magnitude, k).non_finite == 1U);
        CHECK(find_non_finite(segments, DType::float32) == 1U);
        bad[place] = 1.0F;
        CHECK(!find_non_finite(segments, DType::float32));
      }
    }
  });
}

void thresholds_round_up() {
  const auto key = [](double threshold, DType dtype) {
    return cut_at(threshold, dtype, Order::magnitude).key;
  };
  const double tenth = 0.1;
  CHECK(key(tenth, DType::float32) == std::bit_cast<std::uint32_t>(0.1F));  // 0.1F is above 0.1
  CHECK(key(0.3, DType::float32) == std::bit_cast<std::uint32_t>(0.3F));
  CHECK(key(0.7, DType::float32) == std::bit_cast<std::uint32_t>(std::nextafter(0.7F, 1.0F)));
  CHECK(key(1e-300, DType::float32) == 1);
  CHECK(key(1e300, DType::float32) == 0x7F800000U);
  CHECK(key(65505.0, DType::float16) == 0x7C00U);
  CHECK(key(0.0, DType::float64) == 0);
  CHECK(key(-1.0, DType::float64) == 0);
  for (const DType dtype : {DType::float16, DType::bfloat16, DType::float32, DType::float64}) {
    for (const double threshold : {-1.0, -0.5, 0.0, 0.25, 6.103515625e-05}) {
      const Cut cut = cut_at(threshold, dtype, Order::value);
      CHECK(cut_value(cut.key, dtype, Order::value) == threshold);
    }
  }
}

void masks_are_applied_in_place_and_beside() {
  std::vector<std::uint32_t> values(70001);
  std::iota(values.begin(), values.end(), 1U);
  std::vector<std::uint8_t> mask(values.size());
  Random random{1};
  for (auto& one : mask) one = random.next() % 2;
  at_every_level([&] {
    auto in_place = values;
    std::vector<std::uint32_t> beside(values.size());
    apply_mask(values.data(), mask.data(), beside.data(), values.size(), DType::float32);
    apply_mask(in_place.data(), mask.data(), in_place.data(), values.size(), DType::float32);
    for (std::size_t i = 0; i < values.size(); ++i) {
      CHECK(beside[i] == (mask[i] != 0 ? values[i] : 0));
    }
    CHECK(in_place == beside);
    std::uint64_t num_removed = 0;
    for (const auto one : mask) num_removed += one == 0;
    const CutStatistics done = mask_statistics(values.data(), mask.data(), values.size(),
                                               DType::float32, Order::magnitude);
    CHECK(done.num_removed == num_removed);
    CHECK(done.largest_removed.has_value() && done.smallest_kept.has_value());
    const CutStatistics none =
        mask_statistics(nullptr, nullptr, 0, DType::float32, Order::magnitude);
    CHECK(none.num_removed == 0 && !none.largest_removed && !none.smallest_kept);
  });
}

void a_read_pass_reads_everything() {
  std::vector<std::uint8_t> bytes(300001, 0);
  at_every_level([&] {
    for (const std::size_t place : {std::size_t{0}, std::size_t{262144}, bytes.size() - 1}) {
      bytes[place] = 1;
      CHECK(read_pass(bytes.data(), bytes.size()) == std::uint64_t{1} << (8 * (place % 8)));
      bytes[place] = 0;
    }
  });
}

}  // namespace

int main() {
  every_width<std::uint16_t>(DType::float16);
  every_width<std::uint16_t>(DType::bfloat16);
  every_width<std::uint32_t>(DType::float32);
  every_width<std::uint64_t>(DType::float64);
  misled_searches_stay_exact();
  an_unlucky_sample_stays_exact();
  the_ends_remove_nothing_and_everything();
  non_finite_numbers_are_named();
  thresholds_round_up();
  masks_are_applied_in_place_and_beside();
  a_read_pass_reads_everything();
  return 0;
}
