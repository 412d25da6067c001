#include <algorithm>

#include "base/check.h"
#include "kernels/activation.h"
#include "kernels/cpu_math.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"
#include "kernels/storage_types.h"
#include "kernels/thread_pool.h"
#include "kernels/workspace.h"

namespace triptych::kernels {
namespace {

// A multiple of every tile height; with the panels of one slice it stays in the second-level cache.
constexpr int64_t kRowsPerSlice = 48;
constexpr int64_t kPanelsPerSlice = 24;

constexpr int64_t kFloat = sizeof(float);

// The product alone, in float32.
struct Product {
  const float* x = nullptr;
  int64_t x_stride = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
  const float* residual = nullptr;
  int64_t rows = 0;
};

// Slices of panels. One slice of rows reads each panel once, so a slice a thread will do, cut
// evenly; otherwise at most kPanelsPerSlice stay in the cache, and as many slices as make the
// threads equally busy when the rows alone do not.
int64_t PanelSlices(int64_t panels, int64_t row_slices, int64_t threads) {
  if (row_slices == 1) return std::min(panels, threads);
  const int64_t fewest = (panels + kPanelsPerSlice - 1) / kPanelsPerSlice;
  if (row_slices % threads == 0 || row_slices >= 4 * threads) return fewest;
  return std::min(panels, (fewest + threads - 1) / threads * threads);
}

void Multiply(const LinearWeights& weights, const Product& product, ThreadPool* pool) {
  const CpuMath& math = BestCpuMath();
  const int64_t panels = PaddedLanes(weights.outputs) / kLanes;
  const int64_t row_slices = (product.rows + kRowsPerSlice - 1) / kRowsPerSlice;
  const int64_t panel_slices = PanelSlices(panels, row_slices, NumThreads(pool));
  const auto* matrix = static_cast<const uint8_t*>(weights.matrix.data);
  const auto* bias = static_cast<const float*>(weights.bias);
  ParallelFor(pool, row_slices * panel_slices, [&](int64_t index) {
    const int64_t row = index % row_slices * kRowsPerSlice;
    const int64_t slice = index / row_slices;
    const int64_t column = panels * slice / panel_slices * kLanes;
    const int64_t end = panels * (slice + 1) / panel_slices * kLanes;
    const int64_t at = row * product.y_stride + column;
    math.gemm({.a = product.x + row * product.x_stride,
               .a_stride = product.x_stride,
               .panels = matrix + column * weights.inputs * SizeOf(weights.type),
               .panel_type = weights.type,
               .k = weights.inputs,
               .rows = std::min(kRowsPerSlice, product.rows - row),
               .columns = std::min(end, weights.outputs) - column,
               .c = product.y + at,
               .c_stride = product.y_stride,
               .bias = bias == nullptr ? nullptr : bias + column,
               .residual = product.residual == nullptr ? nullptr : product.residual + at});
  });
}

// `rows` rows of `width` values between float32 and bfloat16.
template <typename From, typename To>
void ConvertRows(const From* from, int64_t from_stride, int64_t rows, int64_t width, To* to,
                 int64_t to_stride, ThreadPool* pool) {
  ParallelFor(pool, rows, [&](int64_t row) {
    const From* in = from + row * from_stride;
    To* out = to + row * to_stride;
    for (int64_t i = 0; i < width; ++i) StoreFloat(ToFloat(in[i]), out + i);
  });
}

// x as float32, normalised when asked; `args` says where it lies then.
void PrepareInput(const LinearWeights& weights, const Stream& stream, Product* product,
                  LinearArgs* args) {
  const int64_t inputs = weights.inputs;
  if (args->norm != nullptr) {
    void* normed = stream.workspace->Take(args->rows * inputs * SizeOf(args->dtype));
    CHECK_OK(RmsNorm({.x = args->x,
                      .weight = args->norm,
                      .out = normed,
                      .rows = args->rows,
                      .hidden = inputs,
                      .x_stride = args->x_stride,
                      .eps = args->norm_eps,
                      .dtype = args->dtype},
                     stream));
    args->x = normed;
    args->x_stride = inputs;
  }
  if (args->dtype == DType::kBFloat16) {
    auto* widened = static_cast<float*>(stream.workspace->Take(args->rows * inputs * kFloat));
    ConvertRows(static_cast<const BFloat16*>(args->x), args->x_stride, args->rows, inputs, widened,
                inputs, stream.pool);
    args->x = widened;
    args->x_stride = inputs;
  }
  product->x = static_cast<const float*>(args->x);
  product->x_stride = args->x_stride;
}

// The activation of `product.y` [rows, outputs], then into y with its type.
void Finish(const LinearWeights& weights, const LinearArgs& args, const Product& product,
            const Stream& stream) {
  const float* result = product.y;
  int64_t width = weights.outputs, stride = product.y_stride;
  if (args.activation == LinearActivation::kGelu) {
    ParallelFor(stream.pool, args.rows, [&](int64_t row) {
      float* values = product.y + row * stride;
      BestCpuMath().gelu(values, width, values);
    });
  } else if (args.activation == LinearActivation::kSwiGlu) {
    width /= 2;
    const bool direct = args.y_dtype == DType::kFloat32;
    float* out = direct ? static_cast<float*>(args.y) : product.y;
    const int64_t out_stride = direct ? args.y_stride : stride;
    ParallelFor(stream.pool, args.rows, [&](int64_t row) {
      const float* gate = product.y + row * stride;
      BestCpuMath().swiglu(gate, gate + width, width, out + row * out_stride);
    });
    if (direct) return;
    result = out;
  }
  if (args.y_dtype == DType::kBFloat16) {
    ConvertRows(result, stride, args.rows, width, static_cast<BFloat16*>(args.y), args.y_stride,
                stream.pool);
  }
}

}  // namespace

int64_t LinearWorkspaceBytes(const LinearWeights& weights, const LinearArgs& args) {
  const int64_t x_bytes = args.rows * weights.inputs, y_bytes = args.rows * weights.outputs;
  int64_t bytes = 0;
  if (args.norm != nullptr) bytes += Workspace::Aligned(x_bytes * SizeOf(args.dtype));
  if (args.dtype == DType::kBFloat16) bytes += Workspace::Aligned(x_bytes * kFloat);
  const bool apart =
      args.y_dtype == DType::kBFloat16 || args.activation == LinearActivation::kSwiGlu;
  if (apart) bytes += Workspace::Aligned(y_bytes * kFloat);
  return bytes;
}

void internal::LinearCpu(const LinearWeights& weights, const LinearArgs& given,
                         const Stream& stream) {
  const WorkspaceScope scope(stream.workspace);
  LinearArgs args = given;
  Product product{.rows = args.rows};
  PrepareInput(weights, stream, &product, &args);
  const bool narrow = args.y_dtype == DType::kBFloat16;
  if (narrow || args.activation == LinearActivation::kSwiGlu) {
    product.y = static_cast<float*>(stream.workspace->Take(args.rows * weights.outputs * kFloat));
    product.y_stride = weights.outputs;
  } else {
    product.y = static_cast<float*>(args.y);
    product.y_stride = args.y_stride;
  }
  if (args.residual != nullptr && narrow) {
    ConvertRows(static_cast<const BFloat16*>(args.residual), args.y_stride, args.rows,
                weights.outputs, product.y, product.y_stride, stream.pool);
    product.residual = product.y;
  } else {
    product.residual = static_cast<const float*>(args.residual);
  }
  Multiply(weights, product, stream.pool);
  Finish(weights, args, product, stream);
}

}  // namespace triptych::kernels
