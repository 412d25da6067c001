// What is defended: logits and greedy answers of all reference cases, and the promise that chunks,
// company, steps and threads never change a bit.

#include "models/decoder/decoder.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "kernels/thread_pool.h"
#include "models/weights/safetensors.h"
#include "tests/models/reference_files.h"
#include "tests/support/skip.h"

namespace triptych::models {
namespace {

std::vector<int32_t> ToInts(const std::vector<int64_t>& values) {
  return {values.begin(), values.end()};
}

// Lowest id of the largest logit.
int32_t ArgMax(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// One reference prompt with the embeddings of its pictures.
struct Prompt {
  std::vector<int32_t> ids, positions, greedy;  // positions [3, ids]
  std::vector<float> embeddings, logits;
};

Prompt ReadPrompt(const std::string& name) {
  auto file = SafetensorsFile::Open(testing::StageGoldenDir() + "/" + name);
  REQUIRE(file.ok());
  Prompt prompt;
  prompt.ids = ToInts(ToInt64s(*file->Get("input_ids")));
  prompt.positions = ToInts(ToInt64s(*file->Get("position_ids")));
  prompt.greedy = ToInts(ToInt64s(*file->Get("greedy_tokens")));
  prompt.logits = ToFloats(*file->Get("logits_last"));
  if (file->Contains("image_embeds")) prompt.embeddings = ToFloats(*file->Get("image_embeds"));
  return prompt;
}

// 640 tokens; the longest reference case with its answer has fewer.
constexpr int kBlocksPerSequence = 40;
constexpr int kMostSequences = 32;

// A decoder with one sequence's pages after another's.
class Bench {
 public:
  explicit Bench(int threads = 1) : pool_(threads) {
    const std::string dir = testing::SmallModelDir();
    auto config = LoadModelConfig(dir);
    auto checkpoint = Checkpoint::Open(dir);
    REQUIRE(config.ok());
    REQUIRE(checkpoint.ok());
    auto decoder = Decoder::Load(**checkpoint, *config);
    REQUIRE(decoder.ok());
    decoder_ = *std::move(decoder);
    kv_.layout = {
        .block_tokens = 16, .kv_heads = config->num_kv_heads, .head_dim = config->head_dim};
    kv_.num_blocks = kBlocksPerSequence * kMostSequences;
    memory_.resize(config->num_layers);
    for (auto& layer : memory_) {
      layer.resize(kv_.num_blocks * kv_.layout.block_elements());
      pools_.push_back(layer.data());
    }
    kv_.layers = pools_;
  }

  // Tokens [begin, end) of `prompt`, whose pages begin at block kBlocksPerSequence * sequence.
  DecoderRow Row(const Prompt& prompt, int32_t begin, int32_t end, int sequence) {
    DecoderRow row{.first_token = begin};
    row.token_ids = absl::MakeConstSpan(prompt.ids).subspan(begin, end - begin);
    auto& positions = kept_.emplace_back(std::make_unique<std::vector<int32_t>>());
    const auto total = static_cast<int64_t>(prompt.ids.size());
    for (int axis = 0; axis < 3; ++axis) {
      for (int32_t i = begin; i < end; ++i) {
        positions->push_back(prompt.positions[axis * total + i]);
      }
    }
    row.positions = *positions;
    const ModelConfig& config = decoder_->config();
    int64_t visual = 0;
    for (int32_t i = 0; i < end; ++i) {
      if (prompt.ids[i] != config.image_token_id && prompt.ids[i] != config.video_token_id) {
        continue;
      }
      if (i >= begin) {
        row.vectors.push_back({i - begin, 1, &prompt.embeddings[visual * config.hidden_size]});
      }
      ++visual;
    }
    auto& pages = kept_.emplace_back(std::make_unique<std::vector<int32_t>>(kBlocksPerSequence));
    std::iota(pages->begin(), pages->end(), kBlocksPerSequence * sequence);
    row.pages = *pages;
    if (end == total) row.logits = Logits::kLastToken;
    return row;
  }

  std::vector<float> Step(const std::vector<DecoderRow>& rows) {
    std::vector<float> logits(rows.size() * decoder_->config().vocab_size);
    REQUIRE(decoder_->Step(rows, kv_, logits.data(), {.pool = &pool_}).ok());
    kept_.clear();
    return logits;
  }

  // The whole prompt in chunks of `chunk` tokens; the logits of its last token.
  std::vector<float> Prefill(const Prompt& prompt, int32_t chunk, int sequence = 0) {
    const auto total = static_cast<int32_t>(prompt.ids.size());
    std::vector<float> logits;
    for (int32_t begin = 0; begin < total; begin += chunk) {
      logits = Step({Row(prompt, begin, std::min(total, begin + chunk), sequence)});
    }
    return logits;
  }

  Decoder& decoder() { return *decoder_; }
  const KvPools& kv() const { return kv_; }

 private:
  kernels::ThreadPool pool_;
  std::unique_ptr<Decoder> decoder_;
  KvPools kv_;
  std::vector<std::vector<float>> memory_;
  std::vector<void*> pools_;
  std::vector<std::unique_ptr<std::vector<int32_t>>> kept_;
};

// `prompt` with one more token at the next position of text.
void Append(Prompt* prompt, int32_t token) {
  const size_t total = prompt->ids.size();
  const int32_t next = *std::max_element(prompt->positions.begin(), prompt->positions.end()) + 1;
  std::vector<int32_t> positions;
  for (int axis = 0; axis < 3; ++axis) {
    const auto begin = prompt->positions.begin() + axis * total;
    positions.insert(positions.end(), begin, begin + total);
    positions.push_back(next);
  }
  prompt->positions = positions;
  prompt->ids.push_back(token);
}

bool Missing() {
  if (!testing::SmallModelDir().empty() && !testing::StageGoldenDir().empty()) return false;
  testing::SkipTest("the small model or its reference results are not here");
  return true;
}

std::vector<std::string> CaseNames() {
  std::vector<std::string> names = {"text_only.safetensors", "with_system.safetensors"};
  for (int i = 0; i < 24; ++i) {
    char name[32];
    std::snprintf(name, sizeof(name), "%04d.safetensors", i);
    names.push_back(name);
  }
  return names;
}

}  // namespace

TEST_CASE("Decoder: logits and greedy answers agree with the published implementation",
          "[models][decoder][golden]") {
  if (Missing()) return;
  Bench bench(2);
  for (const std::string& name : CaseNames()) {
    Prompt prompt = ReadPrompt(name);
    std::vector<float> logits = bench.Prefill(prompt, 512);
    float largest = 0, difference = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      largest = std::max(largest, std::abs(prompt.logits[i]));
      difference = std::max(difference, std::abs(prompt.logits[i] - logits[i]));
    }
    INFO(name << ": " << difference << " of " << largest);
    CHECK(difference <= 1e-4f * largest);
    std::vector<int32_t> answer;
    while (answer.size() < prompt.greedy.size()) {
      answer.push_back(ArgMax(logits));
      Append(&prompt, answer.back());
      const auto total = static_cast<int32_t>(prompt.ids.size());
      logits = bench.Step({bench.Row(prompt, total - 1, total, 0)});
    }
    CHECK(answer == prompt.greedy);
  }
}

TEST_CASE("Decoder: chunk size, steps and threads do not change a bit", "[models][decoder]") {
  if (Missing()) return;
  Bench one(1), two(2);
  for (const char* name : {"0000.safetensors", "0009.safetensors"}) {
    const Prompt prompt = ReadPrompt(name);
    const std::vector<float> whole = one.Prefill(prompt, 512);
    for (int32_t chunk : {1, 16, 23, 64, 512}) {
      INFO(name << " in chunks of " << chunk);
      CHECK(std::memcmp(two.Prefill(prompt, chunk).data(), whole.data(),
                        whole.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("Decoder: company in the batch does not change a bit", "[models][decoder]") {
  if (Missing()) return;
  constexpr int kCompany = 32;
  Bench bench(2);
  // Three prompts of different lengths in turn, so that no row stands where it would stand alone.
  std::vector<Prompt> prompts;
  std::vector<std::vector<float>> alone;
  for (const char* name : {"0005.safetensors", "text_only.safetensors", "0009.safetensors"}) {
    prompts.push_back(ReadPrompt(name));
    alone.push_back(bench.Prefill(prompts.back(), 512));
  }
  std::vector<DecoderRow> steps;
  for (int sequence = 0; sequence < kCompany; ++sequence) {
    bench.Prefill(prompts[sequence % 3], 64, sequence);
  }
  for (int sequence = 0; sequence < kCompany; ++sequence) {
    const Prompt& prompt = prompts[sequence % 3];
    const auto total = static_cast<int32_t>(prompt.ids.size());
    // Decode steps of one token among short chunks.
    steps.push_back(bench.Row(prompt, total - 1 - sequence % 5, total, sequence));
  }
  const std::vector<float> batch = bench.Step(steps);
  for (int sequence = 0; sequence < kCompany; ++sequence) {
    const std::vector<float>& expected = alone[sequence % 3];
    INFO("row " << sequence);
    CHECK(std::memcmp(&batch[sequence * expected.size()], expected.data(),
                      expected.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("Decoder: a row that reaches outside its pages or vocabulary is refused",
          "[models][decoder][hostile]") {
  if (Missing()) return;
  Bench bench;
  const std::vector<int32_t> ids = {5}, wrong = {1 << 20}, positions = {0, 0, 0}, pages = {0};
  std::vector<float> logits(bench.decoder().config().vocab_size);
  const auto step = [&](const DecoderRow& row) {
    return bench.decoder().Step({row}, bench.kv(), logits.data(), {});
  };
  CHECK(step({.token_ids = ids, .positions = positions, .pages = pages}).ok());
  CHECK(
      absl::IsInvalidArgument(step({.token_ids = wrong, .positions = positions, .pages = pages})));
  CHECK(absl::IsInvalidArgument(
      step({.first_token = 16, .token_ids = ids, .positions = positions, .pages = pages})));
}

}  // namespace triptych::models
