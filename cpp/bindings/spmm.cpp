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

// What all packed matrices have in common for Python: they own their memory.
class BlockedMatrix {
 public:
  BlockedMatrix(const Floats& weights, std::size_t height, std::size_t block)
      : plan_(plan_blocked(extent(weights, 0), extent(weights, 1), height, block)) {
    const WeightView view = to_weights(weights);
    const py::gil_scoped_release release;
    const BlockedSizes sizes = measure_blocked(plan_, view);
    values_.resize(sizes.entries * height);
    indices_.resize(sizes.entries);
    order_.resize(sizes.rows);
    groups_.resize(sizes.groups);
    segments_.resize(plan_.num_chunks() * plan_.num_blocks() + 1);
    pack_blocked(
        plan_, view,
        {values_.data(), indices_.data(), order_.data(), groups_.data(), segments_.data()});
  }

  void multiply(const Floats& x, Floats& y, const std::optional<Floats>& bias,
                const std::optional<Floats>& residual, int activation, float slope, float ceiling,
                py::array_t<float>& scratch) const {
    const Samples samples = to_samples(x, y, plan_.inputs, plan_.outputs);
    const Finish finish =
        to_finish(bias, residual, activation, slope, ceiling, samples.rows, plan_.outputs);
    auto* room = static_cast<float*>(check_output(scratch, sizeof(float), 1, "scratch"));
    const std::size_t needed = scratch_floats(samples.rows);
    if (extent(scratch, 0) < needed) {
      throw std::invalid_argument("scratch must have " + std::to_string(needed) + " elements");
    }
    const Blocked weights{plan_,         values_.data(), indices_.data(),
                          order_.data(), groups_.data(), segments_.data()};
    const py::gil_scoped_release release;
    multiply_blocked(weights, samples, finish, room);
  }

  std::size_t scratch_floats(std::size_t rows) const {
    return blocked_scratch(plan_, rows) / sizeof(float);
  }

  std::size_t entries() const { return indices_.size(); }

  std::size_t num_bytes() const {
    return values_.size() * sizeof(float) + indices_.size() + order_.size() * sizeof(order_[0]) +
           groups_.size() * sizeof(groups_[0]) + segments_.size() * sizeof(segments_[0]);
  }

 private:
  BlockedPlan plan_;
  std::vector<float> values_;
  std::vector<std::uint8_t> indices_;
  std::vector<std::uint16_t> order_;
  std::vector<BlockedGroup> groups_;
  std::vector<BlockedSegment> segments_;
};

class BitmaskMatrix {
 public:
  explicit BitmaskMatrix(const Floats& weights) {
    const WeightView view = to_weights(weights);
    const py::gil_scoped_release release;
    outputs_ = view.outputs;
    inputs_ = view.inputs;
    entries_ = count_nonzeros(view);
    values_.resize(entries_ + kSpare);
    masks_.resize(outputs_ * ((inputs_ + 15) / 16));
    starts_.resize(outputs_ + 1);
    pack_bitmask(view, values_.data(), masks_.data(), starts_.data());
  }

  void multiply(const Floats& x, Floats& y, const std::optional<Floats>& bias,
                const std::optional<Floats>& residual, int activation, float slope,
                float ceiling) const {
    const Samples samples = to_samples(x, y, inputs_, outputs_);
    const Finish finish =
        to_finish(bias, residual, activation, slope, ceiling, samples.rows, outputs_);
    const py::gil_scoped_release release;
    multiply_bitmask({outputs_, inputs_, values_.data(), masks_.data(), starts_.data()}, samples,
                     finish);
  }

  std::size_t entries() const { return entries_; }

  std::size_t num_bytes() const {
    return values_.size() * sizeof(float) + masks_.size() * sizeof(masks_[0]) +
           starts_.size() * sizeof(starts_[0]);
  }

 private:
  static constexpr std::size_t kSpare = 16;

  std::size_t outputs_ = 0;
  std::size_t inputs_ = 0;
  std::size_t entries_ = 0;
  std::vector<float> values_;
  std::vector<std::uint16_t> masks_;
  std::vector<std::uint64_t> starts_;
};

class ShortCsrMatrix {
 public:
  explicit ShortCsrMatrix(const Floats& weights) {
    const WeightView view = to_weights(weights);
    if (view.inputs > 65536) throw std::invalid_argument("columns of 16 bits reach 65536 inputs");
    const py::gil_scoped_release release;
    outputs_ = view.outputs;
    inputs_ = view.inputs;
    const std::size_t entries = count_nonzeros(view);
    values_.resize(entries);
    columns_.resize(entries);
    starts_.resize(outputs_ + 1);
    pack_short_csr(view, values_.data(), columns_.data(), starts_.data());
  }

  void multiply(const Floats& x, Floats& y, const std::optional<Floats>& bias,
                const std::optional<Floats>& residual, int activation, float slope,
                float ceiling) const {
    const Samples samples = to_samples(x, y, inputs_, outputs_);
    const Finish finish =
        to_finish(bias, residual, activation, slope, ceiling, samples.rows, outputs_);
    const py::gil_scoped_release release;
    multiply_short_csr({outputs_, inputs_, values_.data(), columns_.data(), starts_.data()},
                       samples, finish);
  }

  std::size_t entries() const { return values_.size(); }

  std::size_t num_bytes() const {
    return values_.size() * sizeof(float) + columns_.size() * sizeof(columns_[0]) +
           starts_.size() * sizeof(starts_[0]);
  }

 private:
  std::size_t outputs_ = 0;
  std::size_t inputs_ = 0;
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

template <class Matrix>
void bind_small(py::module_& module, const char* name) {
  py::class_<Matrix>(module, name)
      .def(py::init<const Floats&>(), py::arg("weights").noconvert())
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
           py::arg("bias").noconvert(), py::arg("residual").noconvert(), py::arg("activation"),
           py::arg("slope"), py::arg("ceiling"), py::arg("scratch").noconvert())
      .def("scratch_floats", &BlockedMatrix::scratch_floats, py::arg("rows"))
      .def("entries", &BlockedMatrix::entries)
      .def("num_bytes", &BlockedMatrix::num_bytes);
  bind_small<BitmaskMatrix>(module, "BitmaskMatrix");
  bind_small<ShortCsrMatrix>(module, "ShortCsrMatrix");
  module.def("finish_rows", &finish, py::arg("y").noconvert(), py::arg("bias").noconvert(),
             py::arg("residual").noconvert(), py::arg("activation"), py::arg("slope"),
             py::arg("ceiling"));
}

}  // namespace secateur::bindings
