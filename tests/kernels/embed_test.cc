// Defends the splice of a step's inputs on every device: table, pool of visual tokens and ring of
// sampled tokens, every mixture of types, and that an input that names nothing gives zeros and
// tells its row.

#include "kernels/embed.h"

#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

constexpr int64_t kVocab = 50, kSlots = 9, kRing = 5;

struct Shape {
  int64_t width, pool_stride;
  DType table, pool, out;
};

constexpr DType kF = DType::kFloat32, kB = DType::kBFloat16;
constexpr Shape kShapes[] = {{320, 320, kF, kF, kF}, {320, 320, kB, kF, kF}, {32, 96, kB, kB, kB},
                             {7, 9, kF, kB, kB},     {1, 1, kB, kB, kF},     {33, 33, kF, kF, kB}};

// Every kind of input, twice each of the good ones.
const std::vector<int32_t> kInputs = {0,
                                      49,
                                      EmbedSlot(kVocab, 0),
                                      EmbedSlot(kVocab, 8),
                                      EmbedSampled(0),
                                      EmbedSampled(3),
                                      7,
                                      7,
                                      EmbedSlot(kVocab, 4),
                                      EmbedSampled(1),
                                      -1,
                                      EmbedSlot(kVocab, 9),
                                      EmbedSampled(4),
                                      EmbedSampled(2),
                                      INT32_MAX,
                                      INT32_MIN,
                                      EmbedSampled(5),
                                      EmbedSampled(6)};
constexpr size_t kGood = 10;  // Ring entries 2 and 4 hold ids outside.
const std::vector<int32_t> kSampled = {3, 49, -1, 12, static_cast<int32_t>(kVocab) + 2};

void CheckShape(Bench& bench, const Shape& shape) {
  INFO("width " << shape.width << ", " << DTypeName(shape.table) << " " << DTypeName(shape.pool)
                << " " << DTypeName(shape.out));
  std::mt19937 generator(static_cast<unsigned>(shape.width));
  const std::vector<float> table = RandomValues(&generator, kVocab * shape.width, shape.table);
  const std::vector<float> pool = RandomValues(&generator, kSlots * shape.pool_stride, shape.pool);
  const auto tokens = static_cast<int64_t>(kInputs.size());
  std::vector<int32_t> rows(tokens);
  for (int64_t i = 0; i < tokens; ++i) rows[i] = static_cast<int32_t>(i / 2);
  const StoredValues table_stored = bench.Put(shape.table, table);
  const StoredValues pool_stored = bench.Put(shape.pool, pool);
  const StoredValues out = bench.Put(shape.out, std::vector<float>(tokens * shape.width, 77));
  const DeviceBuffer inputs = bench.Put(kInputs), sampled = bench.Put(kSampled);
  const DeviceBuffer row_of_token = bench.Put(rows);
  const DeviceBuffer errors = bench.Put(std::vector<int32_t>(tokens / 2, 0));
  bench.Require(Embed({.inputs = inputs.as<int32_t>(),
                       .tokens = tokens,
                       .table = table_stored.get(),
                       .vocab_size = kVocab,
                       .pool = pool_stored.get(),
                       .pool_slots = kSlots,
                       .pool_stride = shape.pool_stride,
                       .sampled = sampled.as<int32_t>(),
                       .sampled_size = kRing,
                       .out = out.get(),
                       .width = shape.width,
                       .row_of_token = row_of_token.as<int32_t>(),
                       .errors = errors.as<int32_t>(),
                       .table_dtype = shape.table,
                       .pool_dtype = shape.pool,
                       .dtype = shape.out},
                      bench.stream()));
  const std::vector<float> got = out.Read();
  int wrong = 0;
  for (int64_t i = 0; i < tokens * shape.width; ++i) {
    const int32_t input = kInputs[i / shape.width];
    const int64_t column = i % shape.width;
    float want = 0;
    if (static_cast<size_t>(i / shape.width) < kGood) {
      want = input >= kVocab ? pool[(input - kVocab) * shape.pool_stride + column]
             : input >= 0    ? table[input * shape.width + column]
                             : table[kSampled[-2 - input] * shape.width + column];
    }
    wrong += got[i] != Rounded(want, shape.out);
  }
  CHECK(wrong == 0);
  CHECK(errors.Read<int32_t>() == std::vector<int32_t>{0, 0, 0, 0, 0, 1, 1, 1, 1});
}

TEMPLATE_TEST_CASE("Embed: each input comes from where it says; others are zeros, and told",
                   "[kernels]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  for (const Shape& shape : kShapes) CheckShape(bench, shape);
}

TEST_CASE("Embed: refuses what it cannot run", "[kernels]") {
  float x[8] = {};
  const int32_t input = 0;
  const EmbedArgs good{
      .inputs = &input, .tokens = 1, .table = x, .vocab_size = 2, .out = x, .width = 4};
  CHECK(Embed(good, {}).ok());
  for (int fault = 0; fault < 6; ++fault) {
    EmbedArgs args = good;
    if (fault == 0) args.table = nullptr;
    if (fault == 1) args.pool_slots = 1;
    if (fault == 2) args.sampled_size = 1;
    if (fault == 3) args.pool_stride = 3;
    if (fault == 4) args.vocab_size = int64_t{1} << 31;
    if (fault == 5) args.row_of_token = &input;
    INFO(fault);
    CHECK(Embed(args, {}).code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace triptych::kernels
