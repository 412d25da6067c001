// The two steps that decide latency on the CPU: one decode step, and encode + prefill of one
// 448 x 448 picture (1,024 patches, 256 visual tokens, 290 tokens of prompt). Run from the root:
// build/bin/bench_micro. The argument is the number of threads.

#include <benchmark/benchmark.h>

#include <numeric>

#include "base/check.h"
#include "kernels/thread_pool.h"
#include "models/decoder/decoder.h"
#include "models/vision/vision_tower.h"

namespace triptych {
namespace {

constexpr char kModelDir[] = "assets/triptych-16m";
constexpr int kPromptTokens = 290;

struct Model {
  models::ModelConfig config = *models::LoadModelConfig(kModelDir);
  std::unique_ptr<models::Checkpoint> checkpoint = *models::Checkpoint::Open(kModelDir);
  std::unique_ptr<models::VisionTower> vision =
      *models::VisionTower::Load(*checkpoint, config.vision);
  std::unique_ptr<models::Decoder> decoder = *models::Decoder::Load(*checkpoint, config);
  models::KvPools kv;
  std::vector<std::vector<float>> memory;
  std::vector<void*> layers;
  std::vector<int32_t> pages = std::vector<int32_t>(64);
  std::vector<float> logits = std::vector<float>(config.vocab_size);

  Model() {
    kv.layout = {.kv_heads = config.num_kv_heads, .head_dim = config.head_dim};
    kv.num_blocks = 64;
    memory.resize(config.num_layers);
    for (auto& layer : memory) {
      layer.resize(kv.num_blocks * kv.layout.block_elements());
      layers.push_back(layer.data());
    }
    kv.layers = layers;
    std::iota(pages.begin(), pages.end(), 0);
  }

  void Step(int32_t first, int32_t count, const float* vectors, kernels::ThreadPool* pool) {
    const std::vector<int32_t> ids(count, 5), positions(3 * count, first);
    models::DecoderRow row{.first_token = first, .token_ids = ids, .positions = positions};
    if (vectors != nullptr) row.vectors.push_back({10, 256, vectors});
    row.pages = pages;
    row.logits = models::Logits::kLastToken;
    CHECK_OK(decoder->Step({row}, kv, logits.data(), {.pool = pool}));
  }
};

void DecodeStep(benchmark::State& state) {
  Model model;
  kernels::ThreadPool pool(static_cast<int>(state.range(0)));
  model.Step(0, kPromptTokens, nullptr, &pool);
  for (auto _ : state) model.Step(kPromptTokens, 1, nullptr, &pool);
}
BENCHMARK(DecodeStep)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

void EncodePicture(benchmark::State& state) {
  Model model;
  kernels::ThreadPool pool(static_cast<int>(state.range(0)));
  const base::Grid grid{1, 32, 32};
  std::vector<float> patches(grid.patches() * model.config.vision.patch_elements(), 0.25f);
  std::vector<float> tokens(256 * model.config.hidden_size);
  for (auto _ : state) {
    CHECK_OK(model.vision->Encode(patches.data(), {grid}, tokens.data(), {.pool = &pool}));
  }
}
BENCHMARK(EncodePicture)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

void PrefillPicture(benchmark::State& state) {
  Model model;
  kernels::ThreadPool pool(static_cast<int>(state.range(0)));
  const std::vector<float> tokens(256 * model.config.hidden_size, 0.1f);
  for (auto _ : state) model.Step(0, kPromptTokens, tokens.data(), &pool);
}
BENCHMARK(PrefillPicture)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace triptych
