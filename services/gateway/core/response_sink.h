#pragma once

// Where the core puts an answer: one for each request, implemented by each front end.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "scheduler/plan/step_plan.h"
#include "scheduler/plan/worker_messages.h"

namespace triptych::services {

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t picture_tokens = 0;  // of prompt_tokens
  int32_t cached_tokens = 0;   // of prompt_tokens
  int32_t output_tokens = 0;   // with the stop token
};

// Where the time went: v1::Timeline as plain data, microseconds and bytes, 0 where unknown.
struct Timeline {
  int64_t queue_us = 0;
  int64_t media_decode_us = 0;
  int64_t encode_us = 0;
  int64_t embedding_transfer_us = 0;
  int64_t embedding_bytes = 0;
  int64_t prefill_us = 0;
  int64_t kv_transfer_us = 0;
  int64_t kv_bytes = 0;
  int64_t first_token_us = 0;
  int64_t total_us = 0;
  double tokens_per_second = 0;
};

// New text with the tokens that arrived with it. The text of a token may come with a later part.
struct AnswerPart {
  std::string text;
  std::vector<scheduler::SampledToken> tokens;
};

struct AnswerEnd {
  absl::Status status;  // OK: `finish` says why it ended
  base::Duration retry_after{0};
  scheduler::Finish finish = scheduler::Finish::kNone;
  Usage usage;
  Timeline timeline;
};

// Called on the core's thread: must not block. OnEnd comes exactly once, last. OnAdmitted may come
// never, late, or more than once.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;
  virtual void OnAdmitted() {}
  virtual void OnPart(AnswerPart part) = 0;
  virtual void OnEnd(const AnswerEnd& end) = 0;
};

}  // namespace triptych::services
