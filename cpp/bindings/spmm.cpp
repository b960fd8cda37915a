#include "secateur/spmm.hpp"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <vector>

#include "arrays.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace secateur::bindings {
namespace {

using Floats = py::array_t<float>;

WeightView to_weights(const Floats& weights) {
  if (weights.ndim() != 2) throw std::invalid_argument("weights must have two dimensions");
  const auto stride = [&](py::ssize_t axis) {
    const py::ssize_t bytes = weights.strides(axis);
    if (bytes < 0 || bytes % py::ssize_t{sizeof(float)} != 0) {
      throw std::invalid_argument("weights must have strides of whole, not negative, elements");
    }
    return static_cast<std::size_t>(bytes) / sizeof(float);
  };
  return {weights.data(), extent(weights, 0), extent(weights, 1), stride(0), stride(1)};
}

const float* optional_data(const std::optional<Floats>& array, std::size_t size, const char* name) {
  if (!array) return nullptr;
  if (static_cast<std::size_t>(array->size()) != size ||
      (array->flags() & py::array::c_style) == 0) {
    throw std::invalid_argument(std::string(name) + " must be C-contiguous and have " +
                                std::to_string(size) + " elements");
  }
  return array->data();
}

Samples to_samples(const Floats& x, Floats& y, std::size_t inputs, std::size_t outputs) {
  check_array(x, sizeof(float), 2, "x");
  auto* out = static_cast<float*>(check_output(y, sizeof(float), 2, "y"));
  check_extent(x, 1, inputs, "x");
  check_extent(y, 1, outputs, "y");
  check_extent(y, 0, extent(x, 0), "y");
  return {x.data(), out, extent(x, 0)};
}

Finish to_finish(const std::optional<Floats>& bias, const std::optional<Floats>& residual,
                 int activation, float slope, float ceiling, std::size_t rows,
                 std::size_t outputs) {
  if (activation < 0 || activation >= kNumActivations) {
    throw std::invalid_argument("no activation has the number " + std::to_string(activation));
  }
  return {optional_data(bias, outputs, "bias"), optional_data(residual, rows * outputs, "residual"),
          static_cast<Activation>(activation), slope, ceiling};
}

constexpr std::size_t kSpare = 16;  // floats beyond the last that kernels may read

template <class Item>
std::size_t bytes_of(const std::vector<Item>& items) {
  return items.size() * sizeof(Item);
}

void check_samples(const Floats& array, bool in_panels, std::size_t rows, std::size_t features,
                   const char* name) {
  check_array(array, sizeof(float), in_panels ? 1 : 2, name);
  check_extent(array, 0, in_panels ? panel_floats(rows, features) : rows, name);
  if (!in_panels) check_extent(array, 1, features, name);
}

// What all packed matrices have in common for Python: they own their memory.
class BlockedMatrix {
 public:
  BlockedMatrix(const Floats& weights, std::size_t height, std::size_t block)
      : plan_(plan_blocked(extent(weights, 0), extent(weights, 1), height, block)) {
    const WeightView view = to_weights(weights);
    const py::gil_scoped_release release;
    segments_.resize(plan_.num_chunks() * plan_.num_blocks() + 1);
    const BlockedSizes sizes = measure_blocked(plan_, view, segments_.data());
    entries_ = sizes.entries;
    values_.resize(sizes.entries * height + kBlockedSpare);
    indices_.resize(sizes.entries + kBlockedSpare);
    order_.resize(sizes.rows);
    groups_.resize(sizes.groups);
    pack_blocked(plan_, view, segments_.data(),
                 {values_.data(), indices_.data(), order_.data(), groups_.data()});
  }

  // x and y are (rows, features), or of one dimension if they are given in panels.
  void multiply(const Floats& x, Floats& y, std::size_t rows, const std::optional<Floats>& bias,
                const std::optional<Floats>& residual, int activation, float slope, float ceiling,
                py::array_t<float>& scratch) const {
    const PanelUse use{x.ndim() == 1, y.ndim() == 1};
    check_samples(x, use.x, rows, plan_.inputs, "x");
    check_samples(y, use.y, rows, plan_.outputs, "y");
    if (!y.writeable()) throw std::invalid_argument("y must be writeable");
    if (use.y && residual) throw std::invalid_argument("y in panels takes no residual");
    const Samples samples{x.data(), y.mutable_data(), rows};
    const Finish finish =
        to_finish(bias, residual, activation, slope, ceiling, samples.rows, plan_.outputs);
    auto* room = static_cast<float*>(check_output(scratch, sizeof(float), 1, "scratch"));
    const std::size_t needed = use.x ? 0 : scratch_floats(rows);
    if (extent(scratch, 0) < needed) {
      throw std::invalid_argument("scratch must have " + std::to_string(needed) + " elements");
    }
    const Blocked weights{plan_,         values_.data(), indices_.data(),
                          order_.data(), groups_.data(), segments_.data()};
    const py::gil_scoped_release release;
    multiply_blocked(weights, samples, use, finish, room);
  }

  std::size_t scratch_floats(std::size_t rows) const {
    return blocked_scratch(plan_, rows) / sizeof(float);
  }

  std::size_t entries() const { return entries_; }

  std::size_t num_bytes() const {
    return bytes_of(values_) + bytes_of(indices_) + bytes_of(order_) + bytes_of(groups_) +
           bytes_of(segments_);
  }

 private:
  BlockedPlan plan_;
  std::size_t entries_ = 0;
  std::vector<float> values_;
  std::vector<std::uint8_t> indices_;
  std::vector<std::uint16_t> order_;
  std::vector<BlockedGroup> groups_;
  std::vector<BlockedSegment> segments_;
};

// A matrix for few samples; Packed says how it is packed and what multiplies by it.
template <class Packed>
class SmallMatrix {
 public:
  void multiply(const Floats& x, Floats& y, const std::optional<Floats>& bias,
                const std::optional<Floats>& residual, int activation, float slope,
                float ceiling) const {
    const Samples samples = to_samples(x, y, inputs_, outputs_);
    const Finish finish =
        to_finish(bias, residual, activation, slope, ceiling, samples.rows, outputs_);
    const py::gil_scoped_release release;
    static_cast<const Packed&>(*this).run(samples, finish);
  }

  std::size_t entries() const { return entries_; }

  std::size_t num_bytes() const { return num_bytes_; }

 protected:
  explicit SmallMatrix(const WeightView& view) : outputs_(view.outputs), inputs_(view.inputs) {}

  template <class... Parts>
  void count(std::size_t entries, const Parts&... parts) {
    entries_ = entries;
    num_bytes_ = (bytes_of(parts) + ...);
  }

  std::size_t outputs_;
  std::size_t inputs_;

 private:
  std::size_t entries_ = 0;
  std::size_t num_bytes_ = 0;
};

class BitmaskMatrix : public SmallMatrix<BitmaskMatrix> {
 public:
  // even: every sixteen inputs get the same room, that of those with the most non-zeros.
  BitmaskMatrix(const Floats& weights, bool even) : SmallMatrix(to_weights(weights)) {
    const WeightView view = to_weights(weights);
    const py::gil_scoped_release release;
    starts_.resize(outputs_ + 1);
    measure_rows(view, starts_.data());
    const std::size_t entries = starts_.back();
    const std::size_t words = (inputs_ + 15) / 16;
    if (even) {
      per_word_ = widest_word(view);
      for (std::size_t i = 0; i <= outputs_; ++i) starts_[i] = i * words * per_word_;
    }
    values_.resize(starts_.back() + kSpare);
    masks_.resize(outputs_ * words);
    pack_bitmask(view, starts_.data(), per_word_, values_.data(), masks_.data());
    count(entries, values_, masks_, starts_);
  }

  void run(const Samples& samples, const Finish& finish) const {
    multiply_bitmask({outputs_, inputs_, per_word_, values_.data(), masks_.data(), starts_.data()},
                     samples, finish);
  }

 private:
  std::size_t per_word_ = 0;
  std::vector<float> values_;
  std::vector<std::uint16_t> masks_;
  std::vector<std::uint64_t> starts_;
};

class LookupMatrix : public SmallMatrix<LookupMatrix> {
 public:
  explicit LookupMatrix(const Floats& weights) : SmallMatrix(to_weights(weights)) {
    if (inputs_ >= kLookupWindow * 65536) {
      throw std::invalid_argument("windows of 16 bits reach 2097151 inputs");
    }
    const WeightView view = to_weights(weights);
    const py::gil_scoped_release release;
    starts_.resize((outputs_ + 15) / 16 + 1);
    measure_lookup(view, starts_.data());
    const std::size_t steps = starts_.back().step;
    values_.resize(starts_.back().value + kSpare);
    indices_.resize(steps * 16);
    masks_.resize(steps);
    windows_.resize(steps);
    pack_lookup(view, starts_.data(),
                {values_.data(), indices_.data(), masks_.data(), windows_.data()});
    count(starts_.back().value, values_, indices_, masks_, windows_, starts_);
  }

  void run(const Samples& samples, const Finish& finish) const {
    multiply_lookup({outputs_, inputs_, values_.data(), indices_.data(), masks_.data(),
                     windows_.data(), starts_.data()},
                    samples, finish);
  }

 private:
  std::vector<float> values_;
  std::vector<std::uint8_t> indices_;
  std::vector<std::uint16_t> masks_;
  std::vector<std::uint16_t> windows_;
  std::vector<LookupStart> starts_;
};

class ShortCsrMatrix : public SmallMatrix<ShortCsrMatrix> {
 public:
  explicit ShortCsrMatrix(const Floats& weights) : SmallMatrix(to_weights(weights)) {
    if (inputs_ > 65536) throw std::invalid_argument("columns of 16 bits reach 65536 inputs");
    const WeightView view = to_weights(weights);
    const py::gil_scoped_release release;
    starts_.resize(outputs_ + 1);
    measure_rows(view, starts_.data());
    values_.resize(starts_.back());
    columns_.resize(starts_.back());
    pack_short_csr(view, starts_.data(), values_.data(), columns_.data());
    count(values_.size(), values_, columns_, starts_);
  }

  void run(const Samples& samples, const Finish& finish) const {
    multiply_short_csr({outputs_, inputs_, values_.data(), columns_.data(), starts_.data()},
                       samples, finish);
  }

 private:
  std::vector<float> values_;
  std::vector<std::uint16_t> columns_;
  std::vector<std::uint64_t> starts_;
};

void finish(Floats& y, const std::optional<Floats>& bias, const std::optional<Floats>& residual,
            int activation, float slope, float ceiling) {
  auto* data = static_cast<float*>(check_output(y, sizeof(float), 2, "y"));
  const std::size_t rows = extent(y, 0);
  const std::size_t outputs = extent(y, 1);
  const Finish what = to_finish(bias, residual, activation, slope, ceiling, rows, outputs);
  const py::gil_scoped_release release;
  finish_rows({nullptr, data, rows}, outputs, what);
}

// Blocks of `height` outputs x 1 input that hold a non-zero.
std::size_t count_blocks(const Floats& weights, std::size_t height) {
  const BlockedPlan plan = plan_blocked(extent(weights, 0), extent(weights, 1), height, 128);
  const WeightView view = to_weights(weights);
  const py::gil_scoped_release release;
  std::vector<BlockedSegment> segments(plan.num_chunks() * plan.num_blocks() + 1);
  return measure_blocked(plan, view, segments.data()).entries;
}

std::size_t count_widest(const Floats& weights) {
  const WeightView view = to_weights(weights);
  const py::gil_scoped_release release;
  return widest_word(view);
}

template <class Matrix>
py::class_<Matrix> bind_small(py::module_& module, const char* name) {
  return py::class_<Matrix>(module, name)
      .def("multiply", &Matrix::multiply, py::arg("x").noconvert(), py::arg("y").noconvert(),
           py::arg("bias").noconvert(), py::arg("residual").noconvert(), py::arg("activation"),
           py::arg("slope"), py::arg("ceiling"))
      .def("entries", &Matrix::entries)
      .def("num_bytes", &Matrix::num_bytes);
}

}  // namespace

void bind_spmm(py::module_& module) {
  py::class_<BlockedMatrix>(module, "BlockedMatrix")
      .def(py::init<const Floats&, std::size_t, std::size_t>(), py::arg("weights").noconvert(),
           py::arg("height"), py::arg("block"))
      .def("multiply", &BlockedMatrix::multiply, py::arg("x").noconvert(), py::arg("y").noconvert(),
           py::arg("rows"), py::arg("bias").noconvert(), py::arg("residual").noconvert(),
           py::arg("activation"), py::arg("slope"), py::arg("ceiling"),
           py::arg("scratch").noconvert())
      .def("scratch_floats", &BlockedMatrix::scratch_floats, py::arg("rows"))
      .def("entries", &BlockedMatrix::entries)
      .def("num_bytes", &BlockedMatrix::num_bytes);
  bind_small<BitmaskMatrix>(module, "BitmaskMatrix")
      .def(py::init<const Floats&, bool>(), py::arg("weights").noconvert(), py::arg("even"));
  bind_small<LookupMatrix>(module, "LookupMatrix")
      .def(py::init<const Floats&>(), py::arg("weights").noconvert());
  bind_small<ShortCsrMatrix>(module, "ShortCsrMatrix")
      .def(py::init<const Floats&>(), py::arg("weights").noconvert());
  module.def("panel_floats", &panel_floats, py::arg("rows"), py::arg("features"));
  module.def("count_blocks", &count_blocks, py::arg("weights").noconvert(), py::arg("height"));
  module.def("widest_word", &count_widest, py::arg("weights").noconvert());
  module.def("finish_rows", &finish, py::arg("y").noconvert(), py::arg("bias").noconvert(),
             py::arg("residual").noconvert(), py::arg("activation"), py::arg("slope"),
             py::arg("ceiling"));
}

}  // namespace secateur::bindings
