// A block takes a window and some of its heads, one after another: it brings Q, K and V of a head
// into shared memory, rotating as it does, and each of its four warps attends 16 queries over the
// whole window with mma.sync; the scores never leave its registers.

#include <cuda_runtime.h>

#include <cmath>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/window_attention.h"

namespace triptych::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kWindow = internal::kMaxWindow;
constexpr int kVector = 8;  // bf16 in 16 bytes
// Heads of a block: its angles are read once for all of them.
constexpr int kHeads = 4;
constexpr int64_t kMaxGridDimension = 65535;

struct Launched {
  const __nv_bfloat16* qkv;
  __nv_bfloat16* out;
  const int32_t* offsets;
  const float *cosines, *sines;  // null: nothing is rotated
  int heads;
  float scale_log2;  // of the scores, for exp2
};

// Rows are padded by one vector: eight of them then lie in different banks.
template <int kHeadDim>
struct Shared {
  static constexpr int kStride = kHeadDim + kVector;
  __nv_bfloat16 q[kWindow * kStride], k[kWindow * kStride], v[kWindow * kStride];
  float cosines[kWindow * kHeadDim / 2], sines[kWindow * kHeadDim / 2];
};

__device__ inline uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ inline void LoadMatrices(const __nv_bfloat16* row, uint32_t (&to)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(SharedAddress(row))
               : "memory");
}

__device__ inline void LoadTransposed(const __nv_bfloat16* row, uint32_t (&to)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(SharedAddress(row))
               : "memory");
}

__device__ inline void Multiply(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t PackPair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// `count` rows of one of Q, K, V, zeros behind them; rotated where there are angles.
template <int kHeadDim, bool kRotate>
__device__ void LoadRows(const __nv_bfloat16* from, int64_t stride, int count,
                         const Shared<kHeadDim>& shared, __nv_bfloat16* to) {
  constexpr int kHalf = kHeadDim / 2, kHalfVectors = kHalf / kVector;
  constexpr int kStride = Shared<kHeadDim>::kStride;
  for (int i = static_cast<int>(threadIdx.x); i < kWindow * kHalfVectors; i += kThreads) {
    const int row = i / kHalfVectors, at = i % kHalfVectors * kVector;
    float low[kVector] = {}, high[kVector] = {};
    if (row < count) {
      LoadPack(from + row * stride + at, low);
      LoadPack(from + row * stride + at + kHalf, high);
      if constexpr (kRotate) {
        float cosine[kVector], sine[kVector];
        LoadPack(shared.cosines + row * kHalf + at, cosine);
        LoadPack(shared.sines + row * kHalf + at, sine);
#pragma unroll
        for (int k = 0; k < kVector; ++k) {
          const float turned = low[k] * cosine[k] - high[k] * sine[k];
          high[k] = high[k] * cosine[k] + low[k] * sine[k];
          low[k] = turned;
        }
      }
    }
    StorePack(low, to + row * kStride + at);
    StorePack(high, to + row * kStride + at + kHalf);
  }
}

// The scores of 16 queries with all keys of the window.
template <int kHeadDim>
__device__ void Score(const Shared<kHeadDim>& shared, int warp, int lane,
                      float (&scores)[kWindow / 8][4]) {
  constexpr int kStride = Shared<kHeadDim>::kStride;
  const __nv_bfloat16* q = shared.q + (warp * 16 + lane % 16) * kStride + lane / 16 * 8;
  // Four matrices: keys 0-7 and 8-15 of a run of 16, each for both halves of 16 columns.
  const __nv_bfloat16* k = shared.k + (lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 8;
#pragma unroll
  for (int column = 0; column < kHeadDim; column += 16) {
    uint32_t a[4];
    LoadMatrices(q + column, a);
#pragma unroll
    for (int key = 0; key < kWindow; key += 16) {
      uint32_t b[4];
      LoadMatrices(k + key * kStride + column, b);
      Multiply(a, b[0], b[1], scores[key / 8]);
      Multiply(a, b[2], b[3], scores[key / 8 + 1]);
    }
  }
}

// Scores to weights; the sums of a thread's two rows. Keys from `count` on weigh nothing.
__device__ inline void Soften(int lane, int count, float scale_log2,
                              float (&scores)[kWindow / 8][4], float (&sum)[2]) {
  float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int n = 0; n < kWindow / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (n * 8 + lane % 4 * 2 + i % 2 >= count) scores[n][i] = -INFINITY;
      largest[i / 2] = fmaxf(largest[i / 2], scores[n][i]);
    }
  }
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    largest[row] = fmaxf(largest[row], __shfl_xor_sync(~0u, largest[row], 1));
    largest[row] = fmaxf(largest[row], __shfl_xor_sync(~0u, largest[row], 2));
    sum[row] = 0;
  }
#pragma unroll
  for (int n = 0; n < kWindow / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scores[n][i] = exp2f((scores[n][i] - largest[i / 2]) * scale_log2);
      sum[i / 2] += scores[n][i];
    }
  }
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    sum[row] += __shfl_xor_sync(~0u, sum[row], 1);
    sum[row] += __shfl_xor_sync(~0u, sum[row], 2);
  }
}

// Weights times values, divided by the sums, into this warp's rows of `q`, which it alone reads.
template <int kHeadDim>
__device__ void Weigh(Shared<kHeadDim>& shared, int warp, int lane,
                      const float (&weights)[kWindow / 8][4], const float (&sum)[2]) {
  constexpr int kStride = Shared<kHeadDim>::kStride;
  float result[kHeadDim / 8][4] = {};
  const __nv_bfloat16* v = shared.v + lane % 16 * kStride + lane / 16 * 8;
#pragma unroll
  for (int key = 0; key < kWindow; key += 16) {
    const auto& first = weights[key / 8];
    const auto& second = weights[key / 8 + 1];
    const uint32_t a[4] = {PackPair(first[0], first[1]), PackPair(first[2], first[3]),
                           PackPair(second[0], second[1]), PackPair(second[2], second[3])};
#pragma unroll
    for (int column = 0; column < kHeadDim; column += 16) {
      uint32_t b[4];
      LoadTransposed(v + key * kStride + column, b);
      Multiply(a, b[0], b[1], result[column / 8]);
      Multiply(a, b[2], b[3], result[column / 8 + 1]);
    }
  }
  const float factor[2] = {1 / sum[0], 1 / sum[1]};
#pragma unroll
  for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      auto* to = shared.q + (warp * 16 + lane / 4 + row * 8) * kStride + n * 8 + lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(to) =
          PackPair(result[n][2 * row] * factor[row], result[n][2 * row + 1] * factor[row]);
    }
  }
}

template <int kHeadDim, bool kRotate>
__global__ void __launch_bounds__(kThreads) WindowKernel(const __grid_constant__ Launched in) {
  constexpr int kStride = Shared<kHeadDim>::kStride, kHalf = kHeadDim / 2;
  extern __shared__ __align__(16) char memory[];
  auto& shared = *reinterpret_cast<Shared<kHeadDim>*>(memory);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t begin = in.offsets[blockIdx.x];
  const int count = in.offsets[blockIdx.x + 1] - static_cast<int>(begin);
  const int64_t width = int64_t{in.heads} * kHeadDim, token = 3 * width;
  if (count == 0) return;
  if constexpr (kRotate) {
    for (int i = static_cast<int>(threadIdx.x) * 4; i < count * kHalf; i += kThreads * 4) {
      *reinterpret_cast<float4*>(shared.cosines + i) =
          *reinterpret_cast<const float4*>(in.cosines + begin * kHalf + i);
      *reinterpret_cast<float4*>(shared.sines + i) =
          *reinterpret_cast<const float4*>(in.sines + begin * kHalf + i);
    }
    __syncthreads();
  }
  const int last = min((static_cast<int>(blockIdx.y) + 1) * kHeads, in.heads);
  for (int head = static_cast<int>(blockIdx.y) * kHeads; head < last; ++head) {
    const __nv_bfloat16* q = in.qkv + begin * token + head * kHeadDim;
    LoadRows<kHeadDim, kRotate>(q, token, count, shared, shared.q);
    LoadRows<kHeadDim, kRotate>(q + width, token, count, shared, shared.k);
    LoadRows<kHeadDim, false>(q + 2 * width, token, count, shared, shared.v);
    __syncthreads();
    if (warp * 16 < count) {
      float scores[kWindow / 8][4] = {}, sum[2];
      Score(shared, warp, lane, scores);
      Soften(lane, count, in.scale_log2, scores, sum);
      Weigh(shared, warp, lane, scores, sum);
      __syncwarp();
      __nv_bfloat16* out = in.out + begin * width + head * kHeadDim;
      for (int i = lane; i < 16 * (kHeadDim / kVector); i += 32) {
        const int row = warp * 16 + i / (kHeadDim / kVector);
        const int column = i % (kHeadDim / kVector) * kVector;
        if (row >= count) continue;
        *reinterpret_cast<uint4*>(out + row * width + column) =
            *reinterpret_cast<const uint4*>(shared.q + row * kStride + column);
      }
    }
    __syncthreads();
  }
}

template <int kHeadDim, bool kRotate>
int Launch(const Launched& in, int64_t segments, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared<kHeadDim>);
  const cudaError_t error = cudaFuncSetAttribute(
      WindowKernel<kHeadDim, kRotate>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const int64_t groups = (in.heads + kHeads - 1) / kHeads;
  if (segments > INT32_MAX || groups > kMaxGridDimension) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(segments), static_cast<unsigned>(groups));
  WindowKernel<kHeadDim, kRotate><<<grid, kThreads, kBytes, stream>>>(in);
  return cudaPeekAtLastError();
}

}  // namespace

int internal::WindowAttentionCuda(const SegmentAttentionArgs& args, const Stream& on) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(args.head_dim));
  const Launched in = {static_cast<const __nv_bfloat16*>(args.qkv),
                       static_cast<__nv_bfloat16*>(args.out),
                       args.device_offsets,
                       args.cosines,
                       args.sines,
                       args.heads,
                       scale * static_cast<float>(M_LOG2E)};
  const auto segments = static_cast<int64_t>(args.offsets.size()) - 1;
  const auto stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  if (args.head_dim == 64) {
    return args.cosines == nullptr ? Launch<64, false>(in, segments, stream)
                                   : Launch<64, true>(in, segments, stream);
  }
  return args.cosines == nullptr ? Launch<80, false>(in, segments, stream)
                                 : Launch<80, true>(in, segments, stream);
}

}  // namespace triptych::kernels
