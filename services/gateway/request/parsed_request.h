#pragma once

// A request that passed every check: what the scheduler is told, what workers pull, and what the
// gateway needs to write the answer.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "scheduler/plan/gateway_messages.h"
#include "services/gateway/request/payload_budget.h"
#include "services/gateway/trace/trace_context.h"

namespace triptych::services {

// One picture or video of a request: files, and what was measured from their headers.
struct PayloadItem {
  scheduler::ItemKind kind = scheduler::ItemKind::kImage;
  scheduler::Grid grid;
  std::vector<std::string> frames;
  double fps = 0;
  uint64_t tenant = 0;  // stands for it
};

// All media of one request, with their share of the budget.
struct Payload {
  std::vector<PayloadItem> items;
  PayloadBudget::Reservation reservation;
};

// How tokens become an answer's text, and where it ends.
struct AnswerRules {
  std::vector<std::string> stop;
  bool include_stop = false;        // what ended the answer stays in its text
  bool skip_special_tokens = true;  // control tokens have no text
  int32_t min_tokens = 0;           // no stop string is looked for before
};

struct ParsedRequest {
  std::string client_id;            // of this request alone; empty: to be drawn
  std::string tag;                  // the client's own name for it, for logs; may be shared
  TraceContext trace;               // that the request is a part of
  scheduler::SubmitRequest submit;  // without the request's id and deadline
  scheduler::PulledInput input;
  std::shared_ptr<const Payload> payload;  // shared by the answers to one prompt
  AnswerRules answer;
  int32_t picture_tokens = 0;
  bool seed_given = false;
  base::Duration timeout{0};
};

}  // namespace triptych::services
