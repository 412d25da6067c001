// Defends rotary, append and causal attention over paged KV as one op, against float64 on every
// device: page tables with holes, ragged batches of chunks and decode steps, grouped heads,
// strides, no rows; that a query sees nothing beyond itself, not even a NaN; and on the CPU that
// chunks, company and threads never change a bit.

#include "kernels/attention.h"

#include <numeric>

#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Tokens [first, first + count) of a sequence are in the batch; those before lie in its pages.
struct Row {
  int32_t first, count;
};

struct Shape {
  int heads, kv_heads, head_dim, block_tokens;
  int64_t qkv_pad, out_pad;
  std::vector<Row> rows;  // decode rows (count 1) first
};

const Shape kShapes[] = {
    {5, 1, 64, 16, 0, 0, {{290, 1}}},
    {5, 1, 64, 16, 0, 0, {{0, 1}, {15, 1}, {16, 1}, {0, 20}, {33, 60}}},
    {4, 2, 32, 16, 16, 8, {{7, 1}, {0, 49}, {100, 3}}},
    {2, 2, 80, 8, 0, 0, {{40, 1}, {3, 30}}},
    {28, 4, 128, 16, 0, 0, {{130, 1}, {17, 1}, {0, 35}}},
    // Several tiles of queries and keys, whole and not, on a device that cuts them so.
    {4, 2, 128, 16, 16, 8, {{61, 1}, {70, 257}, {0, 128}, {127, 2}}},
    {2, 1, 64, 16, 8, 0, {{5, 385}, {0, 192}}},
    // Nothing before the batch.
    {4, 2, 128, 16, 16, 8, {{0, 300}, {0, 2}, {0, 129}}},
    {2, 1, 64, 16, 0, 0, {{0, 200}, {0, 31}}},
    {6, 3, 8, 1, 0, 0, {{5, 1}, {0, 4}}},
    {3, 1, 64, 64, 0, 0, {}},
};

// A batch, its pages in a pool full of NaN, and the rotated keys and values that lie in them.
struct Scene {
  Scene(const Shape& given, DType type, DType stored) : shape(given), dtype(type) {
    layout = {.block_tokens = shape.block_tokens,
              .kv_heads = shape.kv_heads,
              .head_dim = shape.head_dim,
              .dtype = stored};
    auto made = MakeRopeTable(shape.head_dim, 10000.0, {});
    REQUIRE(made.ok());
    rope = *made;
    qkv_width = int64_t{shape.heads + 2 * shape.kv_heads} * shape.head_dim;
    qkv_stride = qkv_width + shape.qkv_pad;
    out_stride = int64_t{shape.heads} * shape.head_dim + shape.out_pad;
    CountPages();
    pool.assign(num_blocks * layout.block_elements(), kNan);
    for (size_t r = 0; r < shape.rows.size(); ++r) AddRow(r);
  }

  void CountPages() {
    query_begin = {0};
    page_begin = {0};
    decode_rows = 0;
    for (const Row& row : shape.rows) {
      decode_rows += row.count == 1 && query_begin.back() == decode_rows;
      query_begin.push_back(query_begin.back() + row.count);
      const int32_t used = (row.first + row.count + shape.block_tokens - 1) / shape.block_tokens;
      page_begin.push_back(page_begin.back() + used + 1);  // One page more than is needed.
    }
    num_blocks = page_begin.back() * 2 + 3;
    std::vector<int32_t> all(num_blocks);
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), generator);
    pages.assign(all.begin(), all.begin() + page_begin.back());
    // What lies beyond the needed pages is never read, so it may be anything.
    for (size_t r = 0; r < shape.rows.size(); ++r) pages[page_begin[r + 1] - 1] = -7;
  }

  int64_t Slot(size_t row, int64_t token) const {
    const int32_t page = pages[page_begin[row] + token / shape.block_tokens];
    return int64_t{page} * shape.block_tokens + token % shape.block_tokens;
  }
  int64_t KeyAt(size_t row, int64_t token) const {
    const int64_t slot = Slot(row, token);
    return layout.KeyOffset(static_cast<int32_t>(slot / shape.block_tokens),
                            static_cast<int>(slot % shape.block_tokens));
  }

  void AddRow(size_t r) {
    const Row& row = shape.rows[r];
    for (int64_t t = 0; t < row.first; ++t) {
      const std::vector<float> kv =
          RandomValues(&generator, 2 * layout.token_elements(), layout.dtype);
      for (int64_t i = 0; i < layout.token_elements(); ++i) {
        pool[KeyAt(r, t) + i] = kv[2 * i];
        pool[KeyAt(r, t) + layout.half_block_elements() + i] = kv[2 * i + 1];
      }
    }
    const std::vector<float> chunk = RandomValues(&generator, row.count * qkv_stride, dtype);
    qkv.insert(qkv.end(), chunk.begin(), chunk.end());
    for (int32_t t = row.first; t < row.first + row.count; ++t) {
      slots.push_back(static_cast<int32_t>(Slot(r, t)));
      token_begin_of.push_back(t);
    }
  }

  int64_t tokens() const { return query_begin.back(); }

  Shape shape;
  DType dtype;
  std::mt19937 generator{29};
  KvLayout layout;
  RopeTable rope;
  int64_t qkv_width, qkv_stride, out_stride, num_blocks;
  int32_t decode_rows;
  std::vector<int32_t> query_begin, page_begin, pages, slots, token_begin_of;
  std::vector<float> qkv, pool;
};

// One head of a token, rotated by its position, rounded as it is stored.
std::vector<double> Rotated(const Scene& scene, int64_t token, int64_t column, DType stored) {
  const int half = scene.layout.head_dim / 2;
  const float* x = &scene.qkv[token * scene.qkv_stride + column];
  std::vector<double> y(2 * half);
  for (int i = 0; i < half; ++i) {
    const float angle = static_cast<float>(scene.token_begin_of[token]) * scene.rope.inv_freq[i];
    const double c = std::cos(double{angle}), s = std::sin(double{angle});
    y[i] = Rounded(x[i] * c - x[i + half] * s, stored);
    y[i + half] = Rounded(x[i + half] * c + x[i] * s, stored);
  }
  return y;
}

// Key or value (half 0 or 1) of a token of a row: from the batch, or from the pages before it.
std::vector<double> Stored(const Scene& scene, size_t r, int64_t token, int kv_head, int half) {
  const KvLayout& layout = scene.layout;
  const Row& row = scene.shape.rows[r];
  std::vector<double> values(layout.head_dim);
  if (token < row.first) {
    const float* from = &scene.pool[scene.KeyAt(r, token) + half * layout.half_block_elements() +
                                    int64_t{kv_head} * layout.head_dim];
    std::copy_n(from, layout.head_dim, values.begin());
    return values;
  }
  const int64_t at = scene.query_begin[r] + token - row.first;
  const int64_t column =
      int64_t{scene.shape.heads + half * layout.kv_heads + kv_head} * layout.head_dim;
  if (half == 0) return Rotated(scene, at, column, layout.dtype);
  for (int d = 0; d < layout.head_dim; ++d) {
    values[d] = Rounded(scene.qkv[at * scene.qkv_stride + column + d], layout.dtype);
  }
  return values;
}

// [tokens, heads, head_dim].
std::vector<double> Reference(const Scene& scene) {
  const int head_dim = scene.layout.head_dim, heads = scene.shape.heads;
  const int group = heads / scene.shape.kv_heads;
  std::vector<double> out;
  for (size_t r = 0; r < scene.shape.rows.size(); ++r) {
    for (int32_t i = 0; i < scene.shape.rows[r].count; ++i) {
      for (int h = 0; h < heads; ++h) {
        const std::vector<double> q =
            Rotated(scene, scene.query_begin[r] + i, int64_t{h} * head_dim, scene.dtype);
        std::vector<double> sum(head_dim, 0);
        double total = 0;
        for (int64_t t = 0; t <= scene.shape.rows[r].first + i; ++t) {
          const std::vector<double> k = Stored(scene, r, t, h / group, 0);
          const double dot = std::inner_product(q.begin(), q.end(), k.begin(), 0.0);
          const double weight = std::exp(dot / std::sqrt(head_dim));
          const std::vector<double> v = Stored(scene, r, t, h / group, 1);
          total += weight;
          for (int d = 0; d < head_dim; ++d) sum[d] += weight * v[d];
        }
        for (double value : sum) out.push_back(value / total);
      }
    }
  }
  return out;
}

// What the device made of a scene.
struct Outcome {
  std::vector<float> out, pool;
};

Outcome Run(Bench& bench, const Scene& scene, const Stream& stream) {
  const StoredValues qkv = bench.Put(scene.dtype, scene.qkv);
  const StoredValues pool = bench.Put(scene.layout.dtype, scene.pool);
  const StoredValues out =
      bench.Put(scene.dtype, std::vector<float>(scene.tokens() * scene.out_stride, 99));
  const DeviceBuffer query_begin = bench.Put(scene.query_begin), pages = bench.Put(scene.pages);
  const DeviceBuffer page_begin = bench.Put(scene.page_begin), slots = bench.Put(scene.slots);
  std::vector<int32_t> first, positions;
  for (const Row& row : scene.shape.rows) first.push_back(row.first);
  for (int axis = 0; axis < 3; ++axis) {
    positions.insert(positions.end(), scene.token_begin_of.begin(), scene.token_begin_of.end());
  }
  const DeviceBuffer token_begin = bench.Put(first), positions_put = bench.Put(positions);
  const AttentionRows rows{
      .rows = static_cast<int32_t>(first.size()),
      .decode_rows = scene.decode_rows,
      .tokens = scene.tokens(),
      .pages = scene.page_begin.back(),
      .host = {scene.query_begin.data(), first.data(), scene.page_begin.data(), scene.pages.data()},
      .device = {query_begin.as<int32_t>(), token_begin.as<int32_t>(), page_begin.as<int32_t>(),
                 pages.as<int32_t>()}};
  AttentionPlan plan;
  bench.Require(plan.Make(rows, scene.layout, scene.num_blocks, scene.shape.heads, stream));
  bench.Require(AppendAndAttend({.qkv = qkv.get(),
                                 .qkv_stride = scene.qkv_stride,
                                 .out = out.get(),
                                 .out_stride = scene.out_stride,
                                 .heads = scene.shape.heads,
                                 .pool = pool.get(),
                                 .num_blocks = scene.num_blocks,
                                 .layout = scene.layout,
                                 .rope = &scene.rope,
                                 .positions = positions_put.as<int32_t>(),
                                 .slots = slots.as<int32_t>(),
                                 .plan = &plan,
                                 .dtype = scene.dtype},
                                stream));
  return {out.Read(), pool.Read()};
}

// Rows without what lies between them, which must be untouched.
std::vector<float> Unstrided(const Scene& scene, const std::vector<float>& out) {
  const int64_t width = int64_t{scene.shape.heads} * scene.layout.head_dim;
  std::vector<float> rows;
  int touched = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const bool inside = static_cast<int64_t>(i) % scene.out_stride < width;
    if (inside) rows.push_back(out[i]);
    touched += !inside && out[i] != 99;
  }
  CHECK(touched == 0);
  return rows;
}

// Everything that the pages hold of the batch, and nothing else, has changed.
int CountPoolFaults(const Scene& scene, const std::vector<float>& pool) {
  std::vector<double> want(scene.pool.begin(), scene.pool.end());
  for (size_t r = 0; r < scene.shape.rows.size(); ++r) {
    for (int32_t i = 0; i < scene.shape.rows[r].count; ++i) {
      const int64_t token = scene.shape.rows[r].first + i;
      for (int half = 0; half < 2; ++half) {
        for (int head = 0; head < scene.shape.kv_heads; ++head) {
          const std::vector<double> values = Stored(scene, r, token, head, half);
          std::copy(values.begin(), values.end(),
                    want.begin() + scene.KeyAt(r, token) +
                        half * scene.layout.half_block_elements() +
                        int64_t{head} * scene.layout.head_dim);
        }
      }
    }
  }
  int wrong = 0;
  for (size_t i = 0; i < pool.size(); ++i) {
    if (std::isnan(want[i])) {
      wrong += !std::isnan(pool[i]);
    } else {
      wrong += !(std::abs(pool[i] - want[i]) <= 4e-6 + 4 * Rounding(scene.layout.dtype));
    }
  }
  return wrong;
}

TEMPLATE_TEST_CASE("AppendAndAttend: agrees with float64", "[kernels][attention]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  struct Types {
    DType dtype, stored;
  };
  for (const Types& types :
       {Types{DType::kFloat32, DType::kFloat32}, Types{DType::kFloat32, DType::kBFloat16},
        Types{DType::kBFloat16, DType::kBFloat16}}) {
    if (!bench.cpu() && types.dtype == DType::kFloat32) continue;  // A GPU serves bfloat16 alone.
    for (const Shape& shape : kShapes) {
      // Its kernels are made for the head sizes of language models.
      if (!bench.cpu() && shape.head_dim != 64 && shape.head_dim != 128) continue;
      INFO(DTypeName(types.dtype) << " on " << DTypeName(types.stored) << ", " << shape.heads
                                  << " heads on " << shape.kv_heads << " of " << shape.head_dim);
      const Scene scene(shape, types.dtype, types.stored);
      const Outcome got = Run(bench, scene, bench.stream());
      // A key that is stored as bfloat16 may be rounded the other way than the reference's.
      const double tolerance = types.dtype != DType::kFloat32    ? 1e-2
                               : types.stored != DType::kFloat32 ? 1e-3
                                                                 : 1e-5;
      CHECK(CountOff(Unstrided(scene, got.out), Reference(scene), tolerance) == 0);
      CHECK(CountPoolFaults(scene, got.pool) == 0);
    }
  }
}

// The same scene with a NaN in one part (0 Q, 1 K, 2 V) of batch token `token`.
Scene Spoiled(const Shape& shape, DType dtype, int part, int64_t token) {
  Scene scene(shape, dtype, dtype);
  const int64_t column = part == 0   ? 0
                         : part == 1 ? int64_t{shape.heads} * shape.head_dim
                                     : int64_t{shape.heads + shape.kv_heads} * shape.head_dim;
  scene.qkv[token * scene.qkv_stride + column + 3] = kNan;
  return scene;
}

TEMPLATE_TEST_CASE("AppendAndAttend: a NaN shows in every query that sees it, and in no other",
                   "[kernels][attention]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  const DType dtype = bench.cpu() ? DType::kFloat32 : DType::kBFloat16;
  const Shape shape{5, 1, 64, 16, 0, 0, {{20, 1}, {3, 40}}};  // Token 12 of the batch: 14 of row 1.
  for (int part = 0; part < 3; ++part) {
    INFO("part " << part);
    const Scene scene = Spoiled(shape, dtype, part, 12);
    const std::vector<float> out = Unstrided(scene, Run(bench, scene, bench.stream()).out);
    int leaked = 0, missed = 0;
    for (int64_t i = 0; i < scene.tokens(); ++i) {
      for (int64_t d = 0; d < 5 * 64; ++d) {
        const bool spoiled = part == 0   ? i == 12 && d < 64
                             : part == 1 ? i >= 12
                                         : i >= 12 && d % 64 == 3;
        const bool is_nan = std::isnan(out[i * 5 * 64 + d]);
        // On a GPU a value that is not seen is weighed by 0, which a NaN survives.
        const bool weighed_by_zero = !bench.cpu() && part == 2 && i > 0 && d % 64 == 3;
        leaked += is_nan && !spoiled && !weighed_by_zero;
        missed += !is_nan && spoiled;
      }
    }
    CHECK(leaked == 0);
    CHECK(missed == 0);
  }
}

TEST_CASE("AppendAndAttend: chunks, company and threads never change a bit on the CPU",
          "[kernels][attention]") {
  Bench bench(Device::kCpu);
  const Shape whole{5, 1, 64, 16, 0, 0, {{0, 70}}};
  const Scene scene(whole, DType::kFloat32, DType::kFloat32);
  const std::vector<float> together = Run(bench, scene, bench.stream()).out;
  for (int threads : {1, 2, 8}) {
    ThreadPool pool(threads);
    Scene part = scene;
    std::vector<float> apart;
    for (int32_t begin = 0, count = 1; begin < 70; begin += count, count = count % 23 + 5) {
      count = std::min(count, 70 - begin);
      part.shape.rows = {{begin, count}};
      part.query_begin = {0, count};
      part.decode_rows = count == 1 ? 1 : 0;
      part.qkv.assign(scene.qkv.begin() + begin * scene.qkv_stride,
                      scene.qkv.begin() + (begin + count) * scene.qkv_stride);
      part.slots.assign(scene.slots.begin() + begin, scene.slots.begin() + begin + count);
      part.token_begin_of.assign(scene.token_begin_of.begin() + begin,
                                 scene.token_begin_of.begin() + begin + count);
      const Outcome outcome = Run(bench, part, {.pool = &pool});
      part.pool = outcome.pool;
      apart.insert(apart.end(), outcome.out.begin(), outcome.out.end());
    }
    CHECK(apart == together);
  }
}

TEST_CASE("AttentionPlan: refuses what does not fit", "[kernels][attention]") {
  const KvLayout layout{.block_tokens = 16, .kv_heads = 2, .head_dim = 8};
  const std::vector<int32_t> query_begin = {0, 1, 21}, first = {40, 0}, page_begin = {0, 3, 5};
  std::vector<int32_t> pages = {4, 2, 0, 1, 3};
  const AttentionRows::Arrays arrays{query_begin.data(), first.data(), page_begin.data(),
                                     pages.data()};
  const AttentionRows good{
      .rows = 2, .decode_rows = 1, .tokens = 21, .pages = 5, .host = arrays, .device = arrays};
  AttentionPlan plan;
  REQUIRE(plan.Make(good, layout, 5, 4, {}).ok());
  CHECK(plan.Make(good, layout, 4, 4, {}).code() == absl::StatusCode::kInvalidArgument);
  CHECK(plan.Make(good, layout, 5, 3, {}).code() == absl::StatusCode::kInvalidArgument);
  for (int fault = 0; fault < 6; ++fault) {
    AttentionRows rows = good;
    std::vector<int32_t> begins = query_begin, firsts = first;
    if (fault == 0) rows.decode_rows = 2;
    if (fault == 1) rows.tokens = 20;
    if (fault == 2) rows.pages = 4;
    if (fault == 3) firsts[0] = 48;
    if (fault == 4) firsts[1] = -1;
    if (fault == 5) begins[1] = 22;
    rows.host.query_begin = begins.data();
    rows.host.token_begin = firsts.data();
    INFO(fault);
    CHECK(plan.Make(rows, layout, 5, 4, {}).code() == absl::StatusCode::kInvalidArgument);
  }
  pages[2] = -1;
  CHECK(plan.Make(good, layout, 5, 4, {}).code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace triptych::kernels
