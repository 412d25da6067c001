// One block a token. Each finds its own source, because a sampled id is known on the device alone.

#include <cuda_runtime.h>

#include "kernels/cuda_context.h"
#include "kernels/embed.h"
#include "kernels/float_types.cuh"

namespace triptych::kernels {
namespace {

constexpr int kThreads = 128;

enum class Place { kNone, kTable, kPool };

struct Source {
  Place place;
  int64_t row;
};

__device__ Source SourceOf(const EmbedArgs& args, int64_t input) {
  if (input <= -2) {
    const int64_t index = -2 - input;
    if (index >= args.sampled_size) return {Place::kNone, 0};
    input = args.sampled[index];
    if (input >= args.vocab_size) return {Place::kNone, 0};
  }
  if (input < 0 || input >= args.vocab_size + args.pool_slots) return {Place::kNone, 0};
  if (input < args.vocab_size) return {Place::kTable, input};
  return {Place::kPool, input - args.vocab_size};
}

template <typename From, typename To, int kVector>
__device__ void CopyRow(const void* rows, int64_t offset, int64_t width, To* out) {
  const From* from = static_cast<const From*>(rows) + offset;
  for (int64_t i = int64_t{threadIdx.x} * kVector; i < width; i += kThreads * kVector) {
    float value[kVector];
    LoadPack(from + i, value);
    StorePack(value, out + i);
  }
}

template <typename To, int kVector>
__device__ void CopyAs(const void* rows, DType type, int64_t offset, int64_t width, To* out) {
  if (type == DType::kFloat32) {
    CopyRow<float, To, kVector>(rows, offset, width, out);
  } else {
    CopyRow<__nv_bfloat16, To, kVector>(rows, offset, width, out);
  }
}

template <typename To, int kVector>
__global__ void __launch_bounds__(kThreads) EmbedKernel(const __grid_constant__ EmbedArgs args) {
  const int64_t token = blockIdx.x;
  To* out = static_cast<To*>(args.out) + token * args.width;
  const Source source = SourceOf(args, args.inputs[token]);
  if (source.place == Place::kTable) {
    CopyAs<To, kVector>(args.table, args.table_dtype, source.row * args.width, args.width, out);
  } else if (source.place == Place::kPool) {
    CopyAs<To, kVector>(args.pool, args.pool_dtype, source.row * args.pool_stride, args.width, out);
  } else {
    for (int64_t i = threadIdx.x; i < args.width; i += kThreads) out[i] = Narrow<To>(0);
    if (args.errors != nullptr && threadIdx.x == 0) args.errors[args.row_of_token[token]] = 1;
  }
}

template <typename To>
int Launch(const EmbedArgs& args, cudaStream_t stream) {
  constexpr int kVector = 8;  // two 16-byte moves where a side is float32
  const bool aligned = IsAligned(args.table, 32) && IsAligned(args.pool, 32) &&
                       IsAligned(args.out, 32) && args.width % 16 == 0 &&
                       args.pool_stride % 16 == 0;
  const auto tokens = static_cast<unsigned>(args.tokens);
  if (aligned) {
    EmbedKernel<To, kVector><<<tokens, kThreads, 0, stream>>>(args);
  } else {
    EmbedKernel<To, 1><<<tokens, kThreads, 0, stream>>>(args);
  }
  return cudaPeekAtLastError();
}

}  // namespace

int internal::EmbedCuda(const EmbedArgs& args, const Stream& on) {
  const auto stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  if (args.tokens > INT32_MAX) return cudaErrorInvalidValue;
  return args.dtype == DType::kFloat32 ? Launch<float>(args, stream)
                                       : Launch<__nv_bfloat16>(args, stream);
}

}  // namespace triptych::kernels
