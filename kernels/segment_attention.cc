#include "kernels/segment_attention.h"

#include <algorithm>

#include "base/status.h"
#include "kernels/op_status.h"
#include "kernels/rotate.h"

namespace triptych::kernels {
namespace {

absl::Status CheckSegments(const SegmentAttentionArgs& args) {
  if (args.qkv == nullptr || args.out == nullptr || args.heads < 1 || args.head_dim < 1 ||
      !IsActivation(args.dtype)) {
    return absl::InvalidArgumentError("SegmentAttention: null pointer, bad size or type");
  }
  if ((args.cosines == nullptr) != (args.sines == nullptr) ||
      (args.cosines != nullptr && args.head_dim % 2 != 0)) {
    return absl::InvalidArgumentError("SegmentAttention: half of the angles");
  }
  if (args.offsets[0] != 0 || !std::is_sorted(args.offsets.begin(), args.offsets.end())) {
    return absl::InvalidArgumentError("SegmentAttention: offsets do not ascend from 0");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SegmentAttention(const SegmentAttentionArgs& args, const Stream& stream) {
  if (args.offsets.size() < 2) return absl::OkStatus();
  RETURN_IF_ERROR(CheckSegments(args));
  if (stream.device == Device::kCpu) {
    if (args.cosines != nullptr) {
      RETURN_IF_ERROR(Rotate({.x = args.qkv,
                              .x_stride = int64_t{3} * args.heads * args.head_dim,
                              .tokens = args.offsets.back(),
                              .heads = 2 * args.heads,
                              .head_dim = args.head_dim,
                              .cosines = args.cosines,
                              .sines = args.sines,
                              .dtype = args.dtype},
                             stream));
    }
    internal::SegmentAttentionCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("SegmentAttention", internal::SegmentAttentionCuda(args, stream));
#else
  return NoCudaSide("SegmentAttention");
#endif
}

int32_t LongestSegment(absl::Span<const int32_t> offsets) {
  int32_t longest = 0;
  for (size_t i = 1; i < offsets.size(); ++i) {
    longest = std::max(longest, offsets[i] - offsets[i - 1]);
  }
  return longest;
}

}  // namespace triptych::kernels
