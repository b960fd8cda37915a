#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "levels.hpp"
#include "secateur/sparse.hpp"

using namespace secateur;

namespace {

std::vector<float> make_matrix(MatrixShape shape, double density, unsigned seed = 7) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<float> dense(shape.rows * shape.cols);
  for (float& item : dense) {
    if (std::abs(uniform(random)) < density) item = static_cast<float>(uniform(random));
  }
  if (dense.size() > 2) dense[1] = std::numeric_limits<float>::quiet_NaN();
  return dense;
}

template <class Index>
struct Result {
  std::vector<float> values;
  std::vector<Index> indices;
  std::vector<Index> indptr;

  Result(std::size_t capacity, std::size_t rows)
      : values(capacity), indices(capacity), indptr(rows + 1, 7) {}

  Csr<Index> view(MatrixShape shape) const {
    return {values.data(), indices.data(), indptr.data(), values.size(), sizeof(float), shape};
  }

  CsrOut<Index> out() { return {values.data(), indices.data(), indptr.data(), values.size()}; }
};

template <class Index>
Result<Index> convert(const std::vector<float>& matrix, MatrixShape shape) {
  std::vector<std::uint64_t> offsets(packing_chunks(matrix.size()) + 1);
  const Items items{matrix.data(), matrix.size(), sizeof(float)};
  const std::uint64_t total = nonzero_offsets(items, Zero::by_value, offsets.data());
  const Dense dense{matrix.data(), sizeof(float), shape};
  Result<Index> csr(total, shape.rows);
  dense_to_csr(dense, offsets.data(), csr.out());

  // In one pass, with just enough room and with too little.
  std::vector<std::uint64_t> again(offsets.size());
  Result<Index> once(total, shape.rows);
  CHECK(dense_to_csr_once(dense, again.data(), once.out()) == total);
  CHECK(total == 0 ||
        std::memcmp(once.values.data(), csr.values.data(), total * sizeof(float)) == 0);
  CHECK(once.indices == csr.indices && once.indptr == csr.indptr && again == offsets);
  Result<Index> little(total / 2, shape.rows);
  CHECK(dense_to_csr_once(dense, again.data(), little.out()) == total);
  CHECK(again == offsets);
  return csr;
}

template <class Index>
void round_trips(MatrixShape shape, double density) {
  const std::vector<float> dense = make_matrix(shape, density);
  std::vector<float> signed_zeros = dense;
  for (float& item : signed_zeros) {
    if (item == 0) item = -0.0F;
  }
  const Result<Index> csr = convert<Index>(signed_zeros, shape);
  for (const float value : csr.values) CHECK(value != 0);
  const std::size_t bytes = dense.size() * sizeof(float);
  std::vector<float> out(dense.size(), 7);
  CHECK(csr_to_dense(csr.view(shape), out.data(), Fresh::no) == CsrFault::none);
  CHECK(bytes == 0 || std::memcmp(out.data(), dense.data(), bytes) == 0);
  out.assign(dense.size(), 0);
  CHECK(csr_to_dense(csr.view(shape), out.data(), Fresh::zeros) == CsrFault::none);
  CHECK(bytes == 0 || std::memcmp(out.data(), dense.data(), bytes) == 0);
}

void matrices_of_every_form_come_back() {
  for (const std::size_t cols : {0U, 1U, 7U, 16U, 17U, 65U, 8191U, 70000U}) {
    for (const std::size_t rows : {0U, 1U, 2U, 66000U}) {
      if (rows * cols > 150000) continue;
      for (const double density : {0.0, 0.1, 1.0}) {
        round_trips<std::int32_t>({rows, cols}, density);
        round_trips<std::int64_t>({rows, cols}, density);
      }
    }
  }
}

void streamed_matrices_come_back() { round_trips<std::int32_t>({1031, 8209}, 0.05); }

template <class Index>
CsrFault fault_of(const std::vector<Index>& indices, const std::vector<Index>& indptr,
                  std::size_t cols) {
  const MatrixShape shape{indptr.size() - 1, cols};
  Result<Index> csr(indices.size(), shape.rows);
  csr.indices = indices;
  csr.indptr = indptr;
  std::vector<float> out(shape.rows * shape.cols);
  const CsrFault fault = csr_to_dense(csr.view(shape), out.data(), Fresh::no);
  CHECK(csr_to_dense(csr.view(shape), out.data(), Fresh::zeros) == fault);
  return fault;
}

template <class Index>
void bad_indices_are_found() {
  constexpr Index kMin = std::numeric_limits<Index>::min();
  constexpr Index kMax = std::numeric_limits<Index>::max();
  CHECK(fault_of<Index>({0, 2}, {0, 1, 2}, 3) == CsrFault::none);
  CHECK(fault_of<Index>({0, 2, 9}, {0, 1, 2}, 3) == CsrFault::none);  // spare room at the end
  for (const std::vector<Index>& indptr : {std::vector<Index>{1, 1, 2},
                                           {0, 2, 1},
                                           {0, 1, 3},
                                           {0, kMax, 2},
                                           {0, -1, 2},
                                           {kMin, 0, 1}}) {
    CHECK(fault_of<Index>({0, 2}, indptr, 3) == CsrFault::indptr);
  }
  for (const Index bad : {Index{-1}, Index{3}, kMin, kMax, Index{0}}) {
    CHECK(fault_of<Index>({0, bad}, {0, 2}, 3) == CsrFault::indices);
  }
  CHECK(fault_of<Index>({2, 1}, {0, 2}, 3) == CsrFault::indices);
  CHECK(fault_of<Index>({0}, {0, 1}, 0) == CsrFault::indices);
  for (const Index bad : {Index{-1}, Index{0}, Index{30000}, Index{60000}, kMax, kMin}) {
    CHECK(fault_of<Index>({5, 20000, bad, 50000}, {0, 4}, 60000) ==
          (bad == 30000 ? CsrFault::none : CsrFault::indices));
  }
}

}  // namespace

int main() {
  at_every_level([] {
    matrices_of_every_form_come_back();
    bad_indices_are_found<std::int32_t>();
    bad_indices_are_found<std::int64_t>();
  });
  streamed_matrices_come_back();
  return 0;
}
