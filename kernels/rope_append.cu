// One block a token: its angles once into shared memory, then every head of Q and K in vectors of
// the first half with their partners of the second, then V.

#include <cuda_runtime.h>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/rope_append.h"
#include "kernels/rope_append_angle.h"

namespace triptych::kernels {
namespace {

constexpr int kThreads = 128;

// What a launch carries; the table travels by value.
struct Launched {
  RopeAppendArgs args;
  RopeTable table;
  int64_t token_elements;
  int64_t half_block_elements;
};

// Rotates vector `index` of the `heads` heads of one token.
template <int kVector, typename From, typename To>
__device__ void RotateVector(const From* from, const SineCosine* angles, int half, int index,
                             To* to) {
  const int head = index / (half / kVector);
  const int i = (index - head * (half / kVector)) * kVector;
  const int64_t at = static_cast<int64_t>(head) * 2 * half + i;
  float a[kVector], b[kVector];
  LoadPack(from + at, a);
  LoadPack(from + at + half, b);
#pragma unroll
  for (int lane = 0; lane < kVector; ++lane) {
    const SineCosine angle = angles[i + lane];
    const float low = a[lane] * angle.cosine - b[lane] * angle.sine;
    b[lane] = b[lane] * angle.cosine + a[lane] * angle.sine;
    a[lane] = low;
  }
  StorePack(a, to + at);
  StorePack(b, to + at + half);
}

template <typename Activation, typename Stored, int kVector>
__global__ void __launch_bounds__(kThreads) RopeAppendKernel(const __grid_constant__ Launched in) {
  __shared__ SineCosine angles[kMaxRopeHeadDim / 2];
  const RopeAppendArgs& args = in.args;
  const KvLayout& layout = args.layout;
  const int64_t token = blockIdx.x;
  const int half = layout.head_dim / 2;
  for (int i = static_cast<int>(threadIdx.x); i < half; i += kThreads) {
    const int32_t position = args.positions[in.table.axis[i] * args.positions_stride + token];
    angles[i] = RopeSineCosine(static_cast<float>(position) * in.table.inv_freq[i]);
  }
  const int32_t slot = args.slots[token];
  const bool stored = slot >= 0 && slot < args.num_blocks * layout.block_tokens;
  const int64_t half_block = stored ? int64_t{slot / layout.block_tokens} * 2 : 0;
  const int64_t row = stored ? slot % layout.block_tokens : 0;
  Stored* key = static_cast<Stored*>(args.pages) + half_block * in.half_block_elements +
                row * in.token_elements;
  const Activation* k = static_cast<const Activation*>(args.k) + token * args.k_stride;
  const Activation* v = static_cast<const Activation*>(args.v) + token * args.v_stride;
  Activation* q = static_cast<Activation*>(args.q) + token * args.q_stride;
  __syncthreads();

  const int q_vectors = args.heads * (half / kVector);
  const int k_vectors = layout.kv_heads * (half / kVector);
  for (int n = static_cast<int>(threadIdx.x); n < q_vectors + k_vectors; n += kThreads) {
    if (n < q_vectors) {
      RotateVector<kVector>(q, angles, half, n, q);
      continue;
    }
    if (stored) RotateVector<kVector>(k, angles, half, n - q_vectors, key);
    if (args.rotated_k == nullptr) continue;
    Activation* again = static_cast<Activation*>(args.rotated_k) + token * args.k_stride;
    RotateVector<kVector>(k, angles, half, n - q_vectors, again);
  }
  if (!stored) return;
  Stored* value = key + in.half_block_elements;
  for (int n = static_cast<int>(threadIdx.x); n < 2 * k_vectors; n += kThreads) {
    float copied[kVector];
    LoadPack(v + n * kVector, copied);
    StorePack(copied, value + n * kVector);
  }
}

template <typename Activation, typename Stored>
void Launch(const RopeAppendArgs& args, cudaStream_t stream) {
  constexpr int kVector =
      16 / (sizeof(Activation) > sizeof(Stored) ? sizeof(Activation) : sizeof(Stored));
  const bool aligned = IsAligned(args.q, 16) && IsAligned(args.k, 16) && IsAligned(args.v, 16) &&
                       IsAligned(args.rotated_k, 16) && IsAligned(args.pages, 16) &&
                       args.q_stride % kVector == 0 && args.k_stride % kVector == 0 &&
                       args.v_stride % kVector == 0 && (args.layout.head_dim / 2) % kVector == 0;
  const Launched in = {args, *args.table, args.layout.token_elements(),
                       args.layout.half_block_elements()};
  const unsigned tokens = static_cast<unsigned>(args.tokens);
  if (aligned) {
    RopeAppendKernel<Activation, Stored, kVector><<<tokens, kThreads, 0, stream>>>(in);
  } else {
    RopeAppendKernel<Activation, Stored, 1><<<tokens, kThreads, 0, stream>>>(in);
  }
}

template <typename Activation>
void LaunchInto(const RopeAppendArgs& args, cudaStream_t stream) {
  if (args.layout.dtype == DType::kFloat32) {
    Launch<Activation, float>(args, stream);
  } else {
    Launch<Activation, __nv_bfloat16>(args, stream);
  }
}

}  // namespace

int internal::RopeAppendCuda(const RopeAppendArgs& args, const Stream& on) {
  const cudaStream_t stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  if (args.tokens > INT32_MAX) return cudaErrorInvalidValue;
  if (args.dtype == DType::kFloat32) {
    LaunchInto<float>(args, stream);
  } else {
    LaunchInto<__nv_bfloat16>(args, stream);
  }
  return cudaPeekAtLastError();
}

}  // namespace triptych::kernels
