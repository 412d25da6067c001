// The two steps that decide latency on the CPU: one decode step, and encode + prefill of one
// 448 x 448 picture (1,024 patches, 256 visual tokens, 290 tokens of prompt). Run from the root:
// build/bin/bench_micro. The argument is the number of threads.

#include <benchmark/benchmark.h>

#include <numeric>

#include "tests/models/decoder/decoder_bench.h"
#include "tests/models/vision/tower_bench.h"

namespace triptych {
namespace {

constexpr char kModelDir[] = "assets/triptych-16m";
constexpr int kPromptTokens = 290;
constexpr int kVisualTokens = 256;

// Tokens [first, first + count) of one sequence; with visual tokens from the tenth on.
scheduler::StepPlan PlanOf(int32_t first, int32_t count, bool picture) {
  scheduler::StepPlan plan;
  scheduler::PlanRow& row = plan.rows.emplace_back();
  row.token_begin = first;
  row.token_ids.assign(count, 5);
  row.positions.assign(count, {first, first, first});
  row.pages.resize(64);
  std::iota(row.pages.begin(), row.pages.end(), 0);
  if (picture) {
    scheduler::EmbeddingRange& range = row.embeddings.emplace_back();
    range = {.row_offset = 10, .count = kVisualTokens};
    range.pages.resize(kVisualTokens);
    std::iota(range.pages.begin(), range.pages.end(), 0);
  }
  row.sample = scheduler::SampleSpec{};
  return plan;
}

void DecodeStep(benchmark::State& state) {
  testing::DecoderBench decoder(kModelDir, static_cast<int>(state.range(0)), 64, kVisualTokens);
  decoder.Step(PlanOf(0, kPromptTokens, false));
  const scheduler::StepPlan plan = PlanOf(kPromptTokens, 1, false);
  for (auto _ : state) decoder.Step(plan);
}
BENCHMARK(DecodeStep)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

void EncodePicture(benchmark::State& state) {
  testing::TowerBench tower(kModelDir, static_cast<int>(state.range(0)));
  models::Frames frames{.grid = {1, 32, 32}, .count = 1};
  frames.pixels.assign(size_t{448} * 448 * 3, 160);
  for (auto _ : state) tower.Encode({frames});
}
BENCHMARK(EncodePicture)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

void PrefillPicture(benchmark::State& state) {
  testing::DecoderBench decoder(kModelDir, static_cast<int>(state.range(0)), 64, kVisualTokens);
  std::fill(decoder.visual().begin(), decoder.visual().end(), 0.1f);
  const scheduler::StepPlan plan = PlanOf(0, kPromptTokens, true);
  for (auto _ : state) decoder.Step(plan);
}
BENCHMARK(PrefillPicture)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace triptych
