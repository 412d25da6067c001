// One block a patch: it reads lines of patch_size pixels, which the neighbour's lines follow in the
// same sectors of memory, and writes the patch as one run.

#include <cuda_runtime.h>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/patchify.h"

namespace triptych::kernels {
namespace {

constexpr int kThreads = 192;

// What a launch carries; the table (3 KiB of at most 4) travels by value.
struct Launched {
  const uint8_t* frames;
  void* out;
  int num_frames;
  int grid_h, grid_w;
  int patch_size, temporal_patch_size, merge_size;
  PixelTable table;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) PatchifyKernel(const __grid_constant__ Launched in) {
  __shared__ float table[3][256];
  for (int i = static_cast<int>(threadIdx.x); i < 3 * 256; i += kThreads) {
    table[i / 256][i % 256] = in.table.value[i / 256][i % 256];
  }
  __syncthreads();
  // Patches of a step lie unit by unit, units in reading order.
  const int step_patches = in.grid_h * in.grid_w;
  const int64_t patch = blockIdx.x;
  const int t = static_cast<int>(patch / step_patches);
  const int in_step = static_cast<int>(patch - int64_t{t} * step_patches);
  const int merge = in.merge_size, unit_patches = merge * merge;
  const int unit = in_step / unit_patches, in_unit = in_step - unit * unit_patches;
  const int units_wide = in.grid_w / merge;
  const int row = unit / units_wide * merge + in_unit / merge;
  const int column = unit % units_wide * merge + in_unit % merge;

  const int side = in.patch_size, plane = side * side;
  const int channel_elements = plane * in.temporal_patch_size;
  const int64_t line_bytes = int64_t{3} * in.grid_w * side;
  const int64_t frame_bytes = line_bytes * in.grid_h * side;
  const uint8_t* corner = in.frames + int64_t{row} * side * line_bytes + int64_t{3} * column * side;
  T* out = static_cast<T*>(in.out) + patch * 3 * channel_elements;
  for (int i = static_cast<int>(threadIdx.x); i < 3 * channel_elements; i += kThreads) {
    const int channel = i / channel_elements, in_channel = i - channel * channel_elements;
    const int f = in_channel / plane, in_plane = in_channel - f * plane;
    const int y = in_plane / side, x = in_plane - y * side;
    const int frame = min(t * in.temporal_patch_size + f, in.num_frames - 1);
    out[i] =
        Narrow<T>(table[channel][corner[frame * frame_bytes + y * line_bytes + 3 * x + channel]]);
  }
}

}  // namespace

int internal::PatchifyCuda(const PatchifyArgs& args, const Stream& on) {
  const auto stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  if (args.grid.patches() > INT32_MAX) return cudaErrorInvalidValue;
  const Launched in = {args.frames, args.out,        args.num_frames,          args.grid.h,
                       args.grid.w, args.patch_size, args.temporal_patch_size, args.merge_size,
                       *args.table};
  const auto patches = static_cast<unsigned>(args.grid.patches());
  if (args.dtype == DType::kFloat32) {
    PatchifyKernel<float><<<patches, kThreads, 0, stream>>>(in);
  } else {
    PatchifyKernel<__nv_bfloat16><<<patches, kThreads, 0, stream>>>(in);
  }
  return cudaPeekAtLastError();
}

}  // namespace triptych::kernels
