#include "secateur/select.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>

#include "module.hpp"

namespace py = pybind11;

namespace secateur::bindings {
namespace {

DType to_dtype(int code) {
  if (code < 0 || code > static_cast<int>(DType::float64)) {
    throw std::invalid_argument("unknown dtype code " + std::to_string(code));
  }
  return static_cast<DType>(code);
}

Order to_order(int code) {
  if (code < 0 || code > static_cast<int>(Order::value)) {
    throw std::invalid_argument("unknown order code " + std::to_string(code));
  }
  return static_cast<Order>(code);
}

// Memory of an array that a kernel may read or write; nothing is converted or copied.
struct View {
  void* data;
  std::size_t size;
};

View view_of(const py::array& array, std::size_t item_bytes, bool writeable) {
  if ((array.flags() & py::array::c_style) == 0) {
    throw std::invalid_argument("arrays must be C-contiguous: use np.ascontiguousarray(x)");
  }
  if (static_cast<std::size_t>(array.itemsize()) != item_bytes) {
    throw std::invalid_argument("arrays must have items of " + std::to_string(item_bytes) +
                                " bytes, got " + std::to_string(array.itemsize()));
  }
  if (reinterpret_cast<std::uintptr_t>(array.data()) % item_bytes != 0) {
    throw std::invalid_argument("arrays must be aligned: use x.copy()");
  }
  if (writeable && !array.writeable()) throw std::invalid_argument("output arrays are read-only");
  return {const_cast<void*>(array.data()), static_cast<std::size_t>(array.size())};
}

std::vector<View> views_of(const py::list& arrays, std::size_t item_bytes, bool writeable) {
  std::vector<View> views;
  views.reserve(arrays.size());
  for (const py::handle& item : arrays) {
    if (!py::isinstance<py::array>(item)) throw py::type_error("expected a list of arrays");
    views.push_back(view_of(py::reinterpret_borrow<py::array>(item), item_bytes, writeable));
  }
  return views;
}

std::vector<Segment> segments_of(const py::list& arrays, DType dtype) {
  std::vector<Segment> segments;
  for (const View& view : views_of(arrays, item_size(dtype), false)) {
    segments.push_back({view.data, view.size});
  }
  return segments;
}

void fill_targets(std::vector<CutTarget>& targets, const std::vector<Segment>& segments,
                  const py::list& arrays, std::size_t item_bytes,
                  void (*assign)(CutTarget&, void*)) {
  const std::vector<View> views = views_of(arrays, item_bytes, true);
  if (views.size() != segments.size()) {
    throw std::invalid_argument("as many outputs as arrays are needed");
  }
  for (std::size_t i = 0; i < views.size(); ++i) {
    if (views[i].size != segments[i].size) {
      throw std::invalid_argument("outputs must have as many elements as their arrays");
    }
    assign(targets[i], views[i].data);
  }
}

// Memory that a call touches, to find out whether threads would step on each other's toes.
struct Extent {
  std::uintptr_t begin;
  std::uintptr_t end;
  bool written;
};

Extent extent_of(const void* data, std::size_t num_bytes, bool written) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  return {begin, begin + num_bytes, written};
}

void refuse_overlap(std::vector<Extent> extents) {
  std::erase_if(extents, [](const Extent& extent) { return extent.begin == extent.end; });
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  std::uintptr_t touched = 0;
  std::uintptr_t written = 0;
  for (const Extent& extent : extents) {
    if (extent.begin < (extent.written ? touched : written)) {
      throw std::invalid_argument(
          "outputs must not share memory with each other or with another array");
    }
    touched = std::max(touched, extent.end);
    if (extent.written) written = std::max(written, extent.end);
  }
}

void refuse_overlap(const std::vector<Segment>& segments, const std::vector<CutTarget>& targets,
                    DType dtype) {
  std::vector<Extent> extents;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const std::size_t num_bytes = segments[i].size * item_size(dtype);
    const bool in_place = targets[i].values == segments[i].data;
    extents.push_back(extent_of(segments[i].data, num_bytes, in_place));
    if (targets[i].values != nullptr && !in_place) {
      extents.push_back(extent_of(targets[i].values, num_bytes, true));
    }
    if (targets[i].mask != nullptr) {
      extents.push_back(extent_of(targets[i].mask, segments[i].size, true));
    }
  }
  refuse_overlap(std::move(extents));
}

std::vector<CutTarget> targets_of(const std::vector<Segment>& segments, DType dtype,
                                  const std::optional<py::list>& out,
                                  const std::optional<py::list>& masks) {
  if (!out && !masks) return {};
  std::vector<CutTarget> targets(segments.size());
  if (out) {
    fill_targets(targets, segments, *out, item_size(dtype),
                 [](CutTarget& target, void* data) { target.values = data; });
  }
  if (masks) {
    fill_targets(targets, segments, *masks, 1, [](CutTarget& target, void* data) {
      target.mask = static_cast<std::uint8_t*>(data);
    });
  }
  refuse_overlap(segments, targets, dtype);
  return targets;
}

py::tuple bind_find_cut(const py::list& arrays, int dtype_code, int order_code, std::uint64_t k) {
  const DType dtype = to_dtype(dtype_code);
  const Order order = to_order(order_code);
  const std::vector<Segment> segments = segments_of(arrays, dtype);
  FoundCut found{};
  {
    const py::gil_scoped_release unlocked;
    found = find_cut(segments, dtype, order, k);
  }
  return py::make_tuple(found.cut.key, found.cut.segment, found.cut.position, found.non_finite);
}

py::list bind_apply_cut(const py::list& arrays, int dtype_code, int order_code, std::uint64_t key,
                        std::uint64_t segment, std::uint64_t position,
                        const std::optional<py::list>& out, const std::optional<py::list>& masks) {
  const DType dtype = to_dtype(dtype_code);
  const Order order = to_order(order_code);
  const std::vector<Segment> segments = segments_of(arrays, dtype);
  const std::vector<CutTarget> targets = targets_of(segments, dtype, out, masks);
  std::vector<CutStatistics> statistics;
  {
    const py::gil_scoped_release unlocked;
    statistics = apply_cut(segments, dtype, order, {key, segment, position}, targets);
  }
  py::list result;
  for (const CutStatistics& one : statistics) {
    result.append(py::make_tuple(one.num_removed, one.largest_removed, one.smallest_kept));
  }
  return result;
}

void bind_apply_mask(const py::array& values, const py::array& mask, const py::array& out,
                     int dtype_code) {
  const DType dtype = to_dtype(dtype_code);
  const View from = view_of(values, item_size(dtype), false);
  const View bits = view_of(mask, 1, false);
  const View to = view_of(out, item_size(dtype), true);
  if (bits.size != from.size || to.size != from.size) {
    throw std::invalid_argument("values, mask and out must have the same number of elements");
  }
  const std::size_t num_bytes = from.size * item_size(dtype);
  refuse_overlap({extent_of(from.data, num_bytes, from.data == to.data),
                  extent_of(to.data, from.data == to.data ? 0 : num_bytes, true),
                  extent_of(bits.data, bits.size, false)});
  const py::gil_scoped_release unlocked;
  apply_mask(from.data, static_cast<const std::uint8_t*>(bits.data), to.data, from.size, dtype);
}

}  // namespace

void bind_select(py::module_& module) {
  module.def("find_cut", &bind_find_cut, py::arg("arrays"), py::arg("dtype"), py::arg("order"),
             py::arg("k"));
  module.def(
      "cut_at",
      [](double threshold, int dtype, int order) {
        return cut_at(threshold, to_dtype(dtype), to_order(order)).key;
      },
      py::arg("threshold"), py::arg("dtype"), py::arg("order"));
  module.def(
      "cut_value",
      [](std::uint64_t key, int dtype, int order) {
        return cut_value(key, to_dtype(dtype), to_order(order));
      },
      py::arg("key"), py::arg("dtype"), py::arg("order"));
  module.def(
      "find_non_finite",
      [](const py::list& arrays, int dtype) {
        const std::vector<Segment> segments = segments_of(arrays, to_dtype(dtype));
        const py::gil_scoped_release unlocked;
        return find_non_finite(segments, to_dtype(dtype));
      },
      py::arg("arrays"), py::arg("dtype"));
  module.def("apply_cut", &bind_apply_cut, py::arg("arrays"), py::arg("dtype"), py::arg("order"),
             py::arg("key"), py::arg("segment"), py::arg("position"), py::arg("out"),
             py::arg("masks"));
  module.def("apply_mask", &bind_apply_mask, py::arg("values").noconvert(),
             py::arg("mask").noconvert(), py::arg("out").noconvert(), py::arg("dtype"));
  module.def(
      "read_pass",
      [](const py::array& array) {
        const View view = view_of(array, static_cast<std::size_t>(array.itemsize()), false);
        const py::gil_scoped_release unlocked;
        return read_pass(view.data, view.size * static_cast<std::size_t>(array.itemsize()));
      },
      py::arg("array").noconvert());
}

}  // namespace secateur::bindings
