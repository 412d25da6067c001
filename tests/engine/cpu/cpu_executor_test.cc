// What is defended: steps of a lane run in order, beside the other lane and the copies; a sequence
// handed over as bytes goes on with the same tokens as one that stayed.

#include "engine/cpu/cpu_executor.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <deque>
#include <numeric>

#include "base/checksum.h"
#include "base/mutex.h"
#include "models/weights/checkpoint.h"
#include "models/weights/safetensors.h"
#include "tests/models/patches.h"
#include "tests/models/reference_files.h"
#include "tests/support/skip.h"

namespace triptych::engine {
namespace {

using scheduler::BufferId;
using scheduler::StepId;
using scheduler::TaskId;

constexpr TaskId kTask{.scheduler = {}, .number = 7};

// What an engine's threads tell, in order; taken by the test.
template <typename Event>
class Told {
 public:
  void Put(Event event) {
    base::MutexLock lock(&mutex_);
    events_.push_back(std::move(event));
    ready_.NotifyOne();
  }
  Event Take() {
    base::MutexLock lock(&mutex_);
    while (events_.empty()) ready_.Wait(&mutex_);
    Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  base::Mutex mutex_;
  base::CondVar ready_;
  std::deque<Event> events_ ABSL_GUARDED_BY(mutex_);
};

// One engine and the verbs of a test.
class Engine {
 public:
  Engine() {
    const std::string dir = triptych::testing::SmallModelDir();
    const auto config = models::LoadModelConfig(dir);
    const auto weights = models::Checkpoint::Open(dir);
    REQUIRE((config.ok() && weights.ok()));
    auto made = CpuExecutor::Create(
        {.kv_blocks = 256}, *config, **weights, clock_,
        {.on_result = [this](scheduler::StepResult r) { results.Put(std::move(r)); },
         .on_import = [this](BufferId buffer) { imports.Put(buffer); },
         .on_export = [this](scheduler::ExportResult r) { exports.Put(r); }});
    REQUIRE(made.ok());
    executor_ = *std::move(made);
  }
  scheduler::StepResult Run(scheduler::StepPlan plan) {
    Submit(std::move(plan));
    return results.Take();
  }
  void Submit(scheduler::StepPlan plan) {
    plan.id = StepId(++last_steps_[static_cast<int>(plan.lane)]);
    executor_->Submit(std::move(plan));
  }
  CpuExecutor& executor() { return *executor_; }

  Told<scheduler::StepResult> results;
  Told<BufferId> imports;
  Told<scheduler::ExportResult> exports;

 private:
  base::RealClock clock_;
  uint64_t last_steps_[scheduler::kNumLanes] = {};
  std::unique_ptr<CpuExecutor> executor_;
};

// The first reference picture and its question.
struct Question {
  EncodeInput input;
  std::vector<int32_t> ids, greedy;
  std::vector<scheduler::Position3> positions;
};

Question ReadQuestion() {
  auto file =
      models::SafetensorsFile::Open(triptych::testing::StageGoldenDir() + "/0000.safetensors");
  REQUIRE(file.ok());
  const auto ints = [&](const char* name) {
    const std::vector<int64_t> values = models::ToInt64s(*file->Get(name));
    return std::vector<int32_t>(values.begin(), values.end());
  };
  const std::vector<int32_t> grid = ints("grid_thw"), at = ints("position_ids");
  const auto config = models::LoadModelConfig(triptych::testing::SmallModelDir());
  REQUIRE(config.ok());
  models::Frames frames = triptych::testing::FramesOfPatches(
      models::ToFloats(*file->Get("pixel_values")), {grid[0], grid[1], grid[2]}, *config);
  Question question{.input = {frames.grid, frames.count, std::move(frames.pixels)},
                    .ids = ints("input_ids"),
                    .greedy = ints("greedy_tokens"),
                    .positions = {}};
  const size_t count = question.ids.size();
  for (size_t i = 0; i < count; ++i) {
    question.positions.push_back({at[i], at[count + i], at[2 * count + i]});
  }
  return question;
}

std::vector<scheduler::BlockId> Pages(int32_t first) {
  std::vector<scheduler::BlockId> pages(16);
  std::iota(pages.begin(), pages.end(), first);
  return pages;
}

// Embeddings in pages that do not follow each other.
std::vector<scheduler::BlockId> SlotPages(const Question& question) {
  std::vector<scheduler::BlockId> pages((question.input.grid.patches() / 4 + 63) / 64);
  std::iota(pages.begin(), pages.end(), 7);
  std::reverse(pages.begin(), pages.end());
  return pages;
}

scheduler::StepPlan EncodePlan(const Question& question) {
  const auto visual = static_cast<int32_t>(question.input.grid.patches() / 4);
  return {.lane = scheduler::Lane::kEncode,
          .encodes = {{kTask, question.input.grid, visual, SlotPages(question)}}};
}

// The whole prompt, whose picture has been encoded.
scheduler::StepPlan PrefillPlan(const Question& question) {
  const auto visual = static_cast<int32_t>(question.input.grid.patches() / 4);
  const auto first = static_cast<int32_t>(
      std::find(question.ids.begin(), question.ids.end(), 1023) - question.ids.begin());
  scheduler::StepPlan plan;
  plan.rows.push_back({.task = kTask,
                       .first_token = 0,
                       .token_ids = question.ids,
                       .positions = question.positions,
                       .embeddings = {{first, visual, 0, SlotPages(question)}},
                       .pages = Pages(3),
                       .sample = scheduler::SampleSpec{}});
  return plan;
}

// The token after `question`'s prompt plus `offset` answered tokens.
scheduler::PlanRow DecodeRow(const Question& question, int32_t offset, int32_t token,
                             int32_t first_page) {
  const int32_t at = question.positions.back().t + 1 + offset;
  return {.task = kTask,
          .first_token = static_cast<int32_t>(question.ids.size()) + offset,
          .token_ids = {token},
          .positions = {{at, at, at}},
          .pages = Pages(first_page),
          .sample = scheduler::SampleSpec{.params = {}, .index = offset + 1}};
}

bool Missing() {
  if (!triptych::testing::SmallModelDir().empty() && !triptych::testing::StageGoldenDir().empty()) {
    return false;
  }
  triptych::testing::SkipTest("the small model or its reference results are not here");
  return true;
}

}  // namespace

TEST_CASE("CpuExecutor: encode, prefill and decode answer as the published implementation",
          "[engine][golden]") {
  if (Missing()) return;
  const Question question = ReadQuestion();
  Engine engine;
  engine.executor().ProvideInput(kTask, question.input);
  engine.Run(EncodePlan(question));
  engine.executor().DropInput(kTask);
  scheduler::StepResult result = engine.Run(PrefillPlan(question));
  std::vector<int32_t> answer;
  for (size_t i = 0; i < question.greedy.size(); ++i) {
    REQUIRE(result.rows.at(0).tokens.size() == 1);
    answer.push_back(result.rows[0].tokens[0].token);
    scheduler::StepPlan plan;
    plan.rows.push_back(DecodeRow(question, static_cast<int32_t>(i), answer.back(), 3));
    result = engine.Run(std::move(plan));
  }
  CHECK(answer == question.greedy);
}

TEST_CASE("CpuExecutor: KV handed over as bytes goes on with the same tokens", "[engine][memory]") {
  if (Missing()) return;
  const Question question = ReadQuestion();
  Engine engine;
  engine.executor().ProvideInput(kTask, question.input);
  engine.Run(EncodePlan(question));
  const auto tokens = static_cast<int32_t>(question.ids.size());
  const int64_t bytes = tokens * engine.executor().capacity().kv_bytes_per_token;
  const scheduler::PieceBuffer buffer{BufferId(1), 4096, bytes};
  const scheduler::CacheRange all{.token_end = tokens,
                                  .layer_end = engine.executor().capacity().num_layers};
  // Submitted before its step has begun, it waits for that step.
  const StepId step(1);
  engine.Submit(PrefillPlan(question));
  engine.executor().Export({kTask, step, buffer, all, Pages(3)});
  scheduler::StepResult result = engine.results.Take();
  const scheduler::ExportResult exported = engine.exports.Take();
  CHECK(exported.buffer == buffer.id);
  const TransferRegions& regions = engine.executor().transfer_regions();
  const absl::Span<uint8_t> staged = regions.Staging(buffer).HostBytes();
  CHECK(exported.checksum == base::Checksum64(staged.data(), staged.size()));
  const int32_t first = result.rows.at(0).tokens.at(0).token;
  const absl::Span<uint8_t> landing = regions.Landing(buffer).HostBytes();
  std::copy(staged.begin(), staged.end(), landing.begin());
  Told<uint64_t> checksums;
  engine.executor().ChecksumLanded(buffer, [&](uint64_t sum) { checksums.Put(sum); });
  CHECK(checksums.Take() == exported.checksum);
  engine.executor().Import({kTask, buffer, all, Pages(100)});
  CHECK(engine.imports.Take() == buffer.id);
  scheduler::StepPlan decode;
  decode.rows.push_back(DecodeRow(question, 0, first, 100));
  result = engine.Run(std::move(decode));
  CHECK(result.rows.at(0).tokens.at(0).token == question.greedy.at(1));
}

TEST_CASE("CpuExecutor: a row takes the token that an unfinished step samples", "[engine]") {
  if (Missing()) return;
  const Question question = ReadQuestion();
  Engine engine;
  engine.executor().ProvideInput(kTask, question.input);
  engine.Run(EncodePlan(question));
  scheduler::StepPlan decode;
  decode.rows.push_back(DecodeRow(question, 0, -1, 3));
  decode.rows[0].sampled_by = scheduler::SampledBy{StepId(1), 0};
  engine.Submit(PrefillPlan(question));
  engine.Submit(std::move(decode));
  CHECK(engine.results.Take().rows.at(0).tokens.at(0).token == question.greedy.at(0));
  CHECK(engine.results.Take().rows.at(0).tokens.at(0).token == question.greedy.at(1));
}

TEST_CASE("CpuExecutor: rows do not wait for more than one item of an encode step", "[engine]") {
  if (Missing()) return;
  const Question question = ReadQuestion();
  Engine engine;
  engine.executor().ProvideInput(kTask, question.input);
  engine.Run(EncodePlan(question));
  engine.Run(PrefillPlan(question));
  scheduler::StepPlan many = EncodePlan(question);
  for (uint64_t i = 1; i <= 3; ++i) {
    many.encodes.push_back(many.encodes.front());
    many.encodes.back().task.number += i;
  }
  // An encode uses its input up.
  for (const scheduler::EncodeRow& row : many.encodes) {
    engine.executor().ProvideInput(row.task, question.input);
  }
  engine.Submit(std::move(many));
  scheduler::StepPlan decode;
  decode.rows.push_back(DecodeRow(question, 0, question.greedy.at(0), 3));
  engine.Submit(std::move(decode));
  CHECK(engine.results.Take().lane == scheduler::Lane::kLanguage);
  CHECK(engine.results.Take().lane == scheduler::Lane::kEncode);
}

TEST_CASE("CpuExecutor: regions that cannot be had are refused", "[engine][memory]") {
  if (Missing()) return;
  const std::string dir = triptych::testing::SmallModelDir();
  const auto config = models::LoadModelConfig(dir);
  const auto weights = models::Checkpoint::Open(dir);
  REQUIRE((config.ok() && weights.ok()));
  base::RealClock clock;
  const auto made = CpuExecutor::Create({.kv_blocks = 16, .landing_bytes = int64_t{1} << 56},
                                        *config, **weights, clock, {});
  CHECK(absl::IsResourceExhausted(made.status()));
}

}  // namespace triptych::engine
