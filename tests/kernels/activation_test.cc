// Defends SwiGLU and GELU against float64 on every device: widths that are and are not whole
// vectors, strided results, no rows.

#include "kernels/activation.h"

#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

struct Shape {
  int64_t rows, n, out_stride;
};

constexpr Shape kShapes[] = {{0, 8, 8}, {1, 1, 1}, {3, 448, 448}, {5, 77, 80}, {2, 9000, 9000}};

void CheckSwiGlu(Bench& bench, DType dtype, const Shape& shape) {
  INFO(DTypeName(dtype) << ", " << shape.rows << " rows of " << shape.n);
  std::mt19937 generator(static_cast<unsigned>(shape.n));
  const std::vector<float> x = RandomValues(&generator, shape.rows * 2 * shape.n, dtype, 6);
  const StoredValues stored = bench.Put(dtype, x);
  const StoredValues out =
      bench.Put(dtype, std::vector<float>(shape.rows * shape.out_stride, kPoison));
  bench.Require(SwiGlu({.gate_up = stored.get(),
                        .out = out.get(),
                        .rows = shape.rows,
                        .n = shape.n,
                        .out_stride = shape.out_stride,
                        .dtype = dtype},
                       bench.stream()));
  const std::vector<float> got = out.Read();
  int wrong = 0;
  for (int64_t i = 0; i < shape.rows * shape.out_stride; ++i) {
    const int64_t row = i / shape.out_stride, column = i % shape.out_stride;
    if (column >= shape.n) {
      wrong += !std::isnan(got[i]);  // Between the rows nothing is written.
      continue;
    }
    const double gate = x[row * 2 * shape.n + column], up = x[(row * 2 + 1) * shape.n + column];
    const double want = gate / (1 + std::exp(-gate)) * up;
    wrong += !(std::abs(got[i] - want) <= (1e-6 + Rounding(dtype)) * std::abs(want) + 1e-12);
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("SwiGlu: agrees with float64", "[kernels]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Shape& shape : kShapes) CheckSwiGlu(bench, dtype, shape);
  }
}

TEMPLATE_TEST_CASE("Gelu: agrees with float64", "[kernels]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (int64_t count : {0, 1, 16, 300, 20000}) {
      INFO(DTypeName(dtype) << ", " << count << " values");
      std::mt19937 generator(static_cast<unsigned>(count));
      const std::vector<float> x = RandomValues(&generator, count, dtype, 6);
      const StoredValues stored = bench.Put(dtype, x);
      bench.Require(Gelu({.x = stored.get(), .count = count, .dtype = dtype}, bench.stream()));
      const std::vector<float> got = stored.Read();
      int wrong = 0;
      for (int64_t i = 0; i < count; ++i) {
        const double want = x[i] * 0.5 * (1 + std::erf(x[i] / std::sqrt(2.0)));
        const double most = 3e-7 * std::abs(x[i]) + Rounding(dtype) * std::abs(want);
        wrong += !(std::abs(got[i] - want) <= most);
      }
      CHECK(wrong == 0);
    }
  }
}

TEMPLATE_TEST_CASE("SwiGlu, Gelu: a NaN stays one", "[kernels]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  const StoredValues x = bench.Put(DType::kFloat32, {kPoison, 1, 1, kPoison});
  const StoredValues out = bench.Put(DType::kFloat32, {0, 0});
  bench.Require(SwiGlu({.gate_up = x.get(), .out = out.get(), .rows = 1, .n = 2}, bench.stream()));
  CHECK(std::isnan(out.Read()[0]));
  CHECK(std::isnan(out.Read()[1]));
  bench.Require(Gelu({.x = x.get(), .count = 4}, bench.stream()));
  CHECK(std::isnan(x.Read()[0]));
}

TEST_CASE("SwiGlu, Gelu: refuse what they cannot run", "[kernels]") {
  float x[4] = {};
  const SwiGluArgs good{.gate_up = x, .out = x, .rows = 1, .n = 2};
  for (int fault = 0; fault < 4; ++fault) {
    SwiGluArgs args = good;
    if (fault == 0) args.out = nullptr;
    if (fault == 1) args.n = 0;
    if (fault == 2) args.out_stride = 1;
    if (fault == 3) args.dtype = DType::kE4M3;
    CHECK(SwiGlu(args, {}).code() == absl::StatusCode::kInvalidArgument);
  }
  CHECK(Gelu({.count = 1}, {}).code() == absl::StatusCode::kInvalidArgument);
  CHECK(Gelu({.x = x, .count = -1}, {}).code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace triptych::kernels
