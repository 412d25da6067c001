#include "kernels/patchify.h"

#include "base/status.h"
#include "kernels/op_status.h"

namespace triptych::kernels {
namespace {

absl::Status Check(const PatchifyArgs& args) {
  const base::Grid& grid = args.grid;
  const bool sized = args.patch_size >= 1 && args.temporal_patch_size >= 1 && args.merge_size >= 1;
  if (!sized || grid.t < 1 || grid.h < 1 || grid.w < 1 || grid.h % args.merge_size != 0 ||
      grid.w % args.merge_size != 0 || !IsActivation(args.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Patchify: grid ", grid.t, " x ", grid.h, " x ", grid.w, ", patches of ",
                     args.patch_size, ", merge ", args.merge_size, ", ", DTypeName(args.dtype)));
  }
  const int64_t most = int64_t{grid.t} * args.temporal_patch_size;
  if (args.num_frames <= most - args.temporal_patch_size || args.num_frames > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("Patchify: ", args.num_frames, " frames for ", grid.t, " steps"));
  }
  if (args.frames == nullptr || args.out == nullptr || args.table == nullptr) {
    return absl::InvalidArgumentError("Patchify: null pointer");
  }
  return absl::OkStatus();
}

}  // namespace

PixelTable MakePixelTable(const float (&mean)[3], const float (&deviation)[3]) {
  PixelTable table;
  constexpr float kScale = 255.0f;
  for (int c = 0; c < 3; ++c) {
    const float shift = mean[c] * kScale, divisor = deviation[c] * kScale;
    for (int value = 0; value < 256; ++value) {
      table.value[c][value] = (static_cast<float>(value) - shift) / divisor;
    }
  }
  return table;
}

absl::Status Patchify(const PatchifyArgs& args, const Stream& stream) {
  RETURN_IF_ERROR(Check(args));
  if (stream.device == Device::kCpu) {
    internal::PatchifyCpu(args, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("Patchify", internal::PatchifyCuda(args, stream));
#else
  return NoCudaSide("Patchify");
#endif
}

}  // namespace triptych::kernels
