#pragma once

// 8-bit frames to normalised patches, the vision tower's input: a table of 256 values a channel
// replaces the arithmetic, so both devices give the same bits. Stateless; safe from any thread.

#include <cstdint>

#include "absl/status/status.h"
#include "base/dtype.h"
#include "base/grid.h"
#include "kernels/stream.h"

namespace triptych::kernels {

using base::DType;

// What an 8-bit value of each channel becomes, made once a model.
struct PixelTable {
  float value[3][256] = {};
};

// (value - mean * 255) / (deviation * 255), each step rounded to float32, as the published
// processors fold the division by 255. Means and deviations are of the values in [0, 1], RGB.
PixelTable MakePixelTable(const float (&mean)[3], const float (&deviation)[3]);

// Pointers are borrowed and, but for `table`, lie in the memory of the stream's device.
struct PatchifyArgs {
  // [num_frames, grid.h * patch_size, grid.w * patch_size, 3], RGB. num_frames is between
  // (grid.t - 1) * temporal_patch_size + 1 and grid.t * temporal_patch_size; the last frame stands
  // for those that lack.
  const uint8_t* frames = nullptr;
  int num_frames = 0;
  base::Grid grid;  // h and w are multiples of merge_size
  int patch_size = 14;
  int temporal_patch_size = 2;
  int merge_size = 2;
  // [grid.patches(), 3 (channel), temporal_patch_size, patch_size, patch_size]. The patches of one
  // merge unit are adjacent, units in reading order, frame by frame.
  void* out = nullptr;
  const PixelTable* table = nullptr;  // on the host; read before the call returns
  DType dtype = DType::kFloat32;      // of out
};

// Enqueues on a CUDA stream and does not synchronise; done on return on the CPU. InvalidArgument: a
// null pointer, a bad size or type. Unimplemented: CUDA in a build without it. Internal: the launch
// failed.
absl::Status Patchify(const PatchifyArgs& args, const Stream& stream);

namespace internal {
// Checked arguments. The CUDA one answers a cudaError_t.
void PatchifyCpu(const PatchifyArgs& args, ThreadPool* pool);
int PatchifyCuda(const PatchifyArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
