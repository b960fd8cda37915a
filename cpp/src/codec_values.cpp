#include "codec_values.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>

#include "packing_bodies.hpp"
#include "variants.hpp"

namespace secateur::codec {
namespace {

template <class T>
inline constexpr unsigned kBits = 8 * sizeof(T);

template <class T>
inline constexpr T kWithoutSign = static_cast<T>(std::numeric_limits<T>::max() >> 1);

// The codes of one kind of number. Sign bits go to the bottom: they are as good as random, and
// above them the order is that of magnitude.
template <class T, Numbers kNumbers>
struct Code {
  using Signed = std::make_signed_t<T>;

  // Bits that have to be 0 before they may be shifted out.
  static SECATEUR_INLINE T used(T bits) {
    return kNumbers == Numbers::floats ? static_cast<T>(bits & kWithoutSign<T>) : bits;
  }

  static SECATEUR_INLINE T from(T bits, unsigned shift) {
    if constexpr (kNumbers == Numbers::floats) {
      const T magnitude = static_cast<T>((bits & kWithoutSign<T>) >> shift);
      return static_cast<T>(static_cast<T>(magnitude << 1) | bits >> (kBits<T> - 1));
    } else if constexpr (kNumbers == Numbers::signed_integers) {
      const auto number = static_cast<Signed>(static_cast<Signed>(bits) >> shift);
      const T sign = static_cast<T>(number >> (kBits<T> - 1));
      return static_cast<T>(static_cast<T>(static_cast<T>(number) << 1) ^ sign);
    } else {
      return static_cast<T>(bits >> shift);
    }
  }

  static SECATEUR_INLINE T to(T code, unsigned shift) {
    if constexpr (kNumbers == Numbers::floats) {
      const T magnitude = static_cast<T>(static_cast<T>(code >> 1) << shift);
      const T sign = static_cast<T>(code << (kBits<T> - 1));
      return static_cast<T>((magnitude & kWithoutSign<T>) | sign);
    } else if constexpr (kNumbers == Numbers::signed_integers) {
      const T sign = static_cast<T>(T{0} - static_cast<T>(code & 1U));
      return static_cast<T>(static_cast<T>(static_cast<T>(code >> 1) ^ sign) << shift);
    } else {
      return static_cast<T>(code << shift);
    }
  }
};

template <class T, Numbers kNumbers>
struct RangeBody {
  static SECATEUR_INLINE ValueRange run(const Values& values) {
    const T* in = static_cast<const T*>(values.data);
    T used = 0;
    T least = std::numeric_limits<T>::max();
    T greatest = 0;
    for (std::size_t i = 0; i < values.count; ++i) {
      const T code = Code<T, kNumbers>::from(in[i], 0);
      used = static_cast<T>(used | Code<T, kNumbers>::used(in[i]));
      least = std::min(least, code);
      greatest = std::max(greatest, code);
    }
    if (values.count == 0) return {};
    return {used, least, greatest};
  }
};

struct HighArgs {
  Values values;
  ValuePlan plan;
  std::uint8_t* symbols;
};

template <class T, Numbers kNumbers>
struct HighBody {
  static SECATEUR_INLINE bool run(const HighArgs& args) {
    const T* in = static_cast<const T*>(args.values.data);
    const unsigned shift = args.plan.shift;
    const unsigned low = args.plan.low;
    const T base = static_cast<T>(args.plan.base);
    std::uint8_t* symbols = args.symbols;
    for (std::size_t i = 0; i < args.values.count; ++i) {
      const T high = static_cast<T>(Code<T, kNumbers>::from(in[i], shift) >> low);
      symbols[i] = static_cast<std::uint8_t>(high - base);
    }
    return true;
  }
};

struct MergeArgs {
  const std::uint8_t* symbols;
  const std::uint8_t* packed;
  ValuePlan plan;
  std::size_t count;
  void* values;
};

template <class T, Numbers kNumbers>
struct MergeBody {
  static SECATEUR_INLINE T value(const MergeArgs& args, std::size_t i, std::uint64_t window) {
    const std::uint64_t mask = (std::uint64_t{1} << args.plan.low) - 1;
    const std::uint64_t bits = window >> (i * args.plan.low % 8) & mask;
    const std::uint64_t high = (args.plan.base + args.symbols[i]) << args.plan.low;
    return Code<T, kNumbers>::to(static_cast<T>(high | bits), args.plan.shift);
  }

  static SECATEUR_INLINE bool run(const MergeArgs& given) {
    const MergeArgs args = given;  // a copy, which writing to `values` cannot change
    T* out = static_cast<T*>(args.values);
    const std::size_t low = args.plan.low;
    const std::size_t bytes = low_bytes(args.count, args.plan.low);
    std::size_t i = 0;
    for (; i < args.count && i * low / 8 + 8 <= bytes; ++i) {
      out[i] = value(args, i, load_as<std::uint64_t>(args.packed + i * low / 8));
    }
    for (; i < args.count; ++i) {
      std::uint64_t window = 0;
      const std::size_t begin = i * low / 8;
      std::memcpy(&window, args.packed + begin, std::min<std::size_t>(8, bytes - begin));
      out[i] = value(args, i, window);
    }
    return true;
  }
};

template <class T, Numbers kNumbers>
ValueRange range_of(const Values& values) {
  return variant<RangeBody<T, kNumbers>, Values>()(values);
}

template <class T, Numbers kNumbers>
std::uint64_t shifted(std::uint64_t code, unsigned shift) {
  return Code<T, kNumbers>::from(Code<T, kNumbers>::to(static_cast<T>(code), 0), shift);
}

template <class T, Numbers kNumbers>
void high_of(const Values& values, const ValuePlan& plan, std::uint8_t* symbols) {
  variant<HighBody<T, kNumbers>, HighArgs>()({values, plan, symbols});
}

template <class T, Numbers kNumbers>
void low_of(const Values& values, const ValuePlan& plan, std::uint8_t* packed) {
  const T* in = static_cast<const T*>(values.data);
  const std::uint64_t mask = (std::uint64_t{1} << plan.low) - 1;
  std::uint64_t held = 0;
  unsigned used = 0;  // always less than 8 here, so that 56 bits more fit in
  for (std::size_t i = 0; i < values.count; ++i) {
    held |= (Code<T, kNumbers>::from(in[i], plan.shift) & mask) << used;
    used += plan.low;
    std::memcpy(packed, &held, sizeof(held));
    packed += used / 8;
    held >>= used & ~7U;
    used &= 7;
  }
  std::memcpy(packed, &held, sizeof(held));
}

template <class T, Numbers kNumbers>
void merge_of(const std::uint8_t* symbols, const std::uint8_t* packed, const ValuePlan& plan,
              std::size_t count, void* values) {
  variant<MergeBody<T, kNumbers>, MergeArgs>()({symbols, packed, plan, count, values});
}

// A hash table of twice as many slots as there may be values.
template <class T>
class Distinct {
 public:
  static constexpr std::size_t kSlots = 512;
  static constexpr std::size_t kFull = kSlots;

  // The slot of a value; kFull if it would be one too many.
  std::size_t add(T value) {
    auto slot = static_cast<std::size_t>((value * 0x9E3779B97F4A7C15U) >> 55);
    while (used_[slot] && items_[slot] != value) slot = (slot + 1) % kSlots;
    if (used_[slot]) return slot;
    if (size_ == 256) return kFull;
    used_[slot] = true;
    items_[slot] = value;
    ++size_;
    return slot;
  }

  // Writes the values in rising order, and gives for each slot its place among them.
  std::array<std::uint8_t, kSlots> order(T* sorted) const {
    std::size_t count = 0;
    for (std::size_t slot = 0; slot < kSlots; ++slot) {
      if (used_[slot]) sorted[count++] = items_[slot];
    }
    std::sort(sorted, sorted + count);
    std::array<std::uint8_t, kSlots> places{};
    for (std::size_t slot = 0; slot < kSlots; ++slot) {
      const T* found = std::lower_bound(sorted, sorted + count, items_[slot]);
      if (used_[slot]) places[slot] = static_cast<std::uint8_t>(found - sorted);
    }
    return places;
  }

  std::size_t size() const { return size_; }

 private:
  std::array<T, kSlots> items_{};
  std::array<bool, kSlots> used_{};
  std::size_t size_ = 0;
};

template <class T>
bool find_palette_of(const Values& values, Palette& palette, std::uint8_t* symbols) {
  const T* in = static_cast<const T*>(values.data);
  Distinct<T> distinct;
  for (std::size_t i = 0; i < values.count; ++i) {
    if (distinct.add(in[i]) == Distinct<T>::kFull) return false;
  }
  palette.size = distinct.size();
  std::array<T, 256> sorted;
  const auto places = distinct.order(sorted.data());
  std::memcpy(palette.items.data(), sorted.data(), palette.size * sizeof(T));
  for (std::size_t i = 0; i < values.count; ++i) symbols[i] = places[distinct.add(in[i])];
  return true;
}

template <class T>
std::array<T, 256> items_of(const Palette& palette) {
  std::array<T, 256> items{};
  std::memcpy(items.data(), palette.items.data(), palette.size * sizeof(T));
  return items;
}

template <class T>
bool rises_of(const Palette& palette) {
  const std::array<T, 256> items = items_of<T>(palette);
  for (std::size_t k = 1; k < palette.size; ++k) {
    if (items[k - 1] >= items[k]) return false;
  }
  return true;
}

template <class T>
bool paint_of(const std::uint8_t* symbols, const Palette& palette, std::size_t count,
              void* values) {
  const std::array<T, 256> items = items_of<T>(palette);
  T* out = static_cast<T*>(values);
  std::uint8_t greatest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    greatest = std::max(greatest, symbols[i]);
    out[i] = items[symbols[i]];
  }
  return greatest < palette.size;
}

template <class T, Numbers kNumbers>
ValueKernels kernels_for() {
  return {
      &range_of<T, kNumbers>, &shifted<T, kNumbers>, &high_of<T, kNumbers>, &low_of<T, kNumbers>,
      &merge_of<T, kNumbers>, &find_palette_of<T>,   &rises_of<T>,          &paint_of<T>};
}

// Of two neighbouring symbols one is made; which are neighbours depends on where the base stands.
void halve(ValuePlan& plan, Histogram& counts) {
  Histogram halved{};
  const std::uint64_t base = plan.base >> 1;
  for (std::size_t s = 0; s < 256; ++s) {
    if (counts[s] != 0)
      halved[static_cast<std::size_t>(((plan.base + s) >> 1) - base)] += counts[s];
  }
  counts = halved;
  plan.base = base;
  ++plan.low;
}

// About what a table takes for a symbol that is in it: the gamma code of a frequency of 8 or so.
constexpr std::uint64_t kCostPerSymbol = std::uint64_t{7} * 256;

std::uint64_t plan_cost(const ValuePlan& plan, const Histogram& counts) {
  std::uint64_t total = 0;
  std::uint64_t symbols = 0;
  for (const std::uint64_t count : counts) {
    total += count;
    symbols += count != 0;
  }
  return entropy_cost(counts) + total * plan.low * 256 + symbols * kCostPerSymbol;
}

}  // namespace

void ValueRange::join(const ValueRange& other) {
  used |= other.used;
  least = std::min(least, other.least);
  greatest = std::max(greatest, other.greatest);
}

ValueKernels value_kernels(std::size_t item_size, Numbers numbers) {
  return with_item(item_size, [&](auto item) {
    using T = decltype(item);
    switch (numbers) {
      case Numbers::floats:
        return kernels_for<T, Numbers::floats>();
      case Numbers::signed_integers:
        return kernels_for<T, Numbers::signed_integers>();
      case Numbers::unsigned_integers:
        break;
    }
    return kernels_for<T, Numbers::unsigned_integers>();
  });
}

ValuePlan finest_plan(const ValueRange& range, const ValueKernels& kernels) {
  const int trailing = range.used == 0 ? 0 : std::countr_zero(range.used);
  ValuePlan plan{static_cast<std::uint8_t>(trailing), 0, 0};
  const std::uint64_t least = kernels.shifted_code(range.least, plan.shift);
  const std::uint64_t greatest = kernels.shifted_code(range.greatest, plan.shift);
  while ((greatest >> plan.low) - (least >> plan.low) > 255) ++plan.low;
  plan.base = least >> plan.low;
  return plan;
}

void count_bytes(const std::uint8_t* bytes, std::size_t count, Histogram& counts) {
  // Four tables, since a byte that repeats would wait for its own last count.
  std::array<std::array<std::uint32_t, 256>, 4> parts{};
  constexpr std::size_t kBlock = std::size_t{1} << 30;  // what 32 bits can count
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t end = std::min(count, begin + kBlock);
    for (auto& part : parts) part.fill(0);
    std::size_t i = begin;
    for (; i + 4 <= end; i += 4) {
      for (std::size_t k = 0; k < 4; ++k) ++parts[k][bytes[i + k]];
    }
    for (; i < end; ++i) ++parts[0][bytes[i]];
    for (std::size_t s = 0; s < 256; ++s) {
      for (const auto& part : parts) counts[s] += part[s];
    }
  }
}

void coarsen(ValuePlan& plan, Histogram& counts, std::size_t item_size) {
  std::uint64_t least = plan_cost(plan, counts);
  ValuePlan next = plan;
  Histogram folded = counts;
  while (next.low < max_low(item_size)) {
    halve(next, folded);
    const std::uint64_t cost = plan_cost(next, folded);
    if (cost >= least) continue;
    least = cost;
    plan = next;
    counts = folded;
  }
}

void write_plan(const ValuePlan& plan, Bytes& out) {
  put(out, plan.shift);
  put(out, plan.low);
  put(out, plan.base);
}

bool read_plan(ByteReader& in, std::size_t item_size, ValuePlan& plan) {
  if (!in.read(plan.shift) || !in.read(plan.low) || !in.read(plan.base)) return false;
  const std::size_t dropped = std::size_t{plan.shift} + plan.low;
  if (plan.shift >= 8 * item_size || plan.low > max_low(item_size) || dropped > 8 * item_size) {
    return false;
  }
  // Bits that no code has would be lost without a word.
  const std::size_t left = 8 * item_size - dropped;
  return left == 64 || plan.base >> left == 0;
}

}  // namespace secateur::codec
