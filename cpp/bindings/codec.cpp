#include "secateur/codec.hpp"

#include "module.hpp"
#include "packed_arrays.hpp"

namespace py = pybind11;

namespace secateur::bindings {
namespace {

using packed::require;

Numbers to_numbers(int numbers) {
  require(numbers >= 0 && numbers <= 2, "numbers must be 0 to 2, got " + std::to_string(numbers));
  return static_cast<Numbers>(numbers);
}

py::array_t<std::uint8_t> encode(const py::array& array, int numbers) {
  const Items items{array.data(), static_cast<std::size_t>(array.size()),
                    packed::item_size(array, "array")};
  const Numbers kind = to_numbers(numbers);
  const Coded coded = [&] {
    const py::gil_scoped_release release;
    return codec_encode(items, kind);
  }();
  py::array_t<std::uint8_t> out(static_cast<py::ssize_t>(coded.num_bytes()));
  std::uint8_t* to = out.mutable_data();
  const py::gil_scoped_release release;
  coded.write(to);
  return out;
}

CodedItems to_coded(const py::array& coded, std::size_t size, std::size_t item_size, int numbers) {
  const auto bytes = static_cast<std::size_t>(coded.size());
  require(item_size == 1 || item_size == 2 || item_size == 4 || item_size == 8,
          "items must have 1, 2, 4 or 8 bytes");
  return {packed::input<std::uint8_t>(coded, bytes, "coded"), bytes, size, item_size,
          to_numbers(numbers)};
}

const std::uint64_t* to_offsets(const py::array& offsets, std::size_t size, std::size_t total) {
  return packed::offsets(offsets, packing_chunks(size), kPackingChunk, total);
}

int offsets_of(const py::array& coded, std::size_t size, std::size_t item_size, int numbers,
               py::array& offsets) {
  const CodedItems items = to_coded(coded, size, item_size, numbers);
  auto* table = packed::output<std::uint64_t>(offsets, packing_chunks(size) + 1, "offsets");
  const py::gil_scoped_release release;
  return static_cast<int>(codec_offsets(items, table));
}

int decode(const py::array& coded, int numbers, const py::array& offsets, py::array& out) {
  const auto size = static_cast<std::size_t>(out.size());
  const std::size_t item_size = packed::item_size(out, "out");
  const CodedItems items = to_coded(coded, size, item_size, numbers);
  const auto* table = packed::running_totals(offsets, packing_chunks(size), kPackingChunk);
  void* dense = packed::raw_output(out, size, item_size, "out");
  const py::gil_scoped_release release;
  return static_cast<int>(codec_decode(items, table, dense));
}

template <class Index>
int to_csr(const py::array& coded, int numbers, const py::array& offsets, std::size_t cols,
           py::array& values, py::array& indices, py::array& indptr) {
  const MatrixShape shape = packed::matrix_shape(cols, indptr);
  const std::size_t size = shape.rows * cols;
  const auto count = static_cast<std::size_t>(values.size());
  const std::size_t item_size = packed::item_size(values, "values");
  const CodedItems items = to_coded(coded, size, item_size, numbers);
  const auto* table = to_offsets(offsets, size, count);
  void* kept = packed::raw_output(values, count, item_size, "values");
  auto* columns = packed::output<Index>(indices, count, "indices");
  auto* starts = packed::output<Index>(indptr, shape.rows + 1, "indptr");
  const py::gil_scoped_release release;
  return static_cast<int>(codec_to_csr(items, table, shape, kept, columns, starts));
}

template <class Index>
void bind_csr(py::module_& module, const std::string& suffix) {
  module.def(("codec_to_csr" + suffix).c_str(), &to_csr<Index>, py::arg("coded").noconvert(),
             py::arg("numbers"), py::arg("offsets").noconvert(), py::arg("cols"),
             py::arg("values").noconvert(), py::arg("indices").noconvert(),
             py::arg("indptr").noconvert());
}

}  // namespace

void bind_codec(py::module_& module) {
  module.def("codec_encode", &encode, py::arg("array").noconvert(), py::arg("numbers"));
  module.def("codec_least_bytes", &codec_least_bytes, py::arg("size"));
  module.def("codec_offsets", &offsets_of, py::arg("coded").noconvert(), py::arg("size"),
             py::arg("item_size"), py::arg("numbers"), py::arg("offsets").noconvert());
  module.def("codec_decode", &decode, py::arg("coded").noconvert(), py::arg("numbers"),
             py::arg("offsets").noconvert(), py::arg("out").noconvert());
  bind_csr<std::int32_t>(module, "32");
  bind_csr<std::int64_t>(module, "64");
}

}  // namespace secateur::bindings
