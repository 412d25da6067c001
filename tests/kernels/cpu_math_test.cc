// What is defended: every instruction set computes the same bits, a product is a chain of fused
// multiply-adds whatever rows come with it, and attention agrees with its definition.

#include "kernels/cpu_math.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "base/random.h"
#include "kernels/linear.h"

namespace triptych::kernels {
namespace {

std::vector<float> RandomFloats(base::SeededRandom* random, int64_t n) {
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(random->Uniform() * 2 - 1);
  return values;
}

std::vector<uint16_t> ToBFloat16(const std::vector<float>& values) {
  std::vector<uint16_t> out;
  for (float value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    out.push_back(static_cast<uint16_t>(bits >> 16));
  }
  return out;
}

float Widened(uint16_t half) {
  const uint32_t bits = uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Variants {
  const CpuMath* list[3] = {};
  int count = RunnableCpuMath(list);
};

}  // namespace

TEST_CASE("CpuMath: a product is a chain of fused multiply-adds on every instruction set",
          "[kernels][linear]") {
  base::SeededRandom random(11);
  const Variants variants{};
  for (int64_t rows : {1, 2, 3, 4, 5, 7, 12, 13, 29}) {
    const int64_t k = random.Between(1, 90), n = random.Between(1, 200);
    INFO(rows << " x " << k << " x " << n);
    const std::vector<float> a = RandomFloats(&random, rows * k), bias = RandomFloats(&random, n);
    const std::vector<uint16_t> b = ToBFloat16(RandomFloats(&random, n * k));
    const std::vector<float> residual = RandomFloats(&random, rows * n);
    std::vector<uint8_t> panels(PanelBytes(n, k, DType::kBFloat16));
    PackPanels({{b.data(), n}}, k, DType::kBFloat16, absl::MakeSpan(panels), nullptr);
    std::vector<float> expected(rows * n);
    for (int64_t i = 0; i < rows * n; ++i) {
      float sum = 0;
      for (int64_t j = 0; j < k; ++j) {
        sum = std::fmaf(a[i / n * k + j], Widened(b[i % n * k + j]), sum);
      }
      expected[i] = sum + bias[i % n] + residual[i];
    }
    for (int v = 0; v < variants.count; ++v) {
      std::vector<float> c = residual;
      variants.list[v]->gemm({.a = a.data(),
                              .a_stride = k,
                              .panels = panels.data(),
                              .k = k,
                              .rows = rows,
                              .columns = n,
                              .c = c.data(),
                              .c_stride = n,
                              .bias = bias.data(),
                              .residual = c.data()});
      INFO(variants.list[v]->name);
      CHECK(SameBits(c, expected));
    }
  }
}

TEST_CASE("CpuMath: attention agrees with its definition, with the same bits on every set",
          "[kernels][attention]") {
  base::SeededRandom random(12);
  const Variants variants{};
  // Few rows take several tiles of keys at once, on some sets.
  for (const auto& [head_dim, rows] :
       {std::pair{8, 17}, {64, 17}, {80, 17}, {64, 1}, {80, 3}, {64, 5}, {8, 12}}) {
    const int num_keys = 95;
    const std::vector<float> q = RandomFloats(&random, rows * head_dim);
    const std::vector<float> k = RandomFloats(&random, num_keys * head_dim);
    const std::vector<float> v = RandomFloats(&random, num_keys * head_dim);
    std::vector<const void*> keys, values;
    for (int j = 0; j < num_keys; ++j) {
      keys.push_back(&k[j * head_dim]);
      values.push_back(&v[j * head_dim]);
    }
    std::vector<int32_t> limits;
    for (int i = 0; i < rows; ++i) limits.push_back(std::min(num_keys, 7 * i + 20));
    std::vector<float> first;
    for (int m = 0; m < variants.count; ++m) {
      std::vector<float> out(rows * PaddedLanes(head_dim));
      std::vector<float> scratch(AttentionScratchFloats(rows, head_dim));
      variants.list[m]->attend({.queries = q.data(),
                                .rows = rows,
                                .head_dim = head_dim,
                                .limits = limits.data(),
                                .keys = keys.data(),
                                .values = values.data(),
                                .num_keys = num_keys,
                                .scale = 0.5f,
                                .output = out.data(),
                                .scratch = scratch.data()});
      if (m == 0) first = out;
      INFO(variants.list[m]->name);
      CHECK(SameBits(out, first));
    }
    for (int i = 0; i < rows; ++i) {
      std::vector<double> sum(head_dim, 0);
      double total = 0;
      for (int j = 0; j < limits[i]; ++j) {
        double dot = 0;
        for (int d = 0; d < head_dim; ++d) dot += double{q[i * head_dim + d]} * k[j * head_dim + d];
        const double weight = std::exp(dot * 0.5);
        total += weight;
        for (int d = 0; d < head_dim; ++d) sum[d] += weight * v[j * head_dim + d];
      }
      for (int d = 0; d < head_dim; ++d) {
        CHECK(first[i * PaddedLanes(head_dim) + d] == Approx(sum[d] / total).margin(1e-5));
      }
    }
  }
}

TEST_CASE("CpuMath: functions are accurate, and the same bits on every set", "[kernels]") {
  base::SeededRandom random(13);
  const Variants variants{};
  std::vector<float> x = RandomFloats(&random, 1003);
  for (float& value : x) value *= 20;
  x[0] = 0;
  std::vector<float> first_exp, first_gelu;
  for (int m = 0; m < variants.count; ++m) {
    std::vector<float> e(x.size()), g(x.size());
    variants.list[m]->exp(x.data(), x.size(), e.data());
    variants.list[m]->gelu(x.data(), x.size(), g.data());
    if (m == 0) {
      first_exp = e;
      first_gelu = g;
    }
    CHECK(SameBits(e, first_exp));
    CHECK(SameBits(g, first_gelu));
  }
  CHECK(first_exp[0] == 1.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    CHECK(first_exp[i] == Approx(std::exp(double{x[i]})).epsilon(3e-7));
    const double gelu = x[i] * 0.5 * (1 + std::erf(x[i] / std::sqrt(2.0)));
    CHECK(first_gelu[i] == Approx(gelu).margin(1e-5));
  }
}

}  // namespace triptych::kernels
