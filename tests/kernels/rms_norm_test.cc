// Defends RMS norm against a float64 reference on both devices: float32 within 2e-6 of each
// element, bfloat16 within one rounding (2^-8) more; and that a row stands for itself.

#include "kernels/rms_norm.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "kernels/thread_pool.h"
#include "tests/kernels/device_buffer.h"
#include "tests/support/skip.h"

namespace triptych::kernels {
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

struct Shape {
  int64_t rows;
  int64_t hidden;
  int64_t stride;
};

double Tolerance(DType dtype) { return dtype == DType::kFloat32 ? 2e-6 : 2e-6 + 1.0 / 256; }

// The sum that is normalised, rounded as stored.
std::vector<float> Summed(const std::vector<float>& x, const std::vector<float>& residual,
                          DType dtype) {
  std::vector<float> sum(x.size());
  for (size_t i = 0; i < x.size(); ++i) sum[i] = Rounded(double{x[i]} + residual[i], dtype);
  return sum;
}

// Counts the elements further from the float64 result than the tolerance. NaN counts.
int CountWrong(const std::vector<float>& x, const std::vector<float>& weight, const Shape& shape,
               DType dtype, const std::vector<float>& out) {
  int wrong = 0;
  for (int64_t r = 0; r < shape.rows; ++r) {
    double squares = 0;
    for (int64_t i = 0; i < shape.hidden; ++i) squares += std::pow(x[r * shape.stride + i], 2.0);
    const double factor = 1 / std::sqrt(squares / shape.hidden + double{1e-6f});
    for (int64_t i = 0; i < shape.hidden; ++i) {
      const double want = x[r * shape.stride + i] * factor * weight[i];
      const double error = std::abs(out[r * shape.stride + i] - want);
      if (!(error <= Tolerance(dtype) * std::abs(want))) ++wrong;
    }
  }
  return wrong;
}

void CheckShape(Device device, DType dtype, const Shape& shape, bool with_residual) {
  INFO("hidden " << shape.hidden << " stride " << shape.stride << " residual " << with_residual);
  std::mt19937 generator(static_cast<unsigned>(shape.hidden));
  const int64_t count = shape.rows * shape.stride;
  const std::vector<float> x = RandomValues(&generator, count, dtype);
  const std::vector<float> residual = RandomValues(&generator, count, dtype);
  const std::vector<float> weight = RandomValues(&generator, shape.hidden, dtype);
  const StoredValues x_stored(device, dtype, x), weight_stored(device, dtype, weight);
  const StoredValues residual_stored(device, dtype, residual);
  const StoredValues out(device, dtype, std::vector<float>(count, kPoison));
  const absl::Status status = RmsNorm({.x = x_stored.get(),
                                       .weight = weight_stored.get(),
                                       .out = out.get(),
                                       .residual = with_residual ? residual_stored.get() : nullptr,
                                       .rows = shape.rows,
                                       .hidden = shape.hidden,
                                       .x_stride = shape.stride,
                                       .out_stride = shape.stride,
                                       .residual_stride = shape.stride,
                                       .dtype = dtype},
                                      {.device = device});
  REQUIRE(status.ok());
  Synchronize(device);
  const std::vector<float> normalised = with_residual ? Summed(x, residual, dtype) : x;
  CHECK(CountWrong(normalised, weight, shape, dtype, out.Read()) == 0);
  if (!with_residual) return;
  const std::vector<float> stored = residual_stored.Read();
  int wrong = 0;
  for (int64_t i = 0; i < count; ++i) {
    wrong += stored[i] != (i % shape.stride < shape.hidden ? normalised[i] : residual[i]);
  }
  CHECK(wrong == 0);
}

// Widths that fit in registers and that do not, aligned and not, wide rows and strided ones.
void CheckShapes(Device device) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    INFO("dtype " << static_cast<int>(dtype));
    for (bool with_residual : {false, true}) {
      CheckShape(device, dtype, {7, 3584, 3584}, with_residual);
      CheckShape(device, dtype, {3, 2048, 2304}, with_residual);
      CheckShape(device, dtype, {2, 20480, 20480}, with_residual);
      CheckShape(device, dtype, {5, 77, 78}, with_residual);
      CheckShape(device, dtype, {2, 2501, 2501}, with_residual);
      CheckShape(device, dtype, {3, 1, 1}, with_residual);
    }
  }
}

// The bits of one row, alone and as the last of `rows`.
void CheckRowStandsForItself(Device device) {
  constexpr int64_t kHidden = 1280, kRows = 37;
  std::mt19937 generator(11);
  const std::vector<float> x = RandomValues(&generator, kRows * kHidden, DType::kFloat32);
  const std::vector<float> weight = RandomValues(&generator, kHidden, DType::kFloat32);
  const DeviceBuffer all(device, x), weights(device, weight);
  const DeviceBuffer out_all(device, x), out_one(device, weight);
  ThreadPool pool(3);
  RmsNormArgs args = {.x = all.get(),
                      .weight = weights.get(),
                      .out = out_all.get(),
                      .rows = kRows,
                      .hidden = kHidden};
  REQUIRE(RmsNorm(args, {.device = device, .pool = &pool}).ok());
  args.x = all.as<float>() + (kRows - 1) * kHidden;
  args.out = out_one.get();
  args.rows = 1;
  REQUIRE(RmsNorm(args, {.device = device}).ok());
  Synchronize(device);
  const std::vector<float> rows = out_all.Read<float>(), one = out_one.Read<float>();
  CHECK(std::vector<float>(rows.end() - kHidden, rows.end()) == one);
}

TEST_CASE("RmsNorm: agrees with float64 on the CPU", "[kernels]") { CheckShapes(Device::kCpu); }

TEST_CASE("RmsNorm: agrees with float64 on CUDA", "[kernels][gpu]") {
  if (!IsAtHand(Device::kCuda)) return testing::SkipTest("no GPU");
  CheckShapes(Device::kCuda);
}

TEST_CASE("RmsNorm: a row's bits do not depend on the others on the CPU", "[kernels]") {
  CheckRowStandsForItself(Device::kCpu);
}

TEST_CASE("RmsNorm: a row's bits do not depend on the others on CUDA", "[kernels][gpu]") {
  if (!IsAtHand(Device::kCuda)) return testing::SkipTest("no GPU");
  CheckRowStandsForItself(Device::kCuda);
}

TEST_CASE("RmsNorm: refuses what it cannot run", "[kernels]") {
  std::vector<float> row(8, 1.0f);
  const RmsNormArgs good = {
      .x = row.data(), .weight = row.data(), .out = row.data(), .rows = 1, .hidden = 8};
  RmsNormArgs args = good;
  args.weight = nullptr;
  CHECK(RmsNorm(args, {}).code() == absl::StatusCode::kInvalidArgument);
  args = good;
  args.hidden = 0;
  CHECK(RmsNorm(args, {}).code() == absl::StatusCode::kInvalidArgument);
  args = good;
  args.x_stride = 7;
  CHECK(RmsNorm(args, {}).code() == absl::StatusCode::kInvalidArgument);
  args = good;
  args.rows = 0;
  CHECK(RmsNorm(args, {}).ok());
#ifndef TRIPTYCH_HAS_CUDA
  CHECK(RmsNorm(good, {.device = Device::kCuda}).code() == absl::StatusCode::kUnimplemented);
#endif
}

}  // namespace
}  // namespace triptych::kernels
