#include <algorithm>

#include "kernels/patchify.h"
#include "kernels/storage_types.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

// One frame of one patch: a square of the frame, channel by channel.
template <typename T>
void WriteSquare(const PatchifyArgs& args, const uint8_t* pixels, int64_t channel_elements,
                 T* out) {
  const int64_t line_bytes = int64_t{3} * args.grid.w * args.patch_size;
  for (int channel = 0; channel < 3; ++channel, out += channel_elements) {
    const float* value = args.table->value[channel];
    T* to = out;
    for (int y = 0; y < args.patch_size; ++y) {
      const uint8_t* line = pixels + y * line_bytes + channel;
      for (int x = 0; x < args.patch_size; ++x) StoreFloat(value[line[3 * x]], to++);
    }
  }
}

// A line of merge units: grid.w * merge_size patches of step `t`.
template <typename T>
void WriteUnitLine(const PatchifyArgs& args, int32_t t, int32_t unit_line) {
  const base::Grid& grid = args.grid;
  const int merge = args.merge_size, side = args.patch_size;
  const int64_t plane = int64_t{side} * side;
  const int64_t channel_elements = plane * args.temporal_patch_size;
  const int64_t frame_bytes = int64_t{3} * grid.h * side * grid.w * side;
  const int64_t first = (int64_t{t} * grid.h + unit_line * merge) * grid.w;
  T* out = static_cast<T*>(args.out) + first * 3 * channel_elements;
  for (int32_t unit = 0; unit < grid.w; unit += merge) {
    for (int i = 0; i < merge * merge; ++i, out += 3 * channel_elements) {
      const int64_t row = unit_line * merge + i / merge, column = unit + i % merge;
      const int64_t corner = 3 * (row * side * grid.w * side + column * side);
      for (int f = 0; f < args.temporal_patch_size; ++f) {
        const int frame = std::min(t * args.temporal_patch_size + f, args.num_frames - 1);
        WriteSquare(args, args.frames + frame * frame_bytes + corner, channel_elements,
                    out + f * plane);
      }
    }
  }
}

}  // namespace

void internal::PatchifyCpu(const PatchifyArgs& args, ThreadPool* pool) {
  const int32_t lines = args.grid.h / args.merge_size;
  const auto write = args.dtype == DType::kFloat32 ? WriteUnitLine<float> : WriteUnitLine<BFloat16>;
  ParallelFor(pool, int64_t{args.grid.t} * lines, [&](int64_t slice) {
    write(args, static_cast<int32_t>(slice / lines), static_cast<int32_t>(slice % lines));
  });
}

}  // namespace triptych::kernels
