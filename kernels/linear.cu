// Three ways to a product: few rows by our streaming kernel with everything folded in
// (linear_decode.h), many by cuBLASLt with the steps around it as kernels of their own, and what
// fits neither (widths that are no multiple of 8, a machine without the library) by a plain kernel.

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/activation.h"
#include "kernels/cuda_context.h"
#include "kernels/decode_choices.h"
#include "kernels/float_types.cuh"
#include "kernels/linear.h"
#include "kernels/linear_decode.h"
#include "kernels/linear_swiglu.h"
#include "kernels/matrix_library.h"
#include "kernels/rms_norm.h"
#include "kernels/workspace.h"

namespace triptych::kernels {
namespace {

constexpr int kPlainWarps = 8;
// Below it the library's product and a pass of SwiGLU are faster than the one kernel for both.
constexpr int64_t kFusedSwiGluRows = 1024;

struct PlainArgs {
  LinearArgs args;
  const __nv_bfloat16* weights;
  const __nv_bfloat16* bias;
  int64_t inputs;
  int64_t outputs;  // of y
};

__device__ float WarpSum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}

__device__ float Element(const void* values, int64_t i) {
  return Widen(static_cast<const __nv_bfloat16*>(values)[i]);
}

// One warp an output of a row, in an order that depends on the shape alone.
__global__ void __launch_bounds__(kPlainWarps * 32) PlainKernel(const PlainArgs in) {
  const LinearArgs& args = in.args;
  const int64_t n = int64_t{blockIdx.x} * kPlainWarps + threadIdx.x / 32;
  const int64_t row = blockIdx.y;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (n >= in.outputs) return;
  const bool gated = args.activation == LinearActivation::kSwiGlu;
  float sum = 0, second = 0, squares = 0;
  for (int64_t k = lane; k < in.inputs; k += 32) {
    float x = Element(args.x, row * args.x_stride + k);
    squares += x * x;
    if (args.norm != nullptr) x = Widen(Narrow<__nv_bfloat16>(x * Element(args.norm, k)));
    sum += x * Widen(in.weights[n * in.inputs + k]);
    if (gated) second += x * Widen(in.weights[(in.outputs + n) * in.inputs + k]);
  }
  const float mean = WarpSum(squares) / static_cast<float>(in.inputs);
  const float scale = args.norm == nullptr ? 1.0f : rsqrtf(mean + args.norm_eps);
  sum = WarpSum(sum) * scale + (in.bias == nullptr ? 0 : Widen(in.bias[n]));
  second = WarpSum(second) * scale;
  if (gated) {
    if (in.bias != nullptr) second += Widen(in.bias[in.outputs + n]);
    sum = sum / (1 + expf(-sum)) * second;
  }
  if (args.activation == LinearActivation::kGelu) sum *= normcdff(sum);
  if (lane != 0) return;
  const int64_t at = row * args.y_stride + n;
  if (args.y_dtype == DType::kFloat32) {
    if (args.residual != nullptr) sum += static_cast<const float*>(args.residual)[at];
    static_cast<float*>(args.y)[at] = sum;
  } else {
    if (args.residual != nullptr) sum += Element(args.residual, at);
    static_cast<__nv_bfloat16*>(args.y)[at] = Narrow<__nv_bfloat16>(sum);
  }
}

int Plain(const LinearWeights& weights, const LinearArgs& args, cudaStream_t stream) {
  const int64_t outputs =
      args.activation == LinearActivation::kSwiGlu ? weights.outputs / 2 : weights.outputs;
  constexpr int64_t kRowsAtOnce = 32768;
  for (int64_t first = 0; first < args.rows; first += kRowsAtOnce) {
    PlainArgs in = {.args = args,
                    .weights = static_cast<const __nv_bfloat16*>(weights.matrix.data),
                    .bias = static_cast<const __nv_bfloat16*>(weights.bias),
                    .inputs = weights.inputs,
                    .outputs = outputs};
    const auto skip = [&](const void* p, int64_t stride, DType type) {
      return static_cast<const char*>(p) + first * stride * SizeOf(type);
    };
    in.args.x = skip(args.x, args.x_stride, args.dtype);
    in.args.y = const_cast<char*>(skip(args.y, args.y_stride, args.y_dtype));
    if (args.residual != nullptr) {
      in.args.residual = skip(args.residual, args.y_stride, args.y_dtype);
    }
    const dim3 grid(static_cast<unsigned>((outputs + kPlainWarps - 1) / kPlainWarps),
                    static_cast<unsigned>(std::min(kRowsAtOnce, args.rows - first)));
    PlainKernel<<<grid, kPlainWarps * 32, 0, stream>>>(in);
  }
  return cudaGetLastError();
}

bool Aligned(const LinearWeights& weights, const LinearArgs& args) {
  constexpr int64_t kUnit = 8;  // 16 bytes of bfloat16
  return IsAligned(args.x, 16) && IsAligned(args.y, 16) && IsAligned(args.residual, 16) &&
         IsAligned(weights.matrix.data, 16) && IsAligned(weights.bias, 16) &&
         IsAligned(args.norm, 16) && weights.inputs % kUnit == 0 && weights.outputs % kUnit == 0 &&
         args.x_stride % kUnit == 0 && args.y_stride % kUnit == 0;
}

int SmCountOf(const CudaContext* context) {
  if (context != nullptr && context->sm_count > 0) return context->sm_count;
  int device = 0, count = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 1;
  if (cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    return 1;
  }
  return count;
}

// cudaErrorNotSupported: another way must be taken.
int FewRows(const LinearWeights& weights, const LinearArgs& args, const CudaContext* context,
            void* stream) {
  const bool swiglu = args.activation == LinearActivation::kSwiGlu;
  const bool float_output = args.y_dtype == DType::kFloat32;
  if (args.activation == LinearActivation::kGelu || (swiglu && weights.bias != nullptr) ||
      (float_output && args.residual != nullptr)) {
    return cudaErrorNotSupported;
  }
  const DecodeLinearArgs decode = {.x = args.x,
                                   .rows = args.rows,
                                   .x_stride = args.x_stride,
                                   .weights = weights.matrix.data,
                                   .inputs = weights.inputs,
                                   .outputs = weights.outputs,
                                   .bias = weights.bias,
                                   .residual = args.residual,
                                   .norm = args.norm,
                                   .norm_eps = args.norm_eps,
                                   .swiglu = swiglu,
                                   .y = args.y,
                                   .y_stride = args.y_stride,
                                   .float_output = float_output};
  const int sm_count = SmCountOf(context);
  const DecodeLinearChoice* tuned =
      context == nullptr || context->choices == nullptr
          ? nullptr
          : context->choices->Find({weights.inputs, weights.outputs, swiglu}, args.rows);
  DecodeLinearChoice choice;
  if (tuned != nullptr && internal::DecodeLinearFits(decode, *tuned, sm_count)) {
    choice = *tuned;
  } else if (!internal::DecodeLinearRule(decode, sm_count, &choice)) {
    return cudaErrorNotSupported;
  }
  const bool pdl = context != nullptr && context->pdl;
  return internal::DecodeLinearCuda(decode, choice, sm_count, pdl, stream);
}

// The steps around the library's product are kernels of their own; what they need is taken from the
// workspace.
int ManyRows(const LinearWeights& weights, const LinearArgs& args, const Stream& stream) {
  const WorkspaceScope scope(stream.workspace);
  const bool swiglu = args.activation == LinearActivation::kSwiGlu;
  LibraryProduct product = {.x = args.x,
                            .rows = args.rows,
                            .x_stride = args.x_stride,
                            .weights = weights.matrix.data,
                            .inputs = weights.inputs,
                            .outputs = weights.outputs,
                            .bias = weights.bias,
                            .residual = args.residual,
                            .y = args.y,
                            .y_stride = args.y_stride,
                            .float_output = args.y_dtype == DType::kFloat32};
  if (args.norm != nullptr) {
    void* normed = stream.workspace->Take(args.rows * weights.inputs * 2);
    const int error = internal::RmsNormCuda({.x = args.x,
                                             .weight = args.norm,
                                             .out = normed,
                                             .rows = args.rows,
                                             .hidden = weights.inputs,
                                             .x_stride = args.x_stride,
                                             .out_stride = weights.inputs,
                                             .residual_stride = weights.inputs,
                                             .eps = args.norm_eps,
                                             .dtype = args.dtype},
                                            stream);
    if (error != 0) return error;
    product.x = normed;
    product.x_stride = weights.inputs;
  }
  if (swiglu && args.rows >= kFusedSwiGluRows && weights.outputs / 2 % 8 == 0) {
    return internal::SwiGluProductCuda({.x = product.x,
                                        .rows = args.rows,
                                        .inputs = weights.inputs,
                                        .x_stride = product.x_stride,
                                        .weight = weights.matrix.data,
                                        .n = weights.outputs / 2,
                                        .bias = weights.bias,
                                        .out = args.y,
                                        .out_stride = args.y_stride},
                                       stream);
  }
  if (swiglu) {
    product.y = stream.workspace->Take(args.rows * weights.outputs * 2);
    product.y_stride = weights.outputs;
  }
  const CudaContext& context = *stream.cuda;
  const int error = static_cast<MatrixLibrary*>(context.cublaslt)
                        ->Multiply(product, context.scratch, context.scratch_bytes, context.stream);
  if (error != 0) return error;
  if (swiglu) {
    return internal::SwiGluCuda({.gate_up = product.y,
                                 .out = args.y,
                                 .rows = args.rows,
                                 .n = weights.outputs / 2,
                                 .out_stride = args.y_stride,
                                 .dtype = args.dtype},
                                stream);
  }
  if (args.activation == LinearActivation::kGelu) {
    return internal::GeluCuda(
        {.x = args.y, .count = args.rows * weights.outputs, .dtype = args.dtype}, stream);
  }
  return cudaSuccess;
}

bool LibraryServes(const LinearWeights& weights, const LinearArgs& args, const Stream& stream) {
  if (stream.cuda == nullptr || stream.cuda->cublaslt == nullptr) return false;
  const bool float_output = args.y_dtype == DType::kFloat32;
  const bool between = args.norm != nullptr || args.activation == LinearActivation::kSwiGlu;
  if (between && stream.workspace == nullptr) return false;
  if (float_output && (weights.bias != nullptr || args.activation != LinearActivation::kNone)) {
    return false;
  }
  // The activation's kernel knows no stride.
  return args.activation != LinearActivation::kGelu || args.y_stride == weights.outputs;
}

}  // namespace

int internal::LinearCuda(const LinearWeights& weights, const LinearArgs& args,
                         const Stream& stream) {
  if (weights.type != DType::kBFloat16 || weights.layout != LinearLayout::kRowMajor ||
      args.dtype != DType::kBFloat16) {
    return cudaErrorNotSupported;
  }
  const auto cuda_stream = static_cast<cudaStream_t>(CudaStreamOf(stream));
  if (!Aligned(weights, args)) return Plain(weights, args, cuda_stream);
  if (args.rows <= kMaxDecodeRows) {
    const int error = FewRows(weights, args, stream.cuda, cuda_stream);
    if (error != cudaErrorNotSupported) return error;
  }
  if (LibraryServes(weights, args, stream)) return ManyRows(weights, args, stream);
  return Plain(weights, args, cuda_stream);
}

}  // namespace triptych::kernels
