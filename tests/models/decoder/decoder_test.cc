// What is defended: logits and greedy answers of all reference cases, and the promise that chunks,
// company, steps and threads never change a bit.

#include "models/decoder/decoder.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <utility>

#include "models/weights/safetensors.h"
#include "tests/models/decoder/decoder_bench.h"
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
constexpr int kVisualPerSequence = 1024;

// A decoder with one sequence's pages, and its visual tokens, after another's.
class Bench {
 public:
  explicit Bench(int threads = 1)
      : decoder_(testing::SmallModelDir(), threads, kBlocksPerSequence * kMostSequences,
                 kVisualPerSequence * kMostSequences) {}

  // Tokens [begin, end) of `prompt`, whose pages begin at block kBlocksPerSequence * sequence.
  scheduler::PlanRow Row(const Prompt& prompt, int32_t begin, int32_t end, int sequence) {
    scheduler::PlanRow row{.token_begin = begin};
    const auto total = static_cast<int64_t>(prompt.ids.size());
    const ModelConfig& config = decoder_.config();
    int32_t visual = 0;
    for (int32_t i = 0; i < end; ++i) {
      const bool is_visual =
          prompt.ids[i] == config.image_token_id || prompt.ids[i] == config.video_token_id;
      if (i >= begin) {
        row.token_ids.push_back(prompt.ids[i]);
        row.positions.push_back(
            {prompt.positions[i], prompt.positions[total + i], prompt.positions[2 * total + i]});
        if (is_visual) {
          row.embeddings.push_back({i - begin, 1, 0, {kVisualPerSequence * sequence + visual}});
        }
      }
      visual += is_visual ? 1 : 0;
    }
    std::copy(
        prompt.embeddings.begin(), prompt.embeddings.end(),
        decoder_.visual().begin() + size_t{1} * kVisualPerSequence * sequence * config.hidden_size);
    row.pages.resize(kBlocksPerSequence);
    std::iota(row.pages.begin(), row.pages.end(), kBlocksPerSequence * sequence);
    if (end == total) row.sample = scheduler::SampleSpec{};
    return row;
  }

  std::vector<float> Step(std::vector<scheduler::PlanRow> rows) {
    return decoder_.Step({.rows = std::move(rows)});
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

  const std::vector<int32_t>& errors() const { return decoder_.errors(); }

 private:
  testing::DecoderBench decoder_;
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
  std::vector<scheduler::PlanRow> steps;
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

TEST_CASE("Decoder: an input that names nothing marks its row and no other",
          "[models][decoder][hostile]") {
  if (Missing()) return;
  Bench bench;
  const Prompt prompt = ReadPrompt("text_only.safetensors");
  const std::vector<float> alone = bench.Prefill(prompt, 512, 2);
  const auto total = static_cast<int32_t>(prompt.ids.size());
  std::vector<scheduler::PlanRow> rows = {bench.Row(prompt, 0, total, 0),
                                          bench.Row(prompt, 0, total, 1),
                                          bench.Row(prompt, 0, total, 2)};
  rows[0].token_ids[3] = 1 << 20;
  rows[1].token_ids.back() = -1;
  const std::vector<float> logits = bench.Step(std::move(rows));
  CHECK(bench.errors() == std::vector<int32_t>{1, 1, 0});
  CHECK(std::memcmp(&logits[2 * alone.size()], alone.data(), alone.size() * sizeof(float)) == 0);
}

}  // namespace triptych::models
