// From coded bytes, which may be any bytes at all, to an array or to CSR. Every read goes through a
// ByteReader, every write is bounded by the chunk's size and its checked number of non-zeros.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <memory>
#include <optional>
#include <vector>

#include "codec_ans.hpp"
#include "codec_format.hpp"
#include "codec_values.hpp"
#include "packing_chunk.hpp"
#include "secateur/codec.hpp"

namespace secateur::codec {
namespace {

// ---- The array's own header ----

struct Parsed {
  CodedItems coded;
  std::optional<AnsSlots> mask;
  std::optional<AnsSlots> gaps;
  std::optional<AnsSlots> values;
  ValuePlan plan{};
  std::vector<const std::uint8_t*> starts;  // of every payload, and the end

  std::size_t num_chunks() const { return starts.size() - 1; }
  std::size_t chunk_size(std::size_t c) const {
    return std::min(kPackingChunk, coded.size - c * kPackingChunk);
  }
};

// The table, kept in `slots`; null if it is not sound.
const AnsSlots* read_slots(ByteReader& in, std::optional<AnsSlots>& slots) {
  Frequencies frequencies;
  if (!read_frequencies(in, frequencies)) return nullptr;
  return &slots.emplace(frequencies);
}

bool read_tables(ByteReader& in, unsigned flags, Parsed& parsed) {
  if ((flags & kMaskTable) != 0 && read_slots(in, parsed.mask) == nullptr) return false;
  if ((flags & kGapTable) != 0 && read_slots(in, parsed.gaps) == nullptr) return false;
  if ((flags & kValueTable) == 0) return true;
  return read_plan(in, parsed.coded.item_size, parsed.plan) &&
         read_slots(in, parsed.values) != nullptr;
}

// The payloads must fill what is left to the last byte.
bool read_lengths(ByteReader& in, Parsed& parsed) {
  const std::size_t chunks = packing_chunks(parsed.coded.size);
  if (chunks > in.left() / (sizeof(std::uint32_t) + kChunkHeaderBytes)) return false;
  const std::uint8_t* lengths = in.take(chunks * sizeof(std::uint32_t));
  if (lengths == nullptr) return false;
  parsed.starts.reserve(chunks + 1);
  for (std::size_t c = 0; c < chunks; ++c) {
    const auto length = load_as<std::uint32_t>(lengths + c * sizeof(std::uint32_t));
    const std::uint8_t* payload = in.take(length);
    if (payload == nullptr || length < kChunkHeaderBytes) return false;
    parsed.starts.push_back(payload);
  }
  parsed.starts.push_back(in.at);
  return in.left() == 0;
}

CodecFault parse(CodedItems coded, Parsed& parsed) {
  parsed.coded = coded;
  ByteReader in{coded.data, coded.data + coded.num_bytes};
  std::uint8_t flags = 0;
  if (!in.read(flags)) return CodecFault::lengths;
  if (flags > (kMaskTable | kGapTable | kValueTable)) return CodecFault::header;
  if (!read_tables(in, flags, parsed)) return CodecFault::table;
  return read_lengths(in, parsed) ? CodecFault::none : CodecFault::lengths;
}

// ---- One chunk ----

// Memory that a thread keeps, see codec_encode.cpp.
struct Workspace {
  Words words;
  std::array<std::uint64_t, kPackingChunk> values;
  std::array<std::uint64_t, kPackingChunk> items;
  std::array<std::uint8_t, kPackingChunk> symbols;
};

Workspace& workspace() {
  thread_local const auto held = std::make_unique_for_overwrite<Workspace>();
  return *held;
}

// A table of the chunk's own if it has one, else the shared one; null if there is neither.
class Table {
 public:
  Table(bool own, ByteReader& in, const std::optional<AnsSlots>& shared) {
    if (own) {
      slots_ = read_slots(in, own_);
    } else if (shared) {
      slots_ = &*shared;
    }
  }
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  const AnsSlots* slots() const { return slots_; }

 private:
  std::optional<AnsSlots> own_;
  const AnsSlots* slots_ = nullptr;
};

void fill_words(std::size_t size, std::uint64_t* words) {
  std::fill_n(words, num_words(size), ~std::uint64_t{0});
  if (size % 64 != 0) words[size / 64] = (std::uint64_t{1} << size % 64) - 1;
}

// Exactly `nonzeros` gaps that are no skips, all of them inside the chunk.
bool place_gaps(const std::uint8_t* gaps, std::size_t count, std::size_t nonzeros, std::size_t size,
                std::uint64_t* words) {
  std::fill_n(words, num_words(size), 0);
  std::size_t position = 0;
  std::size_t placed = 0;
  for (std::size_t i = 0; i < count; ++i) {
    position += gaps[i];
    if (gaps[i] == kSkip) continue;
    if (position >= size) return false;
    words[position / 64] |= std::uint64_t{1} << position % 64;
    ++position;
    ++placed;
  }
  return placed == nonzeros;
}

// Decodes one chunk at a time into the thread's workspace.
class ChunkDecoder {
 public:
  ChunkDecoder(const Parsed& parsed, std::size_t c)
      : parsed_(parsed),
        kernels_(chunk_kernels(parsed.coded.item_size)),
        space_(workspace()),
        in_{parsed.starts[c], parsed.starts[c + 1]},
        size_(parsed.chunk_size(c)) {}

  // `values` has room for `expected` non-zeros; words() are the chunk's mask.
  CodecFault run(std::uint64_t expected, void* values) {
    if (!read_header(in_.take(kChunkHeaderBytes), size_, header_) || header_.nonzeros != expected) {
      return CodecFault::header;
    }
    const CodecFault fault =
        header_.positions == Positions::raw ? read_raw(values) : read_coded(values);
    if (fault != CodecFault::none) return fault;
    if (in_.left() != 0) return CodecFault::lengths;
    return is_what_was_encoded(values) ? CodecFault::none : CodecFault::checksum;
  }

  const std::uint64_t* words() const { return space_.words.data(); }
  bool is_full() const { return header_.nonzeros == size_; }

 private:
  std::size_t item_size() const { return parsed_.coded.item_size; }

  bool is_what_was_encoded(const void* values) const {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    return values != nullptr || header_.nonzeros == 0;  // a fuzzer never gets past a checksum
#else
    return chunk_checksum(words(), size_, values, header_.nonzeros * item_size()) ==
           header_.checksum;
#endif
  }

  CodecFault read_raw(void* values) {
    const std::uint8_t* items = in_.take(size_ * item_size());
    if (items == nullptr) return CodecFault::values;
    std::memcpy(space_.items.data(), items, size_ * item_size());  // payloads are not aligned
    const std::size_t found = kernels_.compress(space_.items.data(), size_, Zero::by_bits, values,
                                                header_.nonzeros, space_.words.data());
    return found == header_.nonzeros ? CodecFault::none : CodecFault::values;
  }

  CodecFault read_coded(void* values) {
    if (!read_positions()) return CodecFault::positions;
    if (!read_values(values)) return CodecFault::values;
    // A zero among the non-zeros would make a file say one thing and mean another.
    const std::size_t nonzeros = kernels_.count(values, header_.nonzeros, Zero::by_bits);
    return nonzeros == header_.nonzeros ? CodecFault::none : CodecFault::values;
  }

  bool read_positions() {
    std::uint64_t* words = space_.words.data();
    switch (header_.positions) {
      case Positions::full:
        fill_words(size_, words);
        return true;
      case Positions::mask:
      case Positions::mask_ans:
        return read_mask();
      case Positions::gaps:
        return read_gaps();
      case Positions::empty:
      case Positions::raw:
        break;
    }
    std::fill_n(words, num_words(size_), 0);
    return true;
  }

  bool read_mask() {
    std::uint64_t* words = space_.words.data();
    words[num_words(size_) - 1] = 0;
    auto* bytes = reinterpret_cast<std::uint8_t*>(words);
    if (header_.positions == Positions::mask) {
      const std::uint8_t* from = in_.take(num_bytes(size_));
      if (from == nullptr) return false;
      std::memcpy(bytes, from, num_bytes(size_));
    } else {
      const Table table(header_.own_positions, in_, parsed_.mask);
      if (table.slots() == nullptr) return false;
      if (!ans_decode(in_, *table.slots(), bytes, num_bytes(size_))) return false;
    }
    const bool padded = size_ % 64 == 0 || words[size_ / 64] >> size_ % 64 == 0;
    return padded && index_kernels().count_bits(words, num_words(size_)) == header_.nonzeros;
  }

  bool read_gaps() {
    std::uint16_t skips = 0;
    if (!in_.read(skips) || skips > size_ / kSkip) return false;
    const std::size_t count = header_.nonzeros + skips;
    if (count == 0 || count > space_.symbols.size()) return false;
    const Table table(header_.own_positions, in_, parsed_.gaps);
    if (table.slots() == nullptr) return false;
    if (!ans_decode(in_, *table.slots(), space_.symbols.data(), count)) return false;
    return place_gaps(space_.symbols.data(), count, header_.nonzeros, size_, space_.words.data());
  }

  bool read_values(void* values) {
    const std::size_t count = header_.nonzeros;
    if (count == 0) return true;
    if (!header_.coded_values) {
      const std::uint8_t* from = in_.take(count * item_size());
      if (from != nullptr) std::memcpy(values, from, count * item_size());
      return from != nullptr;
    }
    if (header_.palette) return read_palette(count, values);
    ValuePlan plan = parsed_.plan;
    if (header_.own_values && !read_plan(in_, item_size(), plan)) return false;
    const Table table(header_.own_values, in_, parsed_.values);
    if (table.slots() == nullptr) return false;
    if (!ans_decode(in_, *table.slots(), space_.symbols.data(), count)) return false;
    const std::uint8_t* packed = in_.take(low_bytes(count, plan.low));
    if (packed == nullptr) return false;
    value_kernels(item_size(), parsed_.coded.numbers)
        .merge(space_.symbols.data(), packed, plan, count, values);
    return true;
  }

  bool read_palette(std::size_t count, void* values) {
    const ValueKernels kernels = value_kernels(item_size(), parsed_.coded.numbers);
    std::uint8_t last = 0;
    if (!in_.read(last)) return false;
    Palette palette;
    palette.size = std::size_t{last} + 1;
    const std::uint8_t* items = in_.take(palette.size * item_size());
    if (items == nullptr) return false;
    std::memcpy(palette.items.data(), items, palette.size * item_size());
    const Table table(true, in_, std::nullopt);
    if (!kernels.rises(palette) || table.slots() == nullptr) return false;
    return ans_decode(in_, *table.slots(), space_.symbols.data(), count) &&
           kernels.paint(space_.symbols.data(), palette, count, values);
  }

  const Parsed& parsed_;
  ChunkKernels kernels_;
  Workspace& space_;
  ByteReader in_;
  std::size_t size_;
  ChunkHeader header_{};
};

// The fault of the first chunk that has one, whichever thread finds it when.
class FirstFault {
 public:
  void note(std::size_t chunk, CodecFault fault) {
    if (fault == CodecFault::none) return;
    const std::uint64_t found = std::uint64_t{chunk} << 8 | static_cast<std::uint64_t>(fault);
    std::uint64_t first = first_.load();
    while (found < first && !first_.compare_exchange_weak(first, found)) {
    }
  }

  CodecFault get() const {
    const std::uint64_t first = first_.load();
    return first == kNone ? CodecFault::none : static_cast<CodecFault>(first & 0xFFU);
  }

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  std::atomic<std::uint64_t> first_{kNone};
};

// use(chunk, decoder) -> CodecFault, for every chunk of the array.
template <class Use>
CodecFault decode_chunks(CodedItems coded, const Use& use) {
  Parsed parsed;
  const CodecFault fault = parse(coded, parsed);
  if (fault != CodecFault::none) return fault;
  FirstFault first;
  for_each_run(parsed.num_chunks(), Walk::forwards, [&](std::size_t c) {
    ChunkDecoder decoder(parsed, c);
    first.note(c, use(c, decoder));
  });
  return first.get();
}

}  // namespace
}  // namespace secateur::codec

namespace secateur {

CodecFault codec_offsets(CodedItems coded, std::uint64_t* offsets) {
  codec::Parsed parsed;
  const CodecFault fault = codec::parse(coded, parsed);
  if (fault != CodecFault::none) return fault;
  for (std::size_t c = 0; c < parsed.num_chunks(); ++c) {
    codec::ChunkHeader header{};
    if (!codec::read_header(parsed.starts[c], parsed.chunk_size(c), header)) {
      return CodecFault::header;
    }
    offsets[c + 1] = header.nonzeros;
  }
  accumulate(offsets, parsed.num_chunks());
  return CodecFault::none;
}

CodecFault codec_decode(CodedItems coded, const std::uint64_t* offsets, void* out) {
  const ChunkKernels kernels = chunk_kernels(coded.item_size);
  return codec::decode_chunks(coded, [&](std::size_t c, codec::ChunkDecoder& decoder) {
    const Place place = chunk_place(c, coded.size, offsets);
    const std::uint64_t count = offsets[c + 1] - offsets[c];
    std::byte* items = at(out, place.begin, coded.item_size);
    // Without zeros the values are the items.
    const bool full = count == place.size;
    void* values = full ? static_cast<void*>(items) : codec::workspace().values.data();
    const CodecFault fault = decoder.run(count, values);
    if (fault == CodecFault::none && !full) {
      kernels.expand(decoder.words(), place.size, values, static_cast<std::size_t>(count), items);
    }
    return fault;
  });
}

template <class Index>
CodecFault codec_to_csr(CodedItems coded, const std::uint64_t* offsets, MatrixShape shape,
                        void* values, Index* indices, Index* indptr) {
  const IndexKernels kernels = index_kernels();
  const CodecFault fault =
      codec::decode_chunks(coded, [&](std::size_t c, codec::ChunkDecoder& decoder) {
        const Place place = chunk_place(c, coded.size, offsets);
        const std::uint64_t count = offsets[c + 1] - offsets[c];
        const CodecFault found =
            decoder.run(count, at(values, static_cast<std::size_t>(place.offset), coded.item_size));
        if (found == CodecFault::none) {
          chunk_to_csr(kernels, decoder.words(), place, static_cast<std::size_t>(count), shape,
                       indices, indptr);
        }
        return found;
      });
  close_indptr(shape, offsets[packing_chunks(coded.size)], indptr);
  return fault;
}

template CodecFault codec_to_csr(CodedItems, const std::uint64_t*, MatrixShape, void*,
                                 std::int32_t*, std::int32_t*);
template CodecFault codec_to_csr(CodedItems, const std::uint64_t*, MatrixShape, void*,
                                 std::int64_t*, std::int64_t*);

}  // namespace secateur
