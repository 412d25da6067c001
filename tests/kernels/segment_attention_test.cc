// Defends attention inside segments against float64 on every device: ragged and empty segments,
// head sizes of towers, with rotation and without; and that nothing crosses a border, not even a
// NaN.

#include "kernels/segment_attention.h"

#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

struct Shape {
  int heads, head_dim;
  std::vector<int32_t> offsets;
};

const Shape kShapes[] = {{1, 8, {0, 1}},
                         {2, 80, {0, 64, 64, 100, 117}},
                         {3, 64, {0, 5, 210}},
                         {2, 44, {0, 16, 32, 33}},
                         {1, 64, {0}},
                         {4, 80, {0, 784}},
                         {16, 80, {0, 130, 131, 259}},
                         {6, 80, {0, 64, 128, 129, 129, 190}},
                         {4, 64, {0, 63, 64, 110}},
                         {2, 96, {0, 40, 400}}};

// Angles of each token, [tokens, head_dim / 2].
struct Angles {
  std::vector<float> cosines, sines;
};

Angles AnglesOf(const Shape& shape) {
  Angles angles;
  const int half = shape.head_dim / 2;
  for (int32_t i = 0; i < shape.offsets.back() * half; ++i) {
    const double angle = 0.37 * (i / half) / (1 + i % half);
    angles.cosines.push_back(static_cast<float>(std::cos(angle)));
    angles.sines.push_back(static_cast<float>(std::sin(angle)));
  }
  return angles;
}

// Q and K turned, V as it is.
std::vector<double> Turned(const Shape& shape, const std::vector<float>& qkv,
                           const Angles& angles) {
  std::vector<double> turned(qkv.begin(), qkv.end());
  const int half = shape.head_dim / 2;
  const int64_t width = int64_t{shape.heads} * shape.head_dim;
  for (int64_t i = 0; i < shape.offsets.back(); ++i) {
    for (int64_t h = 0; h < 2 * shape.heads; ++h) {
      for (int d = 0; d < half; ++d) {
        const int64_t low = i * 3 * width + h * shape.head_dim + d, high = low + half;
        const double c = angles.cosines[i * half + d], s = angles.sines[i * half + d];
        turned[low] = qkv[low] * c - qkv[high] * s;
        turned[high] = qkv[high] * c + qkv[low] * s;
      }
    }
  }
  return turned;
}

double Tolerance(DType dtype) { return dtype == DType::kFloat32 ? 1e-5 : 1e-2; }

// [tokens, heads, head_dim] of qkv [tokens, 3, heads, head_dim].
std::vector<double> Reference(const Shape& shape, const std::vector<double>& qkv) {
  const int64_t width = int64_t{shape.heads} * shape.head_dim;
  std::vector<double> out(shape.offsets.back() * width);
  for (size_t s = 1; s < shape.offsets.size(); ++s) {
    for (int32_t i = shape.offsets[s - 1]; i < shape.offsets[s]; ++i) {
      for (int64_t h = 0; h < shape.heads; ++h) {
        const double* q = &qkv[i * 3 * width + h * shape.head_dim];
        double total = 0, *to = &out[i * width + h * shape.head_dim];
        for (int32_t j = shape.offsets[s - 1]; j < shape.offsets[s]; ++j) {
          const double* k = &qkv[(j * 3 + 1) * width + h * shape.head_dim];
          double dot = 0;
          for (int d = 0; d < shape.head_dim; ++d) dot += q[d] * k[d];
          const double weight = std::exp(dot / std::sqrt(shape.head_dim));
          total += weight;
          for (int d = 0; d < shape.head_dim; ++d) to[d] += weight * k[width + d];
        }
        for (int d = 0; d < shape.head_dim; ++d) to[d] /= total;
      }
    }
  }
  return out;
}

std::vector<float> Run(Bench& bench, DType dtype, const Shape& shape, const std::vector<float>& qkv,
                       const Angles& angles = {}) {
  const int64_t width = int64_t{shape.heads} * shape.head_dim;
  const StoredValues in = bench.Put(dtype, qkv);
  const StoredValues out =
      bench.Put(dtype, std::vector<float>(shape.offsets.back() * width, 99.0f));
  const DeviceBuffer offsets = bench.Put(shape.offsets);
  const DeviceBuffer cosines = bench.Put(angles.cosines), sines = bench.Put(angles.sines);
  const bool turned = !angles.cosines.empty();
  bench.Require(SegmentAttention({.qkv = in.get(),
                                  .out = out.get(),
                                  .heads = shape.heads,
                                  .head_dim = shape.head_dim,
                                  .offsets = shape.offsets,
                                  .device_offsets = offsets.as<int32_t>(),
                                  .cosines = turned ? cosines.as<float>() : nullptr,
                                  .sines = turned ? sines.as<float>() : nullptr,
                                  .dtype = dtype},
                                 bench.stream()));
  return out.Read();
}

TEMPLATE_TEST_CASE("SegmentAttention: agrees with float64", "[kernels]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Shape& shape : kShapes) {
      // A GPU serves bfloat16 alone, and heads of whole vectors.
      if (!bench.cpu() && (dtype == DType::kFloat32 || shape.head_dim % 8 != 0)) continue;
      INFO(DTypeName(dtype) << ", head_dim " << shape.head_dim << ", " << shape.offsets.back());
      std::mt19937 generator(static_cast<unsigned>(shape.head_dim));
      const int64_t count = int64_t{3} * shape.offsets.back() * shape.heads * shape.head_dim;
      const std::vector<float> qkv = RandomValues(&generator, count, dtype);
      const std::vector<double> plain(qkv.begin(), qkv.end());
      CHECK(CountOff(Run(bench, dtype, shape, qkv), Reference(shape, plain), Tolerance(dtype)) ==
            0);
      const Angles angles = AnglesOf(shape);
      CHECK(CountOff(Run(bench, dtype, shape, qkv, angles),
                     Reference(shape, Turned(shape, qkv, angles)), 2 * Tolerance(dtype)) == 0);
    }
  }
}

TEMPLATE_TEST_CASE("SegmentAttention: a NaN stays in its segment and spoils it", "[kernels]",
                   EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  const Shape shape{2, 64, {0, 20, 50, 70}};
  const DType dtype = bench.cpu() ? DType::kFloat32 : DType::kBFloat16;
  for (int part = 0; part < 3; ++part) {  // In Q, in K, in V.
    INFO("part " << part);
    std::mt19937 generator(4);
    const int64_t width = 128, token = 33;
    std::vector<float> qkv = RandomValues(&generator, 70 * 3 * width, dtype);
    qkv[(token * 3 + part) * width + 5] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> out = Run(bench, dtype, shape, qkv);
    int leaked = 0, missed = 0;
    for (int64_t i = 0; i < 70; ++i) {
      const bool seen = part == 0 ? i == token : i >= 20 && i < 50;
      for (int64_t d = 0; d < width; ++d) {
        const bool is_nan = std::isnan(out[i * width + d]);
        const bool spoiled = seen && (part == 2 ? d == 5 : d < 64);
        leaked += is_nan && !spoiled;
        missed += !is_nan && spoiled;
      }
    }
    CHECK(leaked == 0);
    CHECK(missed == 0);
  }
}

TEST_CASE("SegmentAttention: refuses what it cannot run", "[kernels]") {
  float x[48] = {}, out[16] = {};
  const std::vector<int32_t> offsets = {0, 2}, falling = {0, 2, 1}, late = {1, 2};
  const SegmentAttentionArgs good{
      .qkv = x, .out = out, .heads = 1, .head_dim = 8, .offsets = offsets};
  CHECK(SegmentAttention(good, {}).ok());
  for (int fault = 0; fault < 6; ++fault) {
    SegmentAttentionArgs args = good;
    if (fault == 5) args.cosines = out;
    if (fault == 0) args.qkv = nullptr;
    if (fault == 1) args.offsets = falling;
    if (fault == 2) args.offsets = late;
    if (fault == 3) args.head_dim = 0;
    if (fault == 4) args.dtype = DType::kE4M3;
    CHECK(SegmentAttention(args, {}).code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace triptych::kernels
