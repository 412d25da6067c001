// Defends the gathering and scattering of rows, bit for bit, on every device: strided on both
// sides, every element size, indices outside.

#include "kernels/move_rows.h"

#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

struct Shape {
  int64_t rows, indexed_rows, width, x_stride, out_stride;
  DType dtype;
};

constexpr Shape kShapes[] = {{0, 4, 8, 8, 8, DType::kFloat32},
                             {5, 5, 1280, 1280, 1280, DType::kFloat32},
                             {6, 40, 33, 37, 35, DType::kBFloat16},
                             {3, 7, 5, 5, 6, DType::kE4M3},
                             {300, 300, 64, 64, 64, DType::kBFloat16}};

using Bytes = std::vector<uint8_t>;

Bytes RandomBytes(std::mt19937* generator, int64_t count) {
  Bytes bytes(count);
  for (uint8_t& value : bytes) value = static_cast<uint8_t>((*generator)());
  return bytes;
}

// Distinct rows in any order, the last of several outside.
std::vector<int32_t> RandomIndices(std::mt19937* generator, const Shape& shape) {
  std::vector<int32_t> indices(shape.indexed_rows);
  for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int32_t>(i);
  std::shuffle(indices.begin(), indices.end(), *generator);
  indices.resize(shape.rows);
  if (shape.rows > 3) {
    indices[shape.rows - 1] = -1;
    indices[shape.rows - 2] = static_cast<int32_t>(shape.indexed_rows);
  }
  return indices;
}

void CheckShape(Bench& bench, const Shape& shape, internal::MoveRowsDirection direction) {
  const bool gather = direction == internal::MoveRowsDirection::kGather;
  INFO((gather ? "gather " : "scatter ")
       << shape.rows << " of " << shape.indexed_rows << ", width " << shape.width);
  std::mt19937 generator(static_cast<unsigned>(shape.width));
  const int64_t size = SizeOf(shape.dtype), row_bytes = shape.width * size;
  const int64_t x_rows = gather ? shape.indexed_rows : shape.rows;
  const int64_t out_rows = gather ? shape.rows : shape.indexed_rows;
  const Bytes x = RandomBytes(&generator, x_rows * shape.x_stride * size);
  Bytes want = RandomBytes(&generator, out_rows * shape.out_stride * size);
  const std::vector<int32_t> indices = RandomIndices(&generator, shape);
  const DeviceBuffer x_put = bench.Put(x), out = bench.Put(want), put = bench.Put(indices);
  for (int64_t i = 0; i < shape.rows; ++i) {
    const bool inside = indices[i] >= 0 && indices[i] < shape.indexed_rows;
    const int64_t from = (gather ? indices[i] : i) * shape.x_stride * size;
    const int64_t to = (gather ? i : indices[i]) * shape.out_stride * size;
    if (inside) std::copy_n(x.begin() + from, row_bytes, want.begin() + to);
    if (!inside && gather) std::fill_n(want.begin() + to, row_bytes, uint8_t{0});
  }
  const MoveRowsArgs args{.x = x_put.get(),
                          .x_stride = shape.x_stride,
                          .out = out.get(),
                          .out_stride = shape.out_stride,
                          .indices = put.as<int32_t>(),
                          .rows = shape.rows,
                          .indexed_rows = shape.indexed_rows,
                          .width = shape.width,
                          .dtype = shape.dtype};
  bench.Require(gather ? GatherRows(args, bench.stream()) : ScatterRows(args, bench.stream()));
  CHECK(out.Read<uint8_t>() == want);
}

TEMPLATE_TEST_CASE("GatherRows, ScatterRows: move exactly the rows that are named", "[kernels]",
                   EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  for (const Shape& shape : kShapes) {
    CheckShape(bench, shape, internal::MoveRowsDirection::kGather);
    CheckShape(bench, shape, internal::MoveRowsDirection::kScatter);
  }
}

TEST_CASE("GatherRows, ScatterRows: refuse what they cannot run", "[kernels]") {
  float x[8] = {}, out[8] = {};
  const int32_t index = 0;
  const MoveRowsArgs good{
      .x = x, .out = out, .indices = &index, .rows = 1, .indexed_rows = 1, .width = 4};
  CHECK(GatherRows(good, {}).ok());
  for (int fault = 0; fault < 4; ++fault) {
    MoveRowsArgs args = good;
    if (fault == 0) args.indices = nullptr;
    if (fault == 1) args.x_stride = 3;
    if (fault == 2) args.out_stride = 3;
    if (fault == 3) args.rows = -1;
    CHECK(GatherRows(args, {}).code() == absl::StatusCode::kInvalidArgument);
    CHECK(ScatterRows(args, {}).code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace triptych::kernels
