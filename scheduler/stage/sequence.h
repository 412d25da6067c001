#pragma once

// The tokens of one prefill or decode task: prompt, answer so far, and how far its KV is planned
// and done. Builds rows; owns no blocks. Token i of the sequence is prompt token i, or answer token
// i - prompt_tokens().

#include <cstdint>
#include <deque>
#include <vector>

#include "scheduler/plan/gateway_messages.h"
#include "scheduler/plan/step_plan.h"
#include "scheduler/request/layout.h"

namespace triptych::scheduler {

struct SequenceLimits {
  SamplingParams sampling;
  int32_t max_tokens = 0;    // of the answer
  int32_t sample_limit = 0;  // this task samples answer tokens below this index
  int32_t max_position = 0;  // longest sequence in tokens
  int32_t min_tokens = 0;    // no stop token is drawn among these
  std::vector<int32_t> stop_token_ids;
  std::vector<TokenRun> bad_words;  // runs of at least two tokens that the answer never holds
};

class Sequence {
 public:
  // `answer` are answer tokens that are already known; KV of tokens [0, kv_tokens) is there.
  Sequence(PromptLayout layout, std::vector<int32_t> answer, int32_t kv_tokens,
           SequenceLimits limits);

  const PromptLayout& layout() const { return layout_; }
  int32_t prompt_tokens() const { return layout_.num_tokens(); }
  int32_t answer_tokens() const { return static_cast<int32_t>(answer_.size()); }
  int32_t known_tokens() const { return prompt_tokens() + answer_tokens(); }
  // KV of tokens [0, planned()) is in submitted steps, of [0, done()) in finished ones.
  int32_t planned() const { return planned_; }
  int32_t done() const { return done_; }

  // The step in flight that writes the KV of token `end` - 1; 0 when that is done. `end` is at most
  // planned().
  StepId WrittenBy(int32_t end) const;

  // Tokens that the next row may take, from planned() on: their values are known, or a step in
  // flight samples the last. 0 when the next row could sample nothing that is allowed, or, with bad
  // words, nothing before the step in flight has told its token.
  int32_t available() const;

  // Plans the next `count` (1 .. available()) tokens as row number `row` of step `step`. Pages and
  // embeddings are left to the caller.
  PlanRow TakeRow(StepId step, int32_t row, int32_t count);

  // The oldest row in flight is done; `sampled` is its result. False when that row was to sample a
  // token and brought none.
  bool FinishRow(const std::vector<SampledToken>& sampled);

  // Whether the last known answer token ends the answer, and how.
  Finish finish() const;

 private:
  struct RowInFlight {
    StepId step;
    int32_t row = 0;
    int32_t end = 0;
    int32_t samples = 0;  // 0 or 1
  };
  int32_t samples_in_flight() const;
  int32_t TokenAt(int32_t token) const;
  // How answer token `index` is drawn: ends that come too early are forbidden, and tokens that
  // would complete a bad word.
  SamplingParams SamplingOf(int32_t index) const;
  // Keeps `uses_`; nothing without a penalty.
  void CountPrompt();
  void CountAnswer(int32_t token);

  PromptLayout layout_;
  std::vector<int32_t> answer_;
  SequenceLimits limits_;
  std::vector<TokenUse> uses_;  // by token; of the prompt and the known answer, with a penalty
  int32_t planned_;
  int32_t done_;
  std::deque<RowInFlight> rows_;
};

}  // namespace triptych::scheduler
