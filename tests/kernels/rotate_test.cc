// Defends the rotation of pairs against float64 on every device: heads side by side in a wider row,
// head sizes that are and are not whole vectors.

#include "kernels/rotate.h"

#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

struct Shape {
  int64_t tokens, stride;
  int heads, head_dim;
};

constexpr Shape kShapes[] = {
    {0, 64, 1, 64}, {1, 2, 1, 2}, {70, 240, 2, 80}, {5, 132, 3, 44}, {33, 3840, 32, 80}};

void CheckShape(Bench& bench, DType dtype, const Shape& shape) {
  INFO(DTypeName(dtype) << ", " << shape.tokens << " tokens, head_dim " << shape.head_dim);
  std::mt19937 generator(static_cast<unsigned>(shape.head_dim));
  const int half = shape.head_dim / 2;
  const std::vector<float> x = RandomValues(&generator, shape.tokens * shape.stride, dtype);
  std::vector<float> cosines(shape.tokens * half), sines(shape.tokens * half);
  for (size_t i = 0; i < cosines.size(); ++i) {
    cosines[i] = std::cos(0.37f * static_cast<float>(i));
    sines[i] = std::sin(0.37f * static_cast<float>(i));
  }
  const StoredValues stored = bench.Put(dtype, x);
  const DeviceBuffer c = bench.Put(cosines), s = bench.Put(sines);
  bench.Require(Rotate({.x = stored.get(),
                        .x_stride = shape.stride,
                        .tokens = shape.tokens,
                        .heads = shape.heads,
                        .head_dim = shape.head_dim,
                        .cosines = c.as<float>(),
                        .sines = s.as<float>(),
                        .dtype = dtype},
                       bench.stream()));
  const std::vector<float> got = stored.Read();
  int wrong = 0;
  for (int64_t i = 0; i < shape.tokens * shape.stride; ++i) {
    const int64_t token = i / shape.stride, column = i % shape.stride;
    if (column >= int64_t{shape.heads} * shape.head_dim) {
      wrong += got[i] != x[i];
      continue;
    }
    const int64_t d = column % shape.head_dim, angle = token * half + d % half;
    const double other = d < half ? -x[i + half] : x[i - half];
    const double want = double{x[i]} * cosines[angle] + other * sines[angle];
    wrong += !(std::abs(got[i] - want) <= 1e-6 + 4 * Rounding(dtype));
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("Rotate: agrees with float64", "[kernels]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Shape& shape : kShapes) CheckShape(bench, dtype, shape);
  }
}

TEST_CASE("Rotate: refuses what it cannot run", "[kernels]") {
  float x[8] = {};
  const RotateArgs good{.x = x, .tokens = 1, .heads = 2, .head_dim = 4, .cosines = x, .sines = x};
  CHECK(Rotate(good, {}).ok());
  for (int fault = 0; fault < 4; ++fault) {
    RotateArgs args = good;
    if (fault == 0) args.sines = nullptr;
    if (fault == 1) args.head_dim = 3;
    if (fault == 2) args.x_stride = 7;
    if (fault == 3) args.tokens = -1;
    CHECK(Rotate(args, {}).code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace triptych::kernels
