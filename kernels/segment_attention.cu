// flash-attn 2's forward kernel, instantiated for head sizes up to 96: columns beyond head_dim are
// read as zeros and not written. Tiles of 64 queries for windows, of 128 for whole frames.

#include <cuda_runtime.h>
#include <flash.h>
#include <flash_fwd_kernel.h>

#include <algorithm>
#include <cmath>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/segment_attention.h"
#include "kernels/workspace.h"

// A named namespace: nvcc cannot tell unnamed ones of different headers apart.
namespace triptych::kernels::segment {

constexpr int kMaxHeadDim = 96;
constexpr int kKeys = 64;  // of one tile
constexpr int64_t kMaxGridDimension = 65535;

template <int kQueries>
using Traits =
    Flash_fwd_kernel_traits<kMaxHeadDim, kQueries, kKeys, /*warps=*/4,
                            /*Is_Q_in_regs=*/false, /*Share_Q_K_smem=*/false, cutlass::bfloat16_t>;

template <typename Tiles>
__global__ void __launch_bounds__(Tiles::kNThreads)
    SegmentKernel(const __grid_constant__ flash::Flash_fwd_params params) {
  // No dropout, mask, bias or cap; lengths and head size of any value.
  flash::compute_attn_1rowblock<Tiles, false, false, false, false, false, false, false, false>(
      params, blockIdx.y, blockIdx.z, blockIdx.x);
}

template <typename Tiles>
int Launch(const flash::Flash_fwd_params& params, cudaStream_t stream) {
  const cudaError_t error = cudaFuncSetAttribute(
      SegmentKernel<Tiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, Tiles::kSmemSize);
  if (error != cudaSuccess) return error;
  const dim3 grid((params.seqlen_q + Tiles::kBlockM - 1) / Tiles::kBlockM, params.b, params.h);
  SegmentKernel<Tiles><<<grid, Tiles::kNThreads, Tiles::kSmemSize, stream>>>(params);
  return cudaPeekAtLastError();
}

flash::Flash_fwd_params ParamsOf(const SegmentAttentionArgs& args, int32_t longest, void* lse) {
  const int64_t width = int64_t{args.heads} * args.head_dim;
  auto* qkv = static_cast<__nv_bfloat16*>(const_cast<void*>(args.qkv));
  flash::Flash_fwd_params params = {};
  params.q_ptr = qkv;
  params.k_ptr = qkv + width;
  params.v_ptr = qkv + 2 * width;
  params.q_row_stride = params.k_row_stride = params.v_row_stride = 3 * width;
  params.q_head_stride = params.k_head_stride = params.v_head_stride = args.head_dim;
  params.h = params.h_k = args.heads;
  params.h_h_k_ratio = 1;
  params.o_ptr = args.out;
  params.o_row_stride = width;
  params.o_head_stride = args.head_dim;
  params.softmax_lse_ptr = lse;
  params.unpadded_lse = true;
  params.seqlen_q = params.seqlen_k = longest;
  params.seqlen_q_rounded = params.seqlen_k_rounded = (longest + 127) / 128 * 128;
  params.total_q = args.offsets.back();
  params.d = args.head_dim;
  params.d_rounded = kMaxHeadDim;
  params.scale_softmax = 1.0f / std::sqrt(static_cast<float>(args.head_dim));
  params.scale_softmax_log2 = params.scale_softmax * static_cast<float>(M_LOG2E);
  params.p_dropout = params.rp_dropout = 1;
  params.window_size_left = params.window_size_right = -1;
  params.is_bf16 = params.is_seqlens_k_cumulative = true;
  params.num_splits = 1;
  return params;
}

}  // namespace triptych::kernels::segment

namespace triptych::kernels {

int internal::SegmentAttentionCuda(const SegmentAttentionArgs& args, const Stream& on) {
  const bool aligned = args.head_dim % 8 == 0 && IsAligned(args.qkv, 16) && IsAligned(args.out, 16);
  if (args.dtype != DType::kBFloat16 || args.head_dim > segment::kMaxHeadDim || !aligned ||
      args.heads > segment::kMaxGridDimension) {
    return cudaErrorNotSupported;
  }
  const int32_t longest = LongestSegment(args.offsets);
  if (longest == 0) return cudaSuccess;
  if (on.workspace == nullptr || args.device_offsets == nullptr) return cudaErrorInvalidValue;
  const WorkspaceScope scope(on.workspace);
  // The kernel writes the logarithms of its sums, which nobody reads.
  void* lse = on.workspace->Take(int64_t{args.offsets.back()} * args.heads * sizeof(float));
  flash::Flash_fwd_params params = segment::ParamsOf(args, longest, lse);
  const auto segments = static_cast<int64_t>(args.offsets.size()) - 1;
  for (int64_t begin = 0; begin < segments; begin += segment::kMaxGridDimension) {
    params.b = static_cast<int>(std::min(segment::kMaxGridDimension, segments - begin));
    params.cu_seqlens_q = params.cu_seqlens_k = const_cast<int32_t*>(args.device_offsets) + begin;
    const auto stream = static_cast<cudaStream_t>(CudaStreamOf(on));
    const int error = longest <= segment::kKeys
                          ? segment::Launch<segment::Traits<64>>(params, stream)
                          : segment::Launch<segment::Traits<128>>(params, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace triptych::kernels
