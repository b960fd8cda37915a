// From an array to coded bytes: one look at everything for the shared tables, then every chunk in
// the smallest of its forms.
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>

#include "codec_ans.hpp"
#include "codec_format.hpp"
#include "codec_values.hpp"
#include "packing_chunk.hpp"
#include "secateur/codec.hpp"

namespace secateur::codec {
namespace {

constexpr std::size_t kMaxSymbols = kPackingChunk + kPackingChunk / kSkip + 1;

// A chunk taken apart, in memory that a thread keeps: fresh pages for each chunk would take longer
// than the work.
struct Workspace {
  Words words;
  std::array<std::uint64_t, kPackingChunk> values;  // of any item size
  std::array<std::uint8_t, kMaxSymbols> symbols;
  std::array<std::uint8_t, kMaxSymbols> gaps;
  std::array<std::uint8_t, kPackingChunk * 8 + 8> packed;
};

Workspace& workspace() {
  thread_local const auto held = std::make_unique_for_overwrite<Workspace>();
  return *held;
}

// ---- A chunk, looked at ----

struct Chunk {
  const std::byte* items;
  std::size_t size;
  std::size_t nonzeros;
  std::size_t num_gaps;  // symbols; 0 if gaps are out of the question
};

// The zeros before each non-zero; kSkip stands for as many zeros and no non-zero. A geometric
// distribution has no memory, so this loses nothing over longer symbols.
std::size_t list_gaps(const std::uint64_t* words, std::size_t size, std::uint8_t* gaps) {
  std::size_t count = 0;
  std::size_t next = 0;
  for (std::size_t w = 0; w < num_words(size); ++w) {
    for (std::uint64_t word = words[w]; word != 0; word &= word - 1) {
      const std::size_t position = w * 64 + static_cast<std::size_t>(std::countr_zero(word));
      std::size_t gap = position - next;
      for (; gap >= kSkip; gap -= kSkip) gaps[count++] = kSkip;
      gaps[count++] = static_cast<std::uint8_t>(gap);
      next = position + 1;
    }
  }
  return count;
}

Chunk look_at(Items items, std::size_t c, Workspace& space) {
  const std::size_t begin = c * kPackingChunk;
  Chunk chunk{at(items.data, begin, items.item_size), std::min(kPackingChunk, items.size - begin),
              0, 0};
  chunk.nonzeros = chunk_kernels(items.item_size)
                       .compress(chunk.items, chunk.size, Zero::by_bits, space.values.data(),
                                 chunk.size, space.words.data());
  // Denser masks are coded at least as well byte by byte, and ever more gaps take ever longer.
  if (chunk.nonzeros != 0 && chunk.nonzeros * 2 <= chunk.size) {
    chunk.num_gaps = list_gaps(space.words.data(), chunk.size, space.gaps.data());
  }
  return chunk;
}

bool is_mixed(const Chunk& chunk) { return chunk.nonzeros != 0 && chunk.nonzeros != chunk.size; }

Histogram mask_histogram(const Chunk& chunk, const Workspace& space) {
  Histogram counts{};
  count_bytes(reinterpret_cast<const std::uint8_t*>(space.words.data()), num_bytes(chunk.size),
              counts);
  return counts;
}

Histogram gap_histogram(const Chunk& chunk, const Workspace& space) {
  Histogram counts{};
  count_bytes(space.gaps.data(), chunk.num_gaps, counts);
  return counts;
}

// ---- Shared tables ----

struct SharedTables {
  std::optional<Frequencies> mask;
  std::optional<Frequencies> gaps;
  std::optional<Frequencies> values;
  ValuePlan plan{};
};

bool is_empty(const Histogram& counts) {
  return std::all_of(counts.begin(), counts.end(), [](std::uint64_t count) { return count == 0; });
}

std::optional<Frequencies> table_of(const Histogram& counts) {
  if (is_empty(counts)) return std::nullopt;
  return normalise(counts);
}

// Sums do not depend on the order that chunks come in.
class Totals {
 public:
  void add(const Histogram& mask, const Histogram& gaps, const ValueRange& range) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t s = 0; s < 256; ++s) {
      mask_[s] += mask[s];
      gaps_[s] += gaps[s];
    }
    range_.join(range);
    any_ = any_ || range.least <= range.greatest;
  }

  void add_values(const Histogram& values) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t s = 0; s < 256; ++s) values_[s] += values[s];
  }

  const Histogram& mask() const { return mask_; }
  const Histogram& gaps() const { return gaps_; }
  const Histogram& values() const { return values_; }
  const ValueRange& range() const { return range_; }
  bool any() const { return any_; }

 private:
  std::mutex mutex_;
  Histogram mask_{};
  Histogram gaps_{};
  Histogram values_{};
  ValueRange range_;
  bool any_ = false;
};

SharedTables share_tables(Items items, const ValueKernels& kernels) {
  const std::size_t chunks = packing_chunks(items.size);
  SharedTables shared;
  if (chunks < 2) return shared;  // a table of its own costs the only chunk no more
  Totals totals;
  for_each_run(chunks, Walk::forwards, [&](std::size_t c) {
    Workspace& space = workspace();
    const Chunk chunk = look_at(items, c, space);
    const Histogram mask = is_mixed(chunk) ? mask_histogram(chunk, space) : Histogram{};
    totals.add(mask, gap_histogram(chunk, space),
               kernels.range({space.values.data(), chunk.nonzeros}));
  });
  shared.mask = table_of(totals.mask());
  shared.gaps = table_of(totals.gaps());
  if (!totals.any()) return shared;
  shared.plan = finest_plan(totals.range(), kernels);
  for_each_run(chunks, Walk::backwards, [&](std::size_t c) {
    Workspace& space = workspace();
    const Chunk chunk = look_at(items, c, space);
    kernels.high({space.values.data(), chunk.nonzeros}, shared.plan, space.symbols.data());
    Histogram counts{};
    count_bytes(space.symbols.data(), chunk.nonzeros, counts);
    totals.add_values(counts);
  });
  Histogram counts = totals.values();
  coarsen(shared.plan, counts, items.item_size);
  shared.values = table_of(counts);
  return shared;
}

// ---- One chunk, encoded ----

// A stream with the table that makes it smaller.
struct Stream {
  std::uint64_t cost = kNoCost;
  bool own = false;
  Frequencies frequencies{};
};

std::uint64_t table_cost(const Frequencies& frequencies) {
  Bytes bytes;
  write_frequencies(frequencies, bytes);
  return bytes.size() * kCostPerByte;
}

Stream shared_stream(const Histogram& counts, const std::optional<Frequencies>& shared) {
  if (!shared) return {};
  return {stream_cost(counts, *shared), false, *shared};
}

Stream own_stream(const Histogram& counts) {
  const Frequencies frequencies = normalise(counts);
  return {stream_cost(counts, frequencies) + table_cost(frequencies), true, frequencies};
}

Stream smaller(const Stream& a, const Stream& b) { return b.cost < a.cost ? b : a; }

Stream best_stream(const Histogram& counts, const std::optional<Frequencies>& shared) {
  if (is_empty(counts)) return {};
  return smaller(shared_stream(counts, shared), own_stream(counts));
}

void put_stream(const Stream& stream, const std::uint8_t* symbols, std::size_t count, Bytes& out) {
  if (stream.own) write_frequencies(stream.frequencies, out);
  ans_encode(symbols, count, stream.frequencies, out);
}

// Writes the positions and says in the header how.
void encode_positions(const Chunk& chunk, const Workspace& space, const SharedTables& shared,
                      ChunkHeader& header, Bytes& out) {
  if (!is_mixed(chunk)) {
    header.positions = chunk.nonzeros == 0 ? Positions::empty : Positions::full;
    return;
  }
  const auto* mask = reinterpret_cast<const std::uint8_t*>(space.words.data());
  const std::size_t mask_bytes = num_bytes(chunk.size);
  const Stream bytes = best_stream(mask_histogram(chunk, space), shared.mask);
  Stream gaps = best_stream(gap_histogram(chunk, space), shared.gaps);
  if (gaps.cost != kNoCost) gaps.cost += sizeof(std::uint16_t) * kCostPerByte;
  if (mask_bytes * kCostPerByte <= std::min(bytes.cost, gaps.cost)) {
    header.positions = Positions::mask;
    put_bytes(out, mask, mask_bytes);
  } else if (bytes.cost <= gaps.cost) {
    header.positions = Positions::mask_ans;
    header.own_positions = bytes.own;
    put_stream(bytes, mask, mask_bytes, out);
  } else {
    header.positions = Positions::gaps;
    header.own_positions = gaps.own;
    put(out, static_cast<std::uint16_t>(chunk.num_gaps - chunk.nonzeros));
    put_stream(gaps, space.gaps.data(), chunk.num_gaps, out);
  }
}

struct ValueStream {
  Stream stream;
  ValuePlan plan{};
};

// The cost of the low bits and, of an own table, of its plan comes on top.
std::uint64_t whole_cost(const ValueStream& values, std::size_t count) {
  if (values.stream.cost == kNoCost) return kNoCost;
  const std::size_t plan_bytes = values.stream.own ? 10 : 0;
  return values.stream.cost + (low_bytes(count, values.plan.low) + plan_bytes) * kCostPerByte;
}

Histogram high_histogram(const Values& values, const ValuePlan& plan, const ValueKernels& kernels,
                         Workspace& space) {
  kernels.high(values, plan, space.symbols.data());
  Histogram counts{};
  count_bytes(space.symbols.data(), values.count, counts);
  return counts;
}

ValueStream best_values(const Values& values, std::size_t item_size, const ValueKernels& kernels,
                        const SharedTables& shared, Workspace& space) {
  ValueStream own;
  own.plan = finest_plan(kernels.range(values), kernels);
  Histogram counts = high_histogram(values, own.plan, kernels, space);
  coarsen(own.plan, counts, item_size);
  own.stream = own_stream(counts);
  if (!shared.values) return own;
  const ValueStream common{
      shared_stream(high_histogram(values, shared.plan, kernels, space), shared.values),
      shared.plan};
  return whole_cost(common, values.count) <= whole_cost(own, values.count) ? common : own;
}

struct PaletteStream {
  Stream stream;
  Palette palette;

  std::uint64_t whole_cost(std::size_t item_size) const {
    if (stream.cost == kNoCost) return kNoCost;
    return stream.cost + (1 + palette.size * item_size) * kCostPerByte;
  }
};

// With its symbols in the workspace, if there is one.
PaletteStream find_palette(const Values& values, const ValueKernels& kernels, Workspace& space) {
  PaletteStream found;
  if (!kernels.find_palette(values, found.palette, space.symbols.data())) return found;
  Histogram counts{};
  count_bytes(space.symbols.data(), values.count, counts);
  found.stream = own_stream(counts);
  return found;
}

void put_palette(const PaletteStream& painted, const Workspace& space, std::size_t count,
                 std::size_t item_size, Bytes& out) {
  put(out, static_cast<std::uint8_t>(painted.palette.size - 1));
  put_bytes(out, painted.palette.items.data(), painted.palette.size * item_size);
  put_stream(painted.stream, space.symbols.data(), count, out);
}

void put_planes(const ValueStream& planes, const Values& values, const ValueKernels& kernels,
                Workspace& space, Bytes& out) {
  if (planes.stream.own) write_plan(planes.plan, out);
  kernels.high(values, planes.plan, space.symbols.data());
  put_stream(planes.stream, space.symbols.data(), values.count, out);
  kernels.low(values, planes.plan, space.packed.data());
  put_bytes(out, space.packed.data(), low_bytes(values.count, planes.plan.low));
}

void encode_values(const Chunk& chunk, Workspace& space, Items items, const ValueKernels& kernels,
                   const SharedTables& shared, ChunkHeader& header, Bytes& out) {
  if (chunk.nonzeros == 0) return;
  const Values values{space.values.data(), chunk.nonzeros};
  const ValueStream planes = best_values(values, items.item_size, kernels, shared, space);
  const PaletteStream painted = find_palette(values, kernels, space);
  const std::uint64_t planes_cost = whole_cost(planes, values.count);
  const std::uint64_t palette_cost = painted.whole_cost(items.item_size);
  const std::size_t raw_bytes = chunk.nonzeros * items.item_size;
  header.coded_values = std::min(planes_cost, palette_cost) < raw_bytes * kCostPerByte;
  if (!header.coded_values) {
    put_bytes(out, values.data, raw_bytes);
  } else if (palette_cost < planes_cost) {
    header.own_values = header.palette = true;
    put_palette(painted, space, values.count, items.item_size, out);
  } else {
    header.own_values = planes.stream.own;
    put_planes(planes, values, kernels, space, out);
  }
}

struct Payload {
  Bytes bytes;
  unsigned tables;  // which shared tables it needs
};

unsigned tables_of(const ChunkHeader& header) {
  unsigned tables = 0;
  if (header.positions == Positions::mask_ans && !header.own_positions) tables |= kMaskTable;
  if (header.positions == Positions::gaps && !header.own_positions) tables |= kGapTable;
  if (header.coded_values && !header.own_values) tables |= kValueTable;
  return tables;
}

Payload encode_chunk(Items items, std::size_t c, const ValueKernels& kernels,
                     const SharedTables& shared) {
  Workspace& space = workspace();
  const Chunk chunk = look_at(items, c, space);
  ChunkHeader header{};
  header.nonzeros = static_cast<std::uint32_t>(chunk.nonzeros);
  header.checksum = chunk_checksum(space.words.data(), chunk.size, space.values.data(),
                                   chunk.nonzeros * items.item_size);
  Bytes out(kChunkHeaderBytes);
  encode_positions(chunk, space, shared, header, out);
  encode_values(chunk, space, items, kernels, shared, header, out);
  const std::size_t raw_bytes = chunk.size * items.item_size;
  if (out.size() > kChunkHeaderBytes + raw_bytes) {
    header = {Positions::raw, false, false, false, false, header.nonzeros, header.checksum};
    out.resize(kChunkHeaderBytes);
    put_bytes(out, chunk.items, raw_bytes);
  }
  write_header(header, out.data());
  out.shrink_to_fit();
  return {std::move(out), tables_of(header)};
}

Bytes encode_front(const SharedTables& shared, const std::vector<Payload>& payloads) {
  unsigned used = 0;
  for (const Payload& payload : payloads) used |= payload.tables;
  Bytes front;
  front.push_back(static_cast<std::uint8_t>(used));
  if (shared.mask && (used & kMaskTable) != 0) write_frequencies(*shared.mask, front);
  if (shared.gaps && (used & kGapTable) != 0) write_frequencies(*shared.gaps, front);
  if (shared.values && (used & kValueTable) != 0) {
    write_plan(shared.plan, front);
    write_frequencies(*shared.values, front);
  }
  for (const Payload& payload : payloads) {
    put(front, static_cast<std::uint32_t>(payload.bytes.size()));
  }
  return front;
}

}  // namespace
}  // namespace secateur::codec

namespace secateur {

std::size_t Coded::num_bytes() const noexcept {
  std::size_t total = 0;
  for (const auto& piece : pieces_) total += piece.size();
  return total;
}

void Coded::write(std::uint8_t* out) const noexcept {
  for (const auto& piece : pieces_) {
    if (!piece.empty()) std::memcpy(out, piece.data(), piece.size());
    out += piece.size();
  }
}

Coded codec_encode(Items items, Numbers numbers) {
  const codec::ValueKernels kernels = codec::value_kernels(items.item_size, numbers);
  const codec::SharedTables shared = codec::share_tables(items, kernels);
  std::vector<codec::Payload> payloads(packing_chunks(items.size));
  for_each_run(payloads.size(), Walk::forwards, [&](std::size_t c) {
    payloads[c] = codec::encode_chunk(items, c, kernels, shared);
  });
  std::vector<std::vector<std::uint8_t>> pieces;
  pieces.reserve(payloads.size() + 1);
  pieces.push_back(codec::encode_front(shared, payloads));
  for (codec::Payload& payload : payloads) pieces.push_back(std::move(payload.bytes));
  return Coded(std::move(pieces));
}

}  // namespace secateur
