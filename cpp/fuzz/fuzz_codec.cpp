// libFuzzer on the decoder: any bytes, any size, any kind of number, to an array and to CSR. Built
// with FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION, which makes wrong checksums pass, so that what
// stands behind them is reached too. The first four bytes say what the rest should hold.
//
// With FUZZ_CODEC_SEEDS=FOLDER in the environment it first writes sound arrays there to start from.
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../tests/codec_samples.hpp"
#include "secateur/codec.hpp"
#include "secateur/threads.hpp"

using namespace secateur;

namespace {

constexpr std::size_t kFront = 4;
constexpr std::size_t kMaxSize = std::size_t{1} << 18;  // more than one chunk, and quick

std::vector<std::uint8_t> front_of(const samples::Sample& sample) {
  const auto log = static_cast<unsigned>(std::bit_width(sample.item_size)) - 1;
  const auto kind = static_cast<std::uint8_t>(log | static_cast<unsigned>(sample.numbers) << 2);
  return {kind, static_cast<std::uint8_t>(sample.size), static_cast<std::uint8_t>(sample.size >> 8),
          static_cast<std::uint8_t>(sample.size >> 16)};
}

void write_seeds(const std::string& folder) {
  int number = 0;
  for (const std::size_t item_size : {1U, 2U, 4U, 8U}) {
    for (const Numbers numbers : {Numbers::signed_integers, Numbers::floats}) {
      samples::Maker maker(item_size, numbers, 1);
      for (const samples::Content content : samples::kContents) {
        for (const std::size_t size : {50U, 3000U, 70000U}) {
          const samples::Sample sample = maker.make(size, content, size == 70000U ? 0.02 : 0.3);
          std::vector<std::uint8_t> bytes = front_of(sample);
          const std::vector<std::uint8_t> coded = samples::encode(sample);
          bytes.insert(bytes.end(), coded.begin(), coded.end());
          const std::string path = folder + "/seed" + std::to_string(number++);
          std::FILE* file = std::fopen(path.c_str(), "wb");
          if (file == nullptr) std::abort();
          if (std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) std::abort();
          if (std::fclose(file) != 0) std::abort();
        }
      }
    }
  }
}

void decode_csr(const CodedItems& coded, const std::vector<std::uint64_t>& offsets,
                std::size_t cols) {
  const MatrixShape shape{coded.size / cols, cols};
  const auto count = static_cast<std::size_t>(offsets.back());
  std::vector<std::uint64_t> values((count * coded.item_size + 7) / 8);
  std::vector<std::int32_t> indices(count);
  std::vector<std::int32_t> indptr(shape.rows + 1);
  if (codec_to_csr(coded, offsets.data(), shape, values.data(), indices.data(), indptr.data()) !=
      CodecFault::none) {
    return;
  }
  for (const std::int32_t column : indices) {
    if (column < 0 || static_cast<std::size_t>(column) >= cols) std::abort();
  }
  for (std::size_t row = 0; row < shape.rows; ++row) {
    if (indptr[row] > indptr[row + 1]) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  set_num_threads(1);
  if (const char* folder = std::getenv("FUZZ_CODEC_SEEDS")) write_seeds(folder);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t num_bytes) {
  if (num_bytes < kFront) return 0;
  std::uint32_t front = 0;
  std::memcpy(&front, data, kFront);
  const std::size_t size = (front >> 8) % kMaxSize;
  const auto numbers = static_cast<Numbers>((data[0] >> 2) % 3);
  // A copy of its own, so that reading past its end is seen.
  const std::vector<std::uint8_t> bytes(data + kFront, data + num_bytes);
  const CodedItems coded{bytes.data(), bytes.size(), size, std::size_t{1} << (data[0] & 3),
                         numbers};
  if (bytes.size() < codec_least_bytes(size)) return 0;
  std::vector<std::uint64_t> offsets(packing_chunks(size) + 1);
  if (codec_offsets(coded, offsets.data()) != CodecFault::none) return 0;
  std::vector<std::uint64_t> out((size * coded.item_size + 7) / 8);
  if (codec_decode(coded, offsets.data(), out.data()) != CodecFault::none) return 0;
  for (const std::size_t cols : {std::size_t{1}, std::size_t{7}, size}) {
    if (cols != 0 && size % cols == 0) decode_csr(coded, offsets, cols);
  }
  return 0;
}
