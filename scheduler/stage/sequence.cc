#include "scheduler/stage/sequence.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"

namespace triptych::scheduler {

Sequence::Sequence(PromptLayout layout, std::vector<int32_t> answer, int32_t kv_tokens,
                   SequenceLimits limits)
    : layout_(std::move(layout)),
      answer_(std::move(answer)),
      limits_(std::move(limits)),
      planned_(kv_tokens),
      done_(kv_tokens) {
  CHECK_LE(kv_tokens, known_tokens());
  CountPrompt();
  for (int32_t token : answer_) CountAnswer(token);
}

void Sequence::CountPrompt() {
  if (!limits_.sampling.has_penalty()) return;
  std::vector<int32_t> tokens(layout_.token_ids.begin(), layout_.token_ids.end());
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  for (int32_t token : tokens) uses_.push_back({.token = token, .in_prompt = 1});
}

void Sequence::CountAnswer(int32_t token) {
  if (!limits_.sampling.has_penalty()) return;
  auto use = std::lower_bound(uses_.begin(), uses_.end(), token,
                              [](const TokenUse& a, int32_t b) { return a.token < b; });
  if (use == uses_.end() || use->token != token) use = uses_.insert(use, {.token = token});
  ++use->in_answer;
}

int32_t Sequence::samples_in_flight() const {
  int32_t samples = 0;
  for (const RowInFlight& row : rows_) samples += row.samples;
  return samples;
}

StepId Sequence::WrittenBy(int32_t end) const {
  CHECK_LE(end, planned_);
  if (end <= done_) return StepId();
  for (const RowInFlight& row : rows_) {
    if (end <= row.end) return row.step;
  }
  return StepId();
}

int32_t Sequence::TokenAt(int32_t token) const {
  const int32_t prompt = prompt_tokens();
  if (token < prompt) return layout_.token_ids[token];
  // The last may still be in the making; its value is then ignored.
  return token < known_tokens() ? answer_[token - prompt] : 0;
}

int32_t Sequence::available() const {
  const int32_t samples = samples_in_flight();
  const int32_t total = known_tokens() + samples;
  const int32_t next_index = answer_tokens() + samples;
  if (next_index >= limits_.sample_limit || total > limits_.max_position) return 0;
  if (samples > 0 && !limits_.bad_words.empty()) return 0;
  return total - planned_;
}

SamplingParams Sequence::SamplingOf(int32_t index) const {
  SamplingParams params = limits_.sampling;
  const auto forbid = [&](int32_t token) {
    auto bias = std::find_if(params.biases.begin(), params.biases.end(),
                             [token](const TokenBias& other) { return other.token == token; });
    if (bias == params.biases.end()) bias = params.biases.insert(bias, {.token = token});
    bias->bias = -std::numeric_limits<float>::infinity();
  };
  if (index < limits_.min_tokens) {
    for (const int32_t token : limits_.stop_token_ids) forbid(token);
  }
  for (const TokenRun& word : limits_.bad_words) {
    const auto before = static_cast<int64_t>(word.ids.size()) - 1;
    if (answer_tokens() >= before &&
        std::equal(word.ids.begin(), word.ids.end() - 1, answer_.end() - before)) {
      forbid(word.ids.back());
    }
  }
  return params;
}

PlanRow Sequence::TakeRow(StepId step, int32_t row, int32_t count) {
  CHECK_TRUE(count > 0 && count <= available());
  PlanRow plan;
  plan.token_begin = planned_;
  for (int32_t i = 0; i < count; ++i) plan.token_ids.push_back(TokenAt(planned_ + i));
  plan.positions = layout_.Positions(planned_, planned_ + count);
  const int32_t samples = samples_in_flight();
  const int32_t end = planned_ + count;
  if (end > known_tokens()) {
    plan.sampled_by = SampledBy{rows_.back().step, rows_.back().row};
  }
  const bool last = end == known_tokens() + samples;
  if (last) {
    const int32_t index = answer_tokens() + samples;
    plan.sample = SampleSpec{SamplingOf(index), index, uses_};
  }
  rows_.push_back({step, row, end, last ? 1 : 0});
  planned_ = end;
  return plan;
}

bool Sequence::FinishRow(const std::vector<SampledToken>& sampled) {
  CHECK_TRUE(!rows_.empty());
  const RowInFlight row = rows_.front();
  rows_.pop_front();
  done_ = row.end;
  if (row.samples == 0) return true;
  if (sampled.empty()) return false;
  answer_.push_back(sampled.front().token);
  CountAnswer(answer_.back());
  return true;
}

Finish Sequence::finish() const {
  if (answer_.empty()) return Finish::kNone;
  const auto& stops = limits_.stop_token_ids;
  const bool may_stop = answer_tokens() > limits_.min_tokens;
  if (may_stop && std::find(stops.begin(), stops.end(), answer_.back()) != stops.end()) {
    return Finish::kStop;
  }
  const bool full = answer_tokens() >= limits_.max_tokens || known_tokens() > limits_.max_position;
  return full ? Finish::kLength : Finish::kNone;
}

}  // namespace triptych::scheduler
