#pragma once

// The first reference picture with its question and answer, and the plans that put it to an engine:
// the same for every device.

#include <algorithm>
#include <catch2/catch.hpp>
#include <deque>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "engine/executor.h"
#include "models/config/model_config.h"
#include "models/weights/safetensors.h"
#include "models/weights/tensor_view.h"
#include "scheduler/plan/step_plan.h"
#include "tests/models/patches.h"
#include "tests/models/reference_files.h"
#include "tests/support/skip.h"

namespace triptych::engine {

inline constexpr scheduler::TaskId kTask{.scheduler = {}, .number = 7};

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

struct Question {
  EncodeInput input;
  std::vector<int32_t> ids, greedy;
  std::vector<scheduler::Position3> positions;
};

inline Question ReadQuestion(const std::string& name = "0000") {
  auto file = models::SafetensorsFile::Open(triptych::testing::StageGoldenDir() + "/" + name +
                                            ".safetensors");
  REQUIRE(file.ok());
  const auto ints = [&](const char* tensor) {
    const std::vector<int64_t> values = models::ToInt64s(*file->Get(tensor));
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

inline std::vector<scheduler::BlockId> Pages(int32_t first) {
  std::vector<scheduler::BlockId> pages(16);
  std::iota(pages.begin(), pages.end(), first);
  return pages;
}

// Embeddings in pages that do not follow each other.
inline std::vector<scheduler::BlockId> SlotPages(const Question& question) {
  std::vector<scheduler::BlockId> pages((question.input.grid.patches() / 4 + 63) / 64);
  std::iota(pages.begin(), pages.end(), 7);
  std::reverse(pages.begin(), pages.end());
  return pages;
}

inline scheduler::StepPlan EncodePlan(const Question& question) {
  const auto visual = static_cast<int32_t>(question.input.grid.patches() / 4);
  return {.lane = scheduler::Lane::kEncode,
          .encodes = {{kTask, question.input.grid, visual, SlotPages(question)}}};
}

// The whole prompt, whose picture has been encoded.
inline scheduler::StepPlan PrefillPlan(const Question& question) {
  const auto visual = static_cast<int32_t>(question.input.grid.patches() / 4);
  const auto first = static_cast<int32_t>(
      std::find(question.ids.begin(), question.ids.end(), 1023) - question.ids.begin());
  scheduler::StepPlan plan;
  plan.rows.push_back({.task = kTask,
                       .token_begin = 0,
                       .token_ids = question.ids,
                       .positions = question.positions,
                       .embeddings = {{first, visual, 0, SlotPages(question)}},
                       .pages = Pages(3),
                       .sample = scheduler::SampleSpec{}});
  return plan;
}

// The token after `question`'s prompt plus `offset` answered tokens.
inline scheduler::PlanRow DecodeRow(const Question& question, int32_t offset, int32_t token,
                                    int32_t first_page) {
  const int32_t at = question.positions.back().t + 1 + offset;
  return {.task = kTask,
          .token_begin = static_cast<int32_t>(question.ids.size()) + offset,
          .token_ids = {token},
          .positions = {{at, at, at}},
          .pages = Pages(first_page),
          .sample = scheduler::SampleSpec{.params = {}, .index = offset + 1}};
}

// Decode of answer token 1, whose input, token 0, the first step still samples.
inline scheduler::StepPlan UnknownTokenPlan(const Question& question) {
  scheduler::StepPlan plan;
  plan.rows.push_back(DecodeRow(question, 0, -1, 3));
  plan.rows[0].sampled_by = scheduler::SampledBy{scheduler::StepId(1), 0};
  return plan;
}

inline bool ReferencesMissing() {
  if (!triptych::testing::SmallModelDir().empty() && !triptych::testing::StageGoldenDir().empty()) {
    return false;
  }
  triptych::testing::SkipTest("the small model or its reference results are not here");
  return true;
}

// An engine and the verbs of a test; `make(events)` makes it.
class EngineBench {
 public:
  template <typename Make>
  explicit EngineBench(Make make) {
    executor_ = make(
        ExecutorEvents{.on_result = [this](scheduler::StepResult r) { results.Put(std::move(r)); },
                       .on_import = [this](scheduler::BufferId buffer) { imports.Put(buffer); },
                       .on_export = [this](scheduler::ExportResult r) { exports.Put(r); }});
  }
  ~EngineBench() { executor_.reset(); }

  scheduler::StepResult Run(scheduler::StepPlan plan) {
    Submit(std::move(plan));
    return results.Take();
  }
  void Submit(scheduler::StepPlan plan) {
    plan.id = scheduler::StepId(++last_steps_[static_cast<int>(plan.lane)]);
    executor_->Submit(std::move(plan));
  }
  Executor& executor() { return *executor_; }

  Told<scheduler::StepResult> results;
  Told<scheduler::BufferId> imports;
  Told<scheduler::ExportResult> exports;

 private:
  uint64_t last_steps_[scheduler::kNumLanes] = {};
  std::unique_ptr<Executor> executor_;
};

// Requires that penalties and biases reach the draw: of the prompt's first token, and of the one
// after it, whose predecessor is known to the engine alone.
template <typename Make>
void CheckDraws(const Question& question, Make make) {
  EngineBench engine(make);
  engine.executor().ProvideInput(kTask, question.input);
  engine.Run(EncodePlan(question));
  const auto first = [&](const scheduler::SamplingParams& params,
                         std::vector<scheduler::TokenUse> uses = {}) {
    scheduler::StepPlan plan = PrefillPlan(question);
    plan.rows[0].sample = scheduler::SampleSpec{.params = params, .uses = std::move(uses)};
    return engine.Run(std::move(plan)).rows.at(0).tokens.at(0);
  };
  const scheduler::SampledToken plain = first({.top_logprobs = 2});
  REQUIRE(plain.top.size() == 2);
  const int32_t best = question.greedy.at(0), second = plain.top[1].token;
  REQUIRE(plain.token == best);
  constexpr float kForbidden = -std::numeric_limits<float>::infinity();
  CHECK(first({.biases = {{best, kForbidden}}}).token == second);
  CHECK(first({.biases = {{second, 1000}}}).token == second);
  const scheduler::TokenUse used{.token = best, .in_answer = 2};
  const float gap = plain.top[0].logprob - plain.top[1].logprob;
  CHECK(first({.presence_penalty = gap * 0.9f}, {used}).token == best);
  CHECK(first({.presence_penalty = gap * 1.1f}, {used}).token == second);
  CHECK(first({.frequency_penalty = gap * 0.6f}, {used}).token == second);
  const scheduler::TokenUse asked{.token = best, .in_prompt = 1};
  CHECK(first({.presence_penalty = gap * 1.1f}, {asked}).token == best);
  CHECK(first({.repetition_penalty = 1000}, {asked}).token != best);
  // Of two likeliest ones min_p keeps the first alone, however hot the draw.
  for (uint64_t seed = 0; seed < 8; ++seed) {
    CHECK(first({.temperature = 50, .seed = seed, .min_p = 1}).token == best);
  }
  CHECK(first({.temperature = 50, .seed = 3}).token != best);
  // The second token, boosted for its being in the answer: only the engine knows that it is.
  EngineBench other(make);
  other.executor().ProvideInput(kTask, question.input);
  other.Run(EncodePlan(question));
  scheduler::StepPlan next = UnknownTokenPlan(question);
  next.rows[0].sample->params.presence_penalty = -1000;
  other.Submit(PrefillPlan(question));
  other.Submit(std::move(next));
  CHECK(other.results.Take().rows.at(0).tokens.at(0).token == best);
  CHECK(other.results.Take().rows.at(0).tokens.at(0).token == best);
}

// The greedy answer by an encode, a prefill and decode steps, each after the one before.
inline std::vector<int32_t> GreedyAnswer(EngineBench& engine, const Question& question) {
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
  return answer;
}

}  // namespace triptych::engine
