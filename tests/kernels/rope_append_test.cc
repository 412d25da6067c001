// Defends the rotation and the append against a float64 reference on both devices: float32 within
// 1e-6 of the pair's norm, bfloat16 within one rounding (2^-8) more; V exactly; and that nothing
// else in the pages is touched.

#include "kernels/rope_append.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "kernels/rope_append_angle.h"
#include "tests/kernels/device_buffer.h"
#include "tests/support/skip.h"

namespace triptych::kernels {
namespace {

constexpr float kUntouched = -7.0f;

struct Case {
  DType dtype;
  DType stored;
  int head_dim;
  std::vector<int> sections;
  int heads = 3;
  int kv_heads = 2;
  int64_t tokens = 21;
  int64_t padding = 0;  // elements after V in a row of the fused projection
};

double Tolerance(DType dtype) { return dtype == DType::kFloat32 ? 1e-6 : 1e-6 + 1.0 / 256; }

// One call's inputs and, after Run, what it left.
struct Scene {
  explicit Scene(const Case& given) : c(given) {
    std::mt19937 generator(5);
    layout = {.kv_heads = c.kv_heads, .head_dim = c.head_dim, .dtype = c.stored};
    stride = int64_t{c.heads + 2 * c.kv_heads} * c.head_dim + c.padding;
    qkv = RandomValues(&generator, c.tokens * stride, c.dtype);
    std::uniform_int_distribution<int32_t> position(0, 130'000);
    positions.resize(3 * c.tokens);
    for (int32_t& p : positions) p = position(generator);
    slots.resize(num_blocks * layout.block_tokens);
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), generator);
    slots.resize(c.tokens);
    slots[c.tokens / 2] = -1;
    table = MakeRopeTable(c.head_dim, 1e6, c.sections).value();
  }

  void Run(Device device) {
    const StoredValues rows(device, c.dtype, qkv);
    const int64_t elements = num_blocks * layout.block_elements();
    const StoredValues pool(device, c.stored, std::vector<float>(elements, kUntouched));
    const DeviceBuffer position_buffer(device, positions), slot_buffer(device, slots);
    char* q = static_cast<char*>(rows.get());
    char* k = q + int64_t{c.heads} * c.head_dim * SizeOf(c.dtype);
    char* v = k + layout.token_elements() * SizeOf(c.dtype);
    const absl::Status status = RopeAppend({.q = q,
                                            .k = k,
                                            .v = v,
                                            .q_stride = stride,
                                            .k_stride = stride,
                                            .v_stride = stride,
                                            .positions = position_buffer.as<int32_t>(),
                                            .slots = slot_buffer.as<int32_t>(),
                                            .pages = pool.get(),
                                            .num_blocks = num_blocks,
                                            .layout = layout,
                                            .tokens = c.tokens,
                                            .heads = c.heads,
                                            .dtype = c.dtype,
                                            .table = &table},
                                           {.device = device});
    REQUIRE(status.ok());
    Synchronize(device);
    qkv_after = rows.Read();
    pages_after = pool.Read();
  }

  Case c;
  KvLayout layout;
  int64_t num_blocks = 4;
  int64_t stride = 0;
  std::vector<float> qkv, qkv_after, pages_after;
  std::vector<int32_t> positions, slots;
  RopeTable table;
};

// Section by section: the axis of frequency i.
int AxisOf(const std::vector<int>& sections, int i) {
  if (sections.empty() || i < sections[0]) return 0;
  return i < sections[0] + sections[1] ? 1 : 2;
}

// How many of one head's elements are off the float64 rotation of `before`.
int CountWrongInHead(const Scene& scene, int64_t token, const float* before, const float* after,
                     DType stored) {
  const int half = scene.c.head_dim / 2;
  int wrong = 0;
  for (int i = 0; i < half; ++i) {
    const int32_t position = scene.positions[AxisOf(scene.c.sections, i) * scene.c.tokens + token];
    const float angle = static_cast<float>(position) * scene.table.inv_freq[i];
    const double cosine = std::cos(double{angle}), sine = std::sin(double{angle});
    const double a = before[i], b = before[half + i];
    const double allowed = Tolerance(stored) * std::hypot(a, b);
    if (!(std::abs(after[i] - (a * cosine - b * sine)) <= allowed)) ++wrong;
    if (!(std::abs(after[half + i] - (b * cosine + a * sine)) <= allowed)) ++wrong;
  }
  return wrong;
}

void CheckPages(Scene& scene) {
  const Case& c = scene.c;
  int wrong = 0;
  for (int64_t t = 0; t < c.tokens; ++t) {
    if (scene.slots[t] < 0) continue;
    float* key =
        scene.pages_after.data() + scene.layout.KeyOffset(scene.slots[t] / 16, scene.slots[t] % 16);
    float* value = key + scene.layout.half_block_elements();
    const float* k = scene.qkv.data() + t * scene.stride + c.heads * c.head_dim;
    const float* v = k + scene.layout.token_elements();
    for (int h = 0; h < c.kv_heads; ++h) {
      wrong += CountWrongInHead(scene, t, k + h * c.head_dim, key + h * c.head_dim, c.stored);
    }
    for (int64_t i = 0; i < scene.layout.token_elements(); ++i) {
      if (value[i] != Rounded(v[i], c.stored)) ++wrong;
      key[i] = value[i] = kUntouched;
    }
  }
  CHECK(wrong == 0);
  CHECK(std::count(scene.pages_after.begin(), scene.pages_after.end(), kUntouched) ==
        static_cast<int64_t>(scene.pages_after.size()));
}

void CheckCase(Device device, const Case& c) {
  INFO("dtype " << static_cast<int>(c.dtype) << " stored " << static_cast<int>(c.stored)
                << " head_dim " << c.head_dim << " padding " << c.padding);
  Scene scene(c);
  scene.Run(device);
  int wrong = 0;
  const int64_t q_row = int64_t{c.heads} * c.head_dim;
  for (int64_t t = 0; t < c.tokens; ++t) {
    const float* before = scene.qkv.data() + t * scene.stride;
    const float* after = scene.qkv_after.data() + t * scene.stride;
    for (int h = 0; h < c.heads; ++h) {
      wrong += CountWrongInHead(scene, t, before + h * c.head_dim, after + h * c.head_dim, c.dtype);
    }
    wrong += !std::equal(before + q_row, before + scene.stride, after + q_row);
  }
  CHECK(wrong == 0);
  CheckPages(scene);
}

void CheckCases(Device device) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (DType stored : {DType::kFloat32, DType::kBFloat16}) {
      CheckCase(device, {dtype, stored, 128, {16, 24, 24}, 28, 4});
      CheckCase(device, {dtype, stored, 64, {}});
      CheckCase(device, {dtype, stored, 256, {0, 100, 28}, 2, 1});
      CheckCase(device, {dtype, stored, 80, {10, 15, 15}, 3, 2, 21, 3});
      CheckCase(device, {dtype, stored, 6, {1, 1, 1}, 1, 1, 1});
    }
  }
}

TEST_CASE("RopeAppend: agrees with float64 on the CPU", "[kernels]") { CheckCases(Device::kCpu); }

TEST_CASE("RopeAppend: agrees with float64 on CUDA", "[kernels][gpu]") {
  if (!IsAtHand(Device::kCuda)) return testing::SkipTest("no GPU");
  CheckCases(Device::kCuda);
}

TEST_CASE("RopeAppend: on CUDA a token past the pool is not stored", "[kernels][gpu]") {
  if (!IsAtHand(Device::kCuda)) return testing::SkipTest("no GPU");
  Scene scene({DType::kBFloat16, DType::kBFloat16, 128, {16, 24, 24}});
  scene.slots.assign(scene.c.tokens, static_cast<int32_t>(scene.num_blocks * 16));
  scene.Run(Device::kCuda);
  CHECK(std::count(scene.pages_after.begin(), scene.pages_after.end(), kUntouched) ==
        static_cast<int64_t>(scene.pages_after.size()));
}

TEST_CASE("RopeSineCosine: within 0.51 ulp up to an angle of 2^20", "[kernels]") {
  std::mt19937 generator(3);
  double worst = 0;
  for (float limit : {1e-3f, 1.0f, 100.0f, 32768.0f, 1048575.0f}) {
    std::uniform_real_distribution<float> distribution(0, limit);
    for (int i = 0; i < 200'000; ++i) {
      const float angle = distribution(generator);
      const SineCosine got = RopeSineCosine(angle);
      const auto ulps = [](float value, long double want) {
        const float magnitude = static_cast<float>(std::abs(want));
        const float ulp = std::nextafter(magnitude, 2.0f) - magnitude;
        return static_cast<double>(std::abs(value - want) / ulp);
      };
      worst = std::max({worst, ulps(got.sine, std::sin(static_cast<long double>(angle))),
                        ulps(got.cosine, std::cos(static_cast<long double>(angle)))});
    }
  }
  CHECK(worst <= 0.51);
}

TEST_CASE("RopeAppend: a slot past the pool is refused and nothing is written", "[kernels]") {
  std::vector<float> qkv(3 * 4, 1.0f), pages(2 * 16 * 4, kUntouched);
  const std::vector<int32_t> positions = {1, 1, 1}, slots = {16};
  const RopeTable table = MakeRopeTable(4, 1e4, {}).value();
  RopeAppendArgs args = {.q = qkv.data(),
                         .k = qkv.data() + 4,
                         .v = qkv.data() + 8,
                         .q_stride = 12,
                         .k_stride = 12,
                         .v_stride = 12,
                         .positions = positions.data(),
                         .slots = slots.data(),
                         .pages = pages.data(),
                         .num_blocks = 1,
                         .layout = {.kv_heads = 1, .head_dim = 4},
                         .tokens = 1,
                         .heads = 1,
                         .table = &table};
  CHECK(RopeAppend(args, {}).code() == absl::StatusCode::kInvalidArgument);
  CHECK(qkv == std::vector<float>(12, 1.0f));
  CHECK(pages == std::vector<float>(128, kUntouched));
#ifndef TRIPTYCH_HAS_CUDA
  CHECK(RopeAppend(args, {.device = Device::kCuda}).code() == absl::StatusCode::kUnimplemented);
#endif
  args.q_stride = 3;
  CHECK(RopeAppend(args, {}).code() == absl::StatusCode::kInvalidArgument);
  args.q_stride = 12;
  args.layout.head_dim = 8;
  CHECK(RopeAppend(args, {}).code() == absl::StatusCode::kInvalidArgument);
  args.table = nullptr;
  CHECK(RopeAppend(args, {}).code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("MakeRopeTable: refuses sections that do not cover half a head", "[kernels]") {
  CHECK(MakeRopeTable(128, 1e6, {16, 24, 24}).ok());
  CHECK_FALSE(MakeRopeTable(128, 1e6, {16, 24, 23}).ok());
  CHECK_FALSE(MakeRopeTable(128, 1e6, {32, 32}).ok());
  CHECK_FALSE(MakeRopeTable(128, 1e6, {80, -8, -8}).ok());
  CHECK_FALSE(MakeRopeTable(127, 1e6, {}).ok());
  CHECK_FALSE(MakeRopeTable(258, 1e6, {}).ok());
  CHECK_FALSE(MakeRopeTable(128, 0, {}).ok());
}

}  // namespace
}  // namespace triptych::kernels
