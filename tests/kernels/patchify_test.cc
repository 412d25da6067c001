// Defends patchify against its definition, value by value, on every device: one frame that stands
// for two, an odd number of frames, other patch and merge sizes.

#include "kernels/patchify.h"

#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

struct Shape {
  base::Grid grid;
  int frames, patch, temporal, merge;
};

constexpr Shape kShapes[] = {{{1, 2, 2}, 1, 14, 2, 2}, {{1, 4, 6}, 2, 14, 2, 2},
                             {{3, 4, 4}, 5, 14, 2, 2}, {{2, 3, 6}, 2, 4, 1, 3},
                             {{1, 1, 1}, 2, 16, 3, 1}, {{1, 32, 34}, 1, 14, 2, 2}};

constexpr float kMean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
constexpr float kDeviation[3] = {0.26862954f, 0.26130258f, 0.27577711f};

void CheckShape(Bench& bench, DType dtype, const Shape& shape) {
  const base::Grid& grid = shape.grid;
  INFO(DTypeName(dtype) << ", grid " << grid.t << " x " << grid.h << " x " << grid.w);
  std::mt19937 generator(static_cast<unsigned>(grid.w));
  const int64_t height = int64_t{grid.h} * shape.patch, width = int64_t{grid.w} * shape.patch;
  std::vector<uint8_t> pixels(shape.frames * height * width * 3);
  for (uint8_t& pixel : pixels) pixel = static_cast<uint8_t>(generator());
  const int64_t elements = int64_t{3} * shape.temporal * shape.patch * shape.patch;
  const PixelTable table = MakePixelTable(kMean, kDeviation);
  const DeviceBuffer frames = bench.Put(pixels);
  const StoredValues out = bench.Put(dtype, std::vector<float>(grid.patches() * elements, 99));
  bench.Require(Patchify({.frames = frames.as<uint8_t>(),
                          .num_frames = shape.frames,
                          .grid = grid,
                          .patch_size = shape.patch,
                          .temporal_patch_size = shape.temporal,
                          .merge_size = shape.merge,
                          .out = out.get(),
                          .table = &table,
                          .dtype = dtype},
                         bench.stream()));
  const std::vector<float> got = out.Read();
  int64_t wrong = 0, at = 0;
  for (int t = 0; t < grid.t; ++t) {
    for (int unit = 0; unit < grid.h / shape.merge * (grid.w / shape.merge); ++unit) {
      for (int inner = 0; inner < shape.merge * shape.merge; ++inner) {
        const int row = unit / (grid.w / shape.merge) * shape.merge + inner / shape.merge;
        const int column = unit % (grid.w / shape.merge) * shape.merge + inner % shape.merge;
        for (int i = 0; i < elements; ++i, ++at) {
          const int x = i % shape.patch, y = i / shape.patch % shape.patch;
          const int f = i / (shape.patch * shape.patch) % shape.temporal;
          const int c = i / (shape.patch * shape.patch * shape.temporal);
          const int frame = std::min(t * shape.temporal + f, shape.frames - 1);
          const int64_t pixel =
              ((frame * height + row * shape.patch + y) * width + column * shape.patch + x) * 3 + c;
          wrong += got[at] != Rounded(table.value[c][pixels[pixel]], dtype);
        }
      }
    }
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("Patchify: every pixel lands where its definition says", "[kernels]",
                   EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Shape& shape : kShapes) CheckShape(bench, dtype, shape);
  }
}

TEST_CASE("MakePixelTable: 0 to 255 are spread around the mean", "[kernels]") {
  const PixelTable table = MakePixelTable(kMean, kDeviation);
  for (int c = 0; c < 3; ++c) {
    CHECK(table.value[c][0] == Approx(-kMean[c] / kDeviation[c]).epsilon(1e-6));
    CHECK(table.value[c][255] == Approx((1 - kMean[c]) / kDeviation[c]).epsilon(1e-6));
  }
}

TEST_CASE("Patchify: refuses what it cannot run", "[kernels]") {
  const PixelTable table;
  std::vector<uint8_t> frames(28 * 28 * 3 * 3);
  std::vector<float> out(4 * 1176);
  const PatchifyArgs good{.frames = frames.data(),
                          .num_frames = 1,
                          .grid = {1, 2, 2},
                          .out = out.data(),
                          .table = &table};
  CHECK(Patchify(good, {}).ok());
  for (int fault = 0; fault < 6; ++fault) {
    PatchifyArgs args = good;
    if (fault == 0) args.table = nullptr;
    if (fault == 1) args.num_frames = 0;
    if (fault == 2) args.num_frames = 3;
    if (fault == 3) args.grid.h = 3;
    if (fault == 4) args.grid.t = 0;
    if (fault == 5) args.patch_size = 0;
    INFO(fault);
    CHECK(Patchify(args, {}).code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace triptych::kernels
