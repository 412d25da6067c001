// One block a row and 16 KiB of it: rows are a hidden vector or a merge unit of four.

#include <cuda_runtime.h>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/move_rows.h"

namespace triptych::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kVectorsPerThread = 4;
constexpr int64_t kTile = kThreads * kVectorsPerThread;

// Sizes in vectors.
struct Launched {
  const void* x;
  void* out;
  const int32_t* indices;
  int64_t x_stride, out_stride, width, indexed_rows;
};

template <typename Vector, internal::MoveRowsDirection kDirection>
__global__ void __launch_bounds__(kThreads) MoveRowsKernel(const Launched in) {
  constexpr bool kGather = kDirection == internal::MoveRowsDirection::kGather;
  const int64_t row = blockIdx.x;
  const int64_t index = in.indices[row];
  const bool inside = index >= 0 && index < in.indexed_rows;
  if (!kGather && !inside) return;
  const Vector* from = static_cast<const Vector*>(in.x) + (kGather ? index : row) * in.x_stride;
  Vector* to = static_cast<Vector*>(in.out) + (kGather ? row : index) * in.out_stride;
  const int64_t first = blockIdx.y * kTile + threadIdx.x;
  Vector value[kVectorsPerThread] = {};
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    if (inside && first + i * kThreads < in.width) value[i] = from[first + i * kThreads];
  }
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    if (first + i * kThreads < in.width) to[first + i * kThreads] = value[i];
  }
}

template <typename Vector>
int Launch(const MoveRowsArgs& args, internal::MoveRowsDirection direction, cudaStream_t stream) {
  const int64_t size = SizeOf(args.dtype), vector = sizeof(Vector);
  const Launched in = {args.x,
                       args.out,
                       args.indices,
                       args.x_stride * size / vector,
                       args.out_stride * size / vector,
                       args.width * size / vector,
                       args.indexed_rows};
  const int64_t tiles = (in.width + kTile - 1) / kTile;
  if (args.rows > INT32_MAX || tiles > UINT16_MAX) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(args.rows), static_cast<unsigned>(tiles));
  if (direction == internal::MoveRowsDirection::kGather) {
    MoveRowsKernel<Vector, internal::MoveRowsDirection::kGather><<<grid, kThreads, 0, stream>>>(in);
  } else {
    MoveRowsKernel<Vector, internal::MoveRowsDirection::kScatter>
        <<<grid, kThreads, 0, stream>>>(in);
  }
  return cudaPeekAtLastError();
}

}  // namespace

int internal::MoveRowsCuda(const MoveRowsArgs& args, MoveRowsDirection direction,
                           const Stream& on) {
  const auto stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  const int64_t size = SizeOf(args.dtype);
  const bool aligned = IsAligned(args.x, 16) && IsAligned(args.out, 16) &&
                       args.width * size % 16 == 0 && args.x_stride * size % 16 == 0 &&
                       args.out_stride * size % 16 == 0;
  if (aligned) return Launch<uint4>(args, direction, stream);
  if (size == 4) return Launch<uint32_t>(args, direction, stream);
  return size == 2 ? Launch<uint16_t>(args, direction, stream)
                   : Launch<uint8_t>(args, direction, stream);
}

}  // namespace triptych::kernels
