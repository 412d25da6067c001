// Windows have a kernel of ours, which rotates too; longer segments are rotated first.

#include <cuda_runtime.h>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/frame_attention.h"
#include "kernels/rotate.h"
#include "kernels/segment_attention.h"
#include "kernels/window_attention.h"

namespace triptych::kernels {
namespace {

int Frames([[maybe_unused]] const SegmentAttentionArgs& args,
           [[maybe_unused]] const Stream& stream) {
#ifdef TRIPTYCH_FLASHINFER
  if (args.cosines != nullptr) {
    const int error = internal::RotateCuda({.x = args.qkv,
                                            .x_stride = int64_t{3} * args.heads * args.head_dim,
                                            .tokens = args.offsets.back(),
                                            .heads = 2 * args.heads,
                                            .head_dim = args.head_dim,
                                            .cosines = args.cosines,
                                            .sines = args.sines,
                                            .dtype = args.dtype},
                                           stream);
    if (error != cudaSuccess) return error;
  }
  return internal::FrameAttentionCuda(args, stream);
#else
  return cudaErrorNotSupported;
#endif
}

}  // namespace

int internal::SegmentAttentionCuda(const SegmentAttentionArgs& args, const Stream& stream) {
  const bool aligned = args.head_dim % 8 == 0 && IsAligned(args.qkv, 16) &&
                       IsAligned(args.out, 16) && IsAligned(args.cosines, 16) &&
                       IsAligned(args.sines, 16);
  if (args.dtype != DType::kBFloat16 || args.head_dim > kMaxFrameHeadDim || !aligned) {
    return cudaErrorNotSupported;
  }
  const int32_t longest = LongestSegment(args.offsets);
  if (longest == 0) return cudaSuccess;
  if (args.device_offsets == nullptr) return cudaErrorInvalidValue;
  if (longest <= kMaxWindow && HasWindowAttention(args.head_dim)) {
    return WindowAttentionCuda(args, stream);
  }
  return Frames(args, stream);
}

}  // namespace triptych::kernels
