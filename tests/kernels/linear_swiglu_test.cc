// Defends the fused product of gate_up and SwiGLU against float64: rows, columns and depths that do
// and do not fill a tile, with bias and without, strides, and that nothing else is written.

#include "kernels/linear_swiglu.h"

#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

#ifdef TRIPTYCH_HAS_CUDA

struct Shape {
  int64_t rows, inputs, n;
  int64_t x_pad, out_pad;
  bool bias;
};

const Shape kShapes[] = {{1, 64, 8, 0, 0, false},      {128, 64, 128, 0, 0, true},
                         {300, 200, 136, 8, 16, true}, {257, 1280, 264, 0, 0, false},
                         {513, 320, 896, 0, 8, true},  {2049, 128, 128, 0, 0, true}};

std::vector<double> Reference(const Shape& shape, const std::vector<float>& x,
                              const std::vector<float>& weight, const std::vector<float>& bias) {
  std::vector<double> out;
  const int64_t stride = shape.inputs + shape.x_pad;
  const auto product = [&](int64_t row, int64_t output) {
    double sum = shape.bias ? bias[output] : 0;
    for (int64_t k = 0; k < shape.inputs; ++k) {
      sum += double{x[row * stride + k]} * weight[output * shape.inputs + k];
    }
    return sum;
  };
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t i = 0; i < shape.n; ++i) {
      const double gate = product(row, i);
      out.push_back(gate / (1 + std::exp(-gate)) * product(row, shape.n + i));
    }
  }
  return out;
}

void CheckShape(Bench& bench, const Shape& shape) {
  std::mt19937 generator(static_cast<unsigned>(shape.rows));
  const auto random = [&](int64_t count) {
    return RandomValues(&generator, count, DType::kBFloat16, 0.25f);
  };
  const std::vector<float> x = random(shape.rows * (shape.inputs + shape.x_pad));
  const std::vector<float> weight = random(2 * shape.n * shape.inputs), bias = random(2 * shape.n);
  const int64_t out_stride = shape.n + shape.out_pad;
  const StoredValues put_x = bench.Put(DType::kBFloat16, x);
  const StoredValues put_weight = bench.Put(DType::kBFloat16, weight);
  const StoredValues put_bias = bench.Put(DType::kBFloat16, bias);
  const StoredValues put_out =
      bench.Put(DType::kBFloat16, std::vector<float>(shape.rows * out_stride, 99));
  const int error = internal::SwiGluProductCuda({.x = put_x.get(),
                                                 .rows = shape.rows,
                                                 .inputs = shape.inputs,
                                                 .x_stride = shape.inputs + shape.x_pad,
                                                 .weight = put_weight.get(),
                                                 .n = shape.n,
                                                 .bias = shape.bias ? put_bias.get() : nullptr,
                                                 .out = put_out.get(),
                                                 .out_stride = out_stride},
                                                bench.stream());
  REQUIRE(error == 0);
  Synchronize(Device::kCuda);
  std::vector<float> rows;
  int touched = 0;
  const std::vector<float> out = put_out.Read();
  for (size_t i = 0; i < out.size(); ++i) {
    const bool inside = static_cast<int64_t>(i) % out_stride < shape.n;
    if (inside) rows.push_back(out[i]);
    touched += !inside && out[i] != 99;
  }
  CHECK(touched == 0);
  CHECK(CountOff(rows, Reference(shape, x, weight, bias), 1e-2) == 0);
}

#endif

TEST_CASE("SwiGluProduct: agrees with float64 on CUDA", "[kernels][linear][gpu]") {
  if (!IsAtHand(Device::kCuda)) return testing::SkipTest("no GPU");
#ifdef TRIPTYCH_HAS_CUDA
  Bench bench(Device::kCuda);
  for (const Shape& shape : kShapes) {
    INFO(shape.rows << " x " << shape.inputs << " x " << shape.n);
    CheckShape(bench, shape);
  }
#endif
}

}  // namespace
}  // namespace triptych::kernels
