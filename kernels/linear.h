#pragma once

// y = act(norm(x) W^T + bias) (+ residual): the matrix product of every layer with the cheap steps
// around it, so that a device can fold them in; the CPU runs them one after another.
//
// On the CPU each output is a chain of fused multiply-adds over k in ascending order, in float32,
// then the bias, then the residual or the activation: bitwise the same for any number of rows,
// threads and instruction sets, and the same as RmsNorm, Linear and SwiGlu called apart. bfloat16
// activations are widened before and rounded once after. On CUDA accumulation is float32 in an
// order that depends on the shape; against float64: 2e-3 of the row's largest value in bfloat16.
// The weights are immutable; Linear is safe from any thread (a workspace is one thread's).

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/dtype.h"
#include "base/memory_ref.h"
#include "kernels/stream.h"

namespace triptych::kernels {

using base::DType;

enum class LinearLayout : uint8_t {
  kPanels16,  // CPU: [ceil(outputs / 16)][inputs][16], zeros beyond the last output
  kRowMajor,  // CUDA: [outputs, inputs]
};

// A matrix in a device's memory, owned by whoever loaded it.
struct LinearWeights {
  int64_t inputs = 0;
  int64_t outputs = 0;
  DType type = DType::kBFloat16;
  LinearLayout layout = LinearLayout::kPanels16;
  base::MemoryRef matrix;
  const void* bias = nullptr;     // [outputs]: float32 on the CPU, bfloat16 on CUDA; null: none
  const float* scales = nullptr;  // [outputs], kE4M3 alone
};

enum class LinearActivation : uint8_t {
  kNone,
  kSwiGlu,  // outputs = 2 n: y [rows, n] = silu(first n) * last n
  kGelu,    // erf
};

// Pointers are borrowed and lie in the memory of the stream's device. Strides count elements from
// row to row; 0 stands for the width.
struct LinearArgs {
  const void* x = nullptr;  // [rows, inputs]
  int64_t rows = 0;
  int64_t x_stride = 0;
  void* y = nullptr;  // [rows, outputs], or [rows, outputs / 2] behind kSwiGlu
  int64_t y_stride = 0;
  // Null, or as y in shape, stride and y_dtype; may be y. Without an activation only.
  const void* residual = nullptr;
  const void* norm = nullptr;  // null, or [inputs]: x is RMS-normalised first (rms_norm.h)
  float norm_eps = 1e-6f;
  LinearActivation activation = LinearActivation::kNone;
  DType dtype = DType::kFloat32;    // of x and norm
  DType y_dtype = DType::kFloat32;  // of y and residual
};

// Enqueues on a CUDA stream and does not synchronise; done on return on the CPU. InvalidArgument: a
// null pointer with rows > 0, a bad size, type or layout, a stride below the width, a residual
// beside an activation. Unimplemented: CUDA in a build without it. Internal: the launch failed.
// A workspace is needed (a missing one is InvalidArgument) where LinearWorkspaceBytes is not 0.
absl::Status Linear(const LinearWeights& weights, const LinearArgs& args, const Stream& stream);

// What Linear takes of the CPU stream's workspace: norms, gate_up before SwiGLU, widened bfloat16.
int64_t LinearWorkspaceBytes(const LinearWeights& weights, const LinearArgs& args);

// A row-major [outputs, inputs] matrix on the host; borrowed, any alignment.
struct LinearSource {
  const void* bytes = nullptr;
  int64_t outputs = 0;
};

// Bytes of a packed matrix, a multiple of 64.
int64_t PanelBytes(int64_t outputs, int64_t inputs, DType type);

// Packs matrices of one type below each other as panels: their outputs become columns of one
// product. `panels` has PanelBytes of the sum of outputs. Runs on `pool` (may be null).
void PackPanels(absl::Span<const LinearSource> parts, int64_t inputs, DType type,
                absl::Span<uint8_t> panels, ThreadPool* pool);

namespace internal {
// Checked arguments, strides filled in, rows > 0. The CUDA one answers a cudaError_t.
void LinearCpu(const LinearWeights& weights, const LinearArgs& args, const Stream& stream);
int LinearCuda(const LinearWeights& weights, const LinearArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
