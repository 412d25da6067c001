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

namespace triptych::services {

// One picture or video of a request: files, and what was measured from their headers.
struct PayloadItem {
  scheduler::ItemKind kind = scheduler::ItemKind::kImage;
  scheduler::Grid grid;
  std::vector<std::string> frames;
  double fps = 0;
};

// All media of one request, with their share of the budget.
struct Payload {
  std::vector<PayloadItem> items;
  PayloadBudget::Reservation reservation;
};

struct ParsedRequest {
  std::string client_id;            // empty: to be drawn
  scheduler::SubmitRequest submit;  // without the request's id and deadline
  scheduler::PulledInput input;
  std::unique_ptr<const Payload> payload;
  std::vector<std::string> stop;
  int32_t picture_tokens = 0;
  bool seed_given = false;
  base::Duration timeout{0};
};

}  // namespace triptych::services
