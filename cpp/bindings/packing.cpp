#include "secateur/packing.hpp"

#include "module.hpp"
#include "packed_arrays.hpp"

namespace py = pybind11;

namespace secateur::bindings {
namespace {

using packed::require;

Items to_items(const py::array& array, const char* name) {
  const std::size_t bytes = packed::item_size(array, name);
  return {array.data(), static_cast<std::size_t>(array.size()), bytes};
}

const std::uint64_t* to_offsets(const py::array& array, std::size_t size, std::size_t total) {
  return packed::offsets(array, packing_chunks(size), kPackingChunk, total);
}

std::size_t mask_bytes(std::size_t size) { return size / 8 + (size % 8 != 0); }

std::uint64_t count_nonzeros(const py::array& array, bool by_value, py::array& offsets) {
  const Items items = to_items(array, "array");
  auto* table = packed::output<std::uint64_t>(offsets, packing_chunks(items.size) + 1, "offsets");
  const py::gil_scoped_release release;
  return nonzero_offsets(items, by_value ? Zero::by_value : Zero::by_bits, table);
}

void pack_bitmask(const py::array& array, const py::array& offsets, py::array& bits,
                  py::array& values) {
  const Items items = to_items(array, "array");
  const auto count = static_cast<std::size_t>(values.size());
  const auto* table = to_offsets(offsets, items.size, count);
  auto* mask = packed::output<std::uint8_t>(bits, mask_bytes(items.size), "bits");
  void* kept = packed::raw_output(values, count, items.item_size, "values");
  const py::gil_scoped_release release;
  bitmask_pack(items, table, mask, kept);
}

bool offsets_of_bitmask(const py::array& bits, std::size_t size, py::array& offsets) {
  const auto* mask = packed::input<std::uint8_t>(bits, mask_bytes(size), "bits");
  auto* table = packed::output<std::uint64_t>(offsets, packing_chunks(size) + 1, "offsets");
  const py::gil_scoped_release release;
  return bitmask_offsets(mask, size, table);
}

void unpack_bitmask(const py::array& bits, const py::array& offsets, const py::array& values,
                    py::array& out) {
  const Items items = to_items(values, "values");
  const auto size = static_cast<std::size_t>(out.size());
  const auto* mask = packed::input<std::uint8_t>(bits, mask_bytes(size), "bits");
  const auto* table = to_offsets(offsets, size, items.size);
  void* dense = packed::raw_output(out, size, items.item_size, "out");
  const py::gil_scoped_release release;
  bitmask_unpack(mask, table, items, size, dense);
}

void pack_csr16(const py::array& array, const py::array& offsets, py::array& positions,
                py::array& values) {
  const Items items = to_items(array, "array");
  const auto count = static_cast<std::size_t>(values.size());
  const auto* table = to_offsets(offsets, items.size, count);
  auto* places = packed::output<std::uint16_t>(positions, count, "positions");
  void* kept = packed::raw_output(values, count, items.item_size, "values");
  const py::gil_scoped_release release;
  csr16_pack(items, table, places, kept);
}

bool unpack_csr16(const py::array& offsets, const py::array& positions, const py::array& values,
                  py::array& out) {
  const Items items = to_items(values, "values");
  const auto size = static_cast<std::size_t>(out.size());
  const auto* table = to_offsets(offsets, size, items.size);
  const auto* places = packed::input<std::uint16_t>(positions, items.size, "positions");
  void* dense = packed::raw_output(out, size, items.item_size, "out");
  const py::gil_scoped_release release;
  return csr16_unpack(table, places, items, size, dense);
}

template <class Index>
void index_bitmask(const py::array& bits, const py::array& offsets, std::size_t cols,
                   py::array& indices, py::array& indptr) {
  const MatrixShape shape = packed::matrix_shape(cols, indptr);
  const std::size_t size = shape.rows * cols;
  const auto count = static_cast<std::size_t>(indices.size());
  const auto* mask = packed::input<std::uint8_t>(bits, mask_bytes(size), "bits");
  const auto* table = to_offsets(offsets, size, count);
  auto* columns = packed::output<Index>(indices, count, "indices");
  auto* starts = packed::output<Index>(indptr, shape.rows + 1, "indptr");
  const py::gil_scoped_release release;
  bitmask_to_csr(mask, table, shape, columns, starts);
}

template <class Index>
bool index_csr16(const py::array& offsets, const py::array& positions, std::size_t cols,
                 py::array& indices, py::array& indptr) {
  const MatrixShape shape = packed::matrix_shape(cols, indptr);
  const auto count = static_cast<std::size_t>(indices.size());
  const auto* table = to_offsets(offsets, shape.rows * cols, count);
  const auto* places = packed::input<std::uint16_t>(positions, count, "positions");
  auto* columns = packed::output<Index>(indices, count, "indices");
  auto* starts = packed::output<Index>(indptr, shape.rows + 1, "indptr");
  const py::gil_scoped_release release;
  return csr16_to_csr(table, places, shape, columns, starts);
}

template <class Index>
void bind_indices(py::module_& module, const std::string& suffix) {
  module.def(("bitmask_to_csr" + suffix).c_str(), &index_bitmask<Index>,
             py::arg("bits").noconvert(), py::arg("offsets").noconvert(), py::arg("cols"),
             py::arg("indices").noconvert(), py::arg("indptr").noconvert());
  module.def(("csr16_to_csr" + suffix).c_str(), &index_csr16<Index>, py::arg("offsets").noconvert(),
             py::arg("positions").noconvert(), py::arg("cols"), py::arg("indices").noconvert(),
             py::arg("indptr").noconvert());
}

}  // namespace

void bind_packing(py::module_& module) {
  module.attr("PACKING_CHUNK") = kPackingChunk;
  module.def("nonzero_offsets", &count_nonzeros, py::arg("array").noconvert(), py::arg("by_value"),
             py::arg("offsets").noconvert());
  module.def("bitmask_pack", &pack_bitmask, py::arg("array").noconvert(),
             py::arg("offsets").noconvert(), py::arg("bits").noconvert(),
             py::arg("values").noconvert());
  module.def("bitmask_offsets", &offsets_of_bitmask, py::arg("bits").noconvert(), py::arg("size"),
             py::arg("offsets").noconvert());
  module.def("bitmask_unpack", &unpack_bitmask, py::arg("bits").noconvert(),
             py::arg("offsets").noconvert(), py::arg("values").noconvert(),
             py::arg("out").noconvert());
  module.def("csr16_pack", &pack_csr16, py::arg("array").noconvert(),
             py::arg("offsets").noconvert(), py::arg("positions").noconvert(),
             py::arg("values").noconvert());
  module.def("csr16_unpack", &unpack_csr16, py::arg("offsets").noconvert(),
             py::arg("positions").noconvert(), py::arg("values").noconvert(),
             py::arg("out").noconvert());
  bind_indices<std::int32_t>(module, "32");
  bind_indices<std::int64_t>(module, "64");
}

}  // namespace secateur::bindings
