// Defends sampling on every device: greedy and its ties, filters against a sorted reference,
// penalties, biases, the sparse lists' edges; that a million draws are distributed as they should
// be; and that a draw depends on the row, its seed and its index alone.

#include "kernels/sample.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "kernels/cpu_math.h"
#include "kernels/gumbel.h"
#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Lists {
  std::vector<TokenBias> biases;
  std::vector<TokenCount> counts;
  std::vector<int32_t> sampled;
};

std::vector<SampleResult> Run(Bench& bench, DType dtype, const std::vector<float>& logits,
                              int64_t vocab, const std::vector<SampleRow>& rows,
                              const Lists& lists = {}) {
  const StoredValues put = bench.Put(dtype, logits);
  const DeviceBuffer params = bench.Put(rows), biases = bench.Put(lists.biases);
  const DeviceBuffer counts = bench.Put(lists.counts), sampled = bench.Put(lists.sampled);
  const DeviceBuffer results = bench.Put(std::vector<SampleResult>(rows.size()));
  const DeviceBuffer ids = bench.Put(std::vector<int32_t>(rows.size(), -5));
  bench.Require(Sample({.logits = put.get(),
                        .rows = static_cast<int64_t>(rows.size()),
                        .vocab = vocab,
                        .params = params.as<SampleRow>(),
                        .biases = biases.as<TokenBias>(),
                        .counts = counts.as<TokenCount>(),
                        .sampled = sampled.as<int32_t>(),
                        .sampled_size = static_cast<int64_t>(lists.sampled.size()),
                        .results = results.as<SampleResult>(),
                        .ids = ids.as<int32_t>(),
                        .dtype = dtype},
                       bench.stream()));
  const std::vector<SampleResult> got = results.Read<SampleResult>();
  const std::vector<int32_t> copies = ids.Read<int32_t>();
  for (size_t i = 0; i < got.size(); ++i) CHECK(copies[i] == got[i].id);
  return got;
}

// The same logits for every row.
std::vector<float> Repeated(const std::vector<float>& logits, size_t rows) {
  std::vector<float> all;
  for (size_t i = 0; i < rows; ++i) all.insert(all.end(), logits.begin(), logits.end());
  return all;
}

// Ids that the filters keep, with their probabilities, from sorted float64 weights.
std::map<int32_t, double> Kept(const std::vector<float>& values, const SampleRow& row) {
  std::vector<int32_t> ids(values.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return values[a] > values[b]; });
  const auto tie_end = [&](size_t count) {  // Ids that tie with the last one stay too.
    while (count < ids.size() && values[ids[count]] == values[ids[count - 1]]) ++count;
    return count;
  };
  const auto weight = [&](int32_t id) {
    return std::exp((double{values[id]} - values[ids[0]]) / row.temperature);
  };
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < ids.size()) ids.resize(tie_end(row.top_k));
  double total = 0;
  for (int32_t id : ids) total += weight(id);
  if (row.top_p < 1) {
    double sum = 0;
    size_t count = 0;
    while (count < ids.size() && sum < row.top_p * total) sum += weight(ids[count++]);
    ids.resize(tie_end(std::max<size_t>(count, 1)));
  }
  std::map<int32_t, double> kept;
  total = 0;
  for (int32_t id : ids) {
    if (weight(id) >= row.min_p) total += kept[id] = weight(id);
  }
  for (auto& [id, share] : kept) share /= total;
  return kept;
}

TEMPLATE_TEST_CASE("Sample: greedy takes the lowest id of the largest value", "[kernels][sampling]",
                   EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const auto results = Run(bench, dtype, {1, 3, 3, 2, -1, -2, -1, -3}, 4,
                             {{.top_logprobs = 2}, {.top_logprobs = 20}});
    CHECK(results[0].id == 1);
    REQUIRE(results[0].top_count == 2);
    CHECK(results[0].top_ids[0] == 1);
    CHECK(results[0].top_ids[1] == 2);
    const double total = std::exp(1.0) + 2 * std::exp(3.0) + std::exp(2.0);
    CHECK(results[0].logprob == Approx(3 - std::log(total)).epsilon(1e-5));
    CHECK(results[0].top_logprobs[1] == results[0].logprob);
    CHECK(results[1].id == 0);
    REQUIRE(results[1].top_count == 4);
    CHECK(results[1].top_ids[1] == 2);
    CHECK(results[1].top_ids[3] == 3);
  }
}

TEMPLATE_TEST_CASE("Sample: filters keep what a sort would keep", "[kernels][sampling]",
                   EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  const unsigned seed = 77;
  INFO("seed " << seed);
  std::mt19937 generator(seed);
  for (int round = 0; round < 12; ++round) {
    const int64_t vocab = 3 + static_cast<int64_t>(generator() % 150);
    std::vector<float> logits = RandomValues(&generator, vocab, DType::kFloat32, 4);
    // Coarse values tie; so do the two zeros.
    for (float& logit : logits) logit = round % 2 == 0 ? logit : std::round(logit);
    logits[0] = -0.0f;
    SampleRow row{.temperature = 0.3f + 0.2f * static_cast<float>(round)};
    if (round % 3 != 0) row.top_p = 0.1f * static_cast<float>(round % 10);
    if (round % 4 != 1) row.top_k = 1 + static_cast<int32_t>(generator() % vocab);
    if (round % 5 == 4) row.min_p = 0.2f;
    const std::map<int32_t, double> kept = Kept(logits, row);
    std::vector<SampleRow> rows(1500, row);
    for (size_t i = 0; i < rows.size(); ++i) rows[i].index = i;
    std::map<int32_t, int> seen;
    for (const SampleResult& result :
         Run(bench, DType::kFloat32, Repeated(logits, rows.size()), vocab, rows)) {
      ++seen[result.id];
    }
    INFO("round " << round);
    for (const auto& [id, count] : seen) CHECK(kept.count(id) == 1);
    for (const auto& [id, share] : kept) {
      if (share > 0.01) CHECK(seen.count(id) == 1);  // Missing: 0.99^1500 = 3e-7.
    }
  }
}

// 10^6 draws at temperature 1, top-k 50, top-p 0.9 of 200 ids.
TEMPLATE_TEST_CASE("Sample: a million draws are distributed as the softmax of what is kept",
                   "[kernels][sampling]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  constexpr int64_t kVocab = 200, kBatch = 10000;
  std::mt19937 generator(8);
  const std::vector<float> logits = RandomValues(&generator, kVocab, DType::kFloat32, 2.5f);
  const SampleRow row{.temperature = 1, .top_p = 0.9f, .top_k = 50, .seed = 12345};
  const std::map<int32_t, double> kept = Kept(logits, row);
  const std::vector<float> all = Repeated(logits, kBatch);
  std::map<int32_t, double> seen;
  for (int batch = 0; batch < 100; ++batch) {
    std::vector<SampleRow> rows(kBatch, row);
    for (int64_t i = 0; i < kBatch; ++i) rows[i].index = static_cast<uint64_t>(batch * kBatch + i);
    for (const SampleResult& result : Run(bench, DType::kFloat32, all, kVocab, rows)) {
      ++seen[result.id];
    }
  }
  double chi_square = 0;
  for (const auto& [id, count] : seen) REQUIRE(kept.count(id) == 1);
  for (const auto& [id, share] : kept) {
    const double expected = share * 100 * kBatch;
    chi_square += (seen[id] - expected) * (seen[id] - expected) / expected;
  }
  // The 0.999 quantile by Wilson and Hilferty.
  const double freedom = static_cast<double>(kept.size()) - 1;
  const double z = 2 / (9 * freedom);
  const double limit = freedom * std::pow(1 - z + 3.0902 * std::sqrt(z), 3);
  INFO(kept.size() << " ids, chi square " << chi_square << ", limit " << limit);
  CHECK(kept.size() > 20);
  CHECK(chi_square < limit);
}

TEMPLATE_TEST_CASE("Sample: a draw depends on its row, seed and index alone", "[kernels][sampling]",
                   EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  constexpr int64_t kVocab = 1088;
  std::mt19937 generator(5);
  const std::vector<float> logits = RandomValues(&generator, 40 * kVocab, DType::kFloat32, 3);
  std::vector<SampleRow> rows(40);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = {.temperature = 1.3f, .top_p = i % 2 == 0 ? 0.95f : 1.0f, .seed = i / 3, .index = i};
  }
  const auto together = Run(bench, DType::kFloat32, logits, kVocab, rows);
  std::map<int32_t, int> different;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<float> one(logits.begin() + i * kVocab, logits.begin() + (i + 1) * kVocab);
    CHECK(Run(bench, DType::kFloat32, one, kVocab, {rows[i]})[0].id == together[i].id);
    ++different[together[i].id];
  }
  CHECK(different.size() > 20);
}

TEMPLATE_TEST_CASE("Sample: penalties and biases change the values that their lists name",
                   "[kernels][sampling]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  const std::vector<float> logits = {5, 4, 3, -1};
  struct Case {
    SampleRow row;
    Lists lists;
    int32_t want;
  };
  const Case kCases[] = {
      {{.bias_end = 1}, {.biases = {{0, -kInfinity}}}, 1},
      {{.bias_end = 2}, {.biases = {{2, 2.5f}, {1, -9}}}, 2},
      {{.bias_end = 3}, {.biases = {{3, 9}, {4, 99}, {-1, 99}}}, 3},
      {{.bias_begin = 1, .bias_end = 2}, {.biases = {{0, -99}, {1, 0.5f}}}, 0},
      {{.repetition_penalty = 2, .count_end = 1}, {.counts = {{0, 0, 1}}}, 1},
      {{.repetition_penalty = 2, .count_end = 1}, {.counts = {{0, 0, 0}}}, 0},
      {{.presence_penalty = 1.5f, .count_end = 1}, {.counts = {{0, 3, 0}}}, 1},
      {{.presence_penalty = 1.5f, .count_end = 1}, {.counts = {{0, 0, 1}}}, 0},
      {{.frequency_penalty = 0.6f, .count_end = 2}, {.counts = {{0, 2, 0}, {1, 2, 1}}}, 0},
      {{.frequency_penalty = 0.6f, .count_end = 1}, {.counts = {{0, 2, 0}}}, 1},
      // The token of the step before, not in the counts yet: alone, and on top of a count.
      {{.presence_penalty = 2, .uncounted = 1}, {.sampled = {3, 0}}, 1},
      {{.frequency_penalty = 0.6f, .count_end = 1, .uncounted = 0},
       {.counts = {{0, 1, 0}}, .sampled = {0}},
       1},
      {{.presence_penalty = 2, .uncounted = 7}, {.sampled = {0}}, 0},
      {{.presence_penalty = 2, .uncounted = 0}, {.sampled = {-1}}, 0},
  };
  int number = 0;
  for (const Case& c : kCases) {
    INFO("case " << number++);
    CHECK(Run(bench, DType::kFloat32, logits, 4, {c.row}, c.lists)[0].id == c.want);
  }
  // A negative value is multiplied: -1 becomes -3, behind -2.
  const SampleRow row{.repetition_penalty = 3, .count_end = 1};
  CHECK(Run(bench, DType::kFloat32, {-1, -2}, 2, {row}, {.counts = {{0, 1, 0}}})[0].id == 1);
}

TEMPLATE_TEST_CASE("Sample: logits that are not finite and rows without an id are errors",
                   "[kernels][sampling]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> logits = {0, nan, 0, kInfinity, 0, -kInfinity, 0, 1, 0, 1};
  const auto results =
      Run(bench, DType::kFloat32, logits, 2, {{}, {.temperature = 1}, {}, {.bias_end = 2}, {}},
          {.biases = {{0, -kInfinity}, {1, -kInfinity}}});
  for (int i = 0; i < 4; ++i) {
    CHECK(results[i].error == 1);
    CHECK(results[i].id == -1);
  }
  CHECK(results[4].error == 0);
  CHECK(results[4].id == 1);
}

TEST_CASE("Gumbel: every instruction set has the bits of the definition, and its distribution",
          "[kernels][sampling]") {
  const CpuMath* variants[3];
  const int count = RunnableCpuMath(variants);
  double sum = 0, squares = 0;
  constexpr int kBlocks = 2000;
  for (uint32_t block = 0; block < kBlocks; ++block) {
    const uint64_t seed = 0x123456789abcdefULL * block, index = 0x100000000ULL + block;
    for (int v = 0; v < count; ++v) {
      float numbers[64];
      variants[v]->gumbel(seed, index, block, numbers);
      int wrong = 0;
      for (int i = 0; i < 64; ++i) {
        const float want = Gumbel(seed, index, static_cast<int32_t>(64 * block) + i);
        wrong += std::bit_cast<uint32_t>(want) != std::bit_cast<uint32_t>(numbers[i]);
        sum += numbers[i];
        squares += double{numbers[i]} * numbers[i];
      }
      INFO(variants[v]->name << ", block " << block);
      REQUIRE(wrong == 0);
    }
  }
  const double n = 64.0 * kBlocks * count, mean = sum / n;
  CHECK(mean == Approx(0.57722).margin(0.02));
  CHECK(squares / n - mean * mean == Approx(1.64493).margin(0.04));
  for (const uint32_t word : {0u, 1u, 0x7fffffffu, 0x80000000u, 0xfffffffeu, 0xffffffffu}) {
    const double u = (word + 0.5) / 4294967296.0;
    CHECK(GumbelOfWord(word) == Approx(-std::log(-std::log1p(-u))).margin(2e-6).epsilon(1e-6));
  }
}

// The arithmetic is the same on both devices, operation by operation: a request that moves between
// them keeps its draws.
TEST_CASE("Sample: CUDA draws the tokens that the CPU draws", "[kernels][sampling][gpu]") {
  if (!IsAtHand(Device::kCuda)) return testing::SkipTest("no GPU");
  Bench cpu(Device::kCpu), cuda(Device::kCuda);
  std::mt19937 generator(21);
  for (const int64_t vocab : {int64_t{1088}, int64_t{5003}, int64_t{152064}}) {
    constexpr size_t kRows = 24;
    for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      const std::vector<float> logits =
          RandomValues(&generator, kRows * vocab, dtype, vocab > 100000 ? 12 : 5);
      std::vector<SampleRow> rows(kRows);
      for (size_t i = 0; i < kRows; ++i) {
        rows[i] = {.temperature = 0.5f + 0.1f * static_cast<float>(i % 9),
                   .top_p = i % 3 == 0 ? 1.0f : 0.5f + 0.03f * static_cast<float>(i % 15),
                   .min_p = i % 5 == 4 ? 0.05f : 0,
                   .repetition_penalty = 1.1f,
                   .frequency_penalty = 0.3f,
                   .top_k = i % 4 == 1 ? 40 : 0,
                   .top_logprobs = i % 6 == 0 ? static_cast<int32_t>(i) : -1,
                   .seed = 99,
                   .index = i,
                   .bias_end = 2,
                   .count_end = 2};
      }
      const Lists lists{.biases = {{7, 1.5f}, {int32_t(vocab - 1), -kInfinity}},
                        .counts = {{3, 2, 1}, {int32_t(vocab - 2), 0, 1}}};
      const auto want = Run(cpu, dtype, logits, vocab, rows, lists);
      const auto got = Run(cuda, dtype, logits, vocab, rows, lists);
      for (size_t i = 0; i < kRows; ++i) {
        INFO(vocab << " words, " << DTypeName(dtype) << ", row " << i);
        CHECK(got[i].error == 0);
        CHECK(got[i].id == want[i].id);
        CHECK(got[i].logprob == Approx(want[i].logprob).epsilon(1e-5));
        REQUIRE(got[i].top_count == want[i].top_count);
        for (int k = 0; k < want[i].top_count; ++k) {
          CHECK(got[i].top_ids[k] == want[i].top_ids[k]);
          CHECK(got[i].top_logprobs[k] == Approx(want[i].top_logprobs[k]).epsilon(1e-5));
        }
      }
    }
  }
}

TEST_CASE("Sample: refuses what it cannot run", "[kernels][sampling]") {
  const float logits[2] = {};
  const SampleRow row;
  SampleResult result;
  const SampleArgs good{
      .logits = logits, .rows = 1, .vocab = 2, .params = &row, .results = &result};
  CHECK(Sample(good, {}).ok());
  for (int fault = 0; fault < 5; ++fault) {
    SampleArgs args = good;
    if (fault == 0) args.logits = nullptr;
    if (fault == 1) args.vocab = 0;
    if (fault == 2) args.logits_stride = 1;
    if (fault == 3) args.sampled_size = 1;
    if (fault == 4) args.dtype = DType::kE4M3;
    CHECK(Sample(args, {}).code() == absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace triptych::kernels
