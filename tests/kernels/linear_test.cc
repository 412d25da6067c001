// Defends the matrix product and what is folded into it against float64 on every device: one row
// and many, widths that are no multiple of a panel, strides, norm, bias, residual, activations;
// and on the CPU that the folded steps have the bits of the separate ops.

#include "kernels/linear.h"

#include "kernels/activation.h"
#include "kernels/rms_norm.h"
#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

constexpr LinearActivation kNone = LinearActivation::kNone, kSwiGlu = LinearActivation::kSwiGlu,
                           kGelu = LinearActivation::kGelu;
enum Extra : int { kPlain = 0, kBias = 1, kResidual = 2, kNorm = 4 };

struct Shape {
  int64_t rows, inputs, outputs, x_pad, y_pad;
  int extra;
  LinearActivation activation;
};

constexpr Shape kShapes[] = {
    {0, 32, 16, 0, 0, kPlain, kNone},
    {1, 320, 448, 0, 0, kBias | kNorm, kNone},
    {1, 320, 320, 0, 0, kResidual, kNone},
    {1, 320, 1792, 0, 0, kNorm, kSwiGlu},
    {2, 96, 1088, 0, 0, kNorm, kNone},
    {3, 80, 40, 16, 8, kBias | kResidual, kNone},
    {7, 64, 17, 0, 3, kBias, kNone},
    {13, 48, 33, 5, 0, kPlain, kGelu},
    {49, 64, 272, 0, 16, kBias, kSwiGlu},
    {130, 176, 384, 16, 16, kBias | kResidual | kNorm, kNone},
    {64, 128, 256, 0, 0, kBias, kGelu},
};

// Everything that a product of one shape reads, in values that its types hold.
struct Problem {
  Problem(const Shape& given, DType type, DType weight_type) : shape(given), dtype(type) {
    std::mt19937 generator(static_cast<unsigned>(shape.rows * 31 + shape.outputs));
    width = shape.activation == kSwiGlu ? shape.outputs / 2 : shape.outputs;
    x_stride = shape.inputs + shape.x_pad;
    y_stride = width + shape.y_pad;
    x = RandomValues(&generator, shape.rows * x_stride, dtype);
    norm = RandomValues(&generator, shape.inputs, dtype, 1);
    matrix = RandomValues(&generator, shape.outputs * shape.inputs, weight_type, 0.2f);
    bias = RandomValues(&generator, shape.outputs, DType::kBFloat16);
    residual = RandomValues(&generator, shape.rows * y_stride, dtype);
  }

  double X(int64_t row, int64_t k) const { return x[row * x_stride + k]; }

  // y [rows, width], contiguous.
  std::vector<double> Reference() const {
    std::vector<double> y;
    for (int64_t row = 0; row < shape.rows; ++row) {
      double squares = 0;
      for (int64_t k = 0; k < shape.inputs; ++k) squares += X(row, k) * X(row, k);
      const double factor = 1 / std::sqrt(squares / static_cast<double>(shape.inputs) + 1e-6);
      std::vector<double> sums(shape.outputs);
      for (int64_t n = 0; n < shape.outputs; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < shape.inputs; ++k) {
          const double scale = (shape.extra & kNorm) != 0 ? factor * norm[k] : 1;
          sum += X(row, k) * scale * matrix[n * shape.inputs + k];
        }
        if ((shape.extra & kBias) != 0) sum += bias[n];
        if ((shape.extra & kResidual) != 0) sum += residual[row * y_stride + n];
        if (shape.activation == kGelu) sum = sum / 2 * (1 + std::erf(sum / std::sqrt(2.0)));
        sums[n] = sum;
      }
      for (int64_t n = 0; n < width; ++n) {
        y.push_back(shape.activation == kSwiGlu
                        ? sums[n] / (1 + std::exp(-sums[n])) * sums[width + n]
                        : sums[n]);
      }
    }
    return y;
  }

  Shape shape;
  DType dtype;
  int64_t width, x_stride, y_stride;
  std::vector<float> x, norm, matrix, bias, residual;
};

// Weights as the device wants them.
struct Placed {
  Placed(const Bench& bench, const Problem& problem, DType type)
      : matrix(bench.device(), Laid(bench, problem, type)),
        bias(bench.device(), bench.cpu() ? DType::kFloat32 : DType::kBFloat16, problem.bias) {
    const Shape& shape = problem.shape;
    weights = {.inputs = shape.inputs,
               .outputs = shape.outputs,
               .type = type,
               .layout = bench.cpu() ? LinearLayout::kPanels16 : LinearLayout::kRowMajor,
               .matrix = {.data = matrix.get(), .bytes = matrix.bytes()},
               .bias = (shape.extra & kBias) != 0 ? bias.get() : nullptr};
    if (!bench.cpu()) weights.matrix.space = base::MemorySpace::kCuda;
  }

  static std::vector<uint8_t> Laid(const Bench& bench, const Problem& problem, DType type) {
    const Shape& shape = problem.shape;
    const DeviceBuffer rows(Device::kCpu, Encoded(type, problem.matrix));
    if (!bench.cpu()) return rows.Read<uint8_t>();
    std::vector<uint8_t> panels(PanelBytes(shape.outputs, shape.inputs, type));
    // Two parts below each other, as fused projections are.
    const int64_t first = shape.outputs / 3;
    const uint8_t* second = rows.as<uint8_t>() + first * shape.inputs * SizeOf(type);
    PackPanels({{rows.get(), first}, {second, shape.outputs - first}}, shape.inputs, type,
               absl::MakeSpan(panels), nullptr);
    return panels;
  }

  DeviceBuffer matrix;
  StoredValues bias;
  LinearWeights weights;
};

// Rows [rows, width] out of y with its stride; what lies between them must be untouched.
std::vector<float> Unstrided(const Problem& problem, const std::vector<float>& y) {
  std::vector<float> rows;
  int touched = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const bool inside = static_cast<int64_t>(i) % problem.y_stride < problem.width;
    if (inside) rows.push_back(y[i]);
    touched += !inside && y[i] != problem.residual[i];
  }
  CHECK(touched == 0);
  return rows;
}

std::vector<float> Run(Bench& bench, const Problem& problem, DType weight_type) {
  const Shape& shape = problem.shape;
  const Placed placed(bench, problem, weight_type);
  const StoredValues x = bench.Put(problem.dtype, problem.x);
  const StoredValues norm = bench.Put(problem.dtype, problem.norm);
  // y begins as the residual, which may be y itself.
  const StoredValues y = bench.Put(problem.dtype, problem.residual);
  bench.Require(Linear(placed.weights,
                       {.x = x.get(),
                        .rows = shape.rows,
                        .x_stride = problem.x_stride,
                        .y = y.get(),
                        .y_stride = problem.y_stride,
                        .residual = (shape.extra & kResidual) != 0 ? y.get() : nullptr,
                        .norm = (shape.extra & kNorm) != 0 ? norm.get() : nullptr,
                        .activation = shape.activation,
                        .dtype = problem.dtype,
                        .y_dtype = problem.dtype},
                       bench.stream()));
  return Unstrided(problem, y.Read());
}

TEMPLATE_TEST_CASE("Linear: agrees with float64", "[kernels][linear]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  // A GPU serves bfloat16 alone.
  const bool cpu = bench.cpu();
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (DType weight_type : {DType::kFloat32, DType::kBFloat16}) {
      if (!cpu && (dtype != DType::kBFloat16 || weight_type != DType::kBFloat16)) continue;
      for (const Shape& shape : kShapes) {
        INFO(DTypeName(dtype) << " x " << DTypeName(weight_type) << ", " << shape.rows << " x "
                              << shape.inputs << " x " << shape.outputs);
        const Problem problem(shape, dtype, weight_type);
        const double tolerance = dtype == DType::kFloat32 ? 1e-5 : 8e-3;
        CHECK(CountOff(Run(bench, problem, weight_type), problem.Reference(), tolerance) == 0);
      }
    }
  }
}

TEST_CASE("Linear: folded steps have the bits of the ops apart, whatever the rows and threads",
          "[kernels][linear]") {
  Bench bench(Device::kCpu);
  const Shape shape{9, 320, 1792, 0, 0, kNorm | kBias, kSwiGlu};
  const Problem problem(shape, DType::kFloat32, DType::kBFloat16);
  const Placed placed(bench, problem, DType::kBFloat16);
  const std::vector<float> together = Run(bench, problem, DType::kBFloat16);
  std::vector<float> normed(shape.rows * 320), gate_up(shape.rows * 1792), y(shape.rows * 896);
  for (int64_t row = 0; row < shape.rows; ++row) {  // Row by row, on one thread.
    REQUIRE(RmsNorm({.x = &problem.x[row * 320],
                     .weight = problem.norm.data(),
                     .out = &normed[row * 320],
                     .rows = 1,
                     .hidden = 320},
                    {})
                .ok());
    REQUIRE(
        Linear(placed.weights, {.x = &normed[row * 320], .rows = 1, .y = &gate_up[row * 1792]}, {})
            .ok());
    REQUIRE(SwiGlu({.gate_up = &gate_up[row * 1792], .out = &y[row * 896], .rows = 1, .n = 896}, {})
                .ok());
  }
  CHECK(y == together);
}

TEST_CASE("Linear: takes no more of the workspace than it says, and gives it back", "[kernels]") {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Shape& shape : kShapes) {
      Bench bench(Device::kCpu);
      Run(bench, Problem(shape, dtype, DType::kBFloat16), DType::kBFloat16);
      const LinearArgs args{.rows = shape.rows,
                            .norm = (shape.extra & kNorm) != 0 ? &shape : nullptr,
                            .activation = shape.activation,
                            .dtype = dtype,
                            .y_dtype = dtype};
      const LinearWeights sizes{.inputs = shape.inputs, .outputs = shape.outputs};
      CHECK(bench.stream().workspace->high_water() == LinearWorkspaceBytes(sizes, args));
      CHECK(bench.stream().workspace->Mark() == 0);
    }
  }
}

TEST_CASE("Linear: refuses what it cannot run", "[kernels][linear]") {
  const Bench bench(Device::kCpu);
  const Problem problem({1, 32, 16, 0, 0, kPlain, kNone}, DType::kFloat32, DType::kBFloat16);
  const Placed placed(bench, problem, DType::kBFloat16);
  std::vector<float> y(16);
  const LinearArgs good{.x = problem.x.data(), .rows = 1, .y = y.data()};
  REQUIRE(Linear(placed.weights, good, {}).ok());
  for (int fault = 0; fault < 9; ++fault) {
    INFO(fault);
    LinearArgs args = good;
    LinearWeights weights = placed.weights;
    if (fault == 0) args.x = nullptr;
    if (fault == 1) args.x_stride = 31;
    if (fault == 2) args.y_stride = 15;
    if (fault == 3) args.dtype = DType::kE4M3;
    if (fault == 4) weights.layout = LinearLayout::kRowMajor;
    if (fault == 5) weights.matrix.bytes -= 1;
    if (fault == 6) weights.type = DType::kE4M3;
    if (fault == 7) args.norm = problem.norm.data();  // Without a workspace.
    if (fault == 8) {
      args.residual = y.data();
      args.activation = kGelu;
    }
    CHECK(Linear(weights, args, {}).code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace triptych::kernels
