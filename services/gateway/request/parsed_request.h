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

// All media of one request, immutable. Shared between the request's record and pulls in progress:
// a pull that has begun ends with the bytes that it began with, even when the request is over.
struct Payload {
  std::vector<PayloadItem> items;
  PayloadBudget::Reservation reservation;
};

struct ParsedRequest {
  std::string client_id;            // empty: to be drawn
  scheduler::SubmitRequest submit;  // without the request's id and deadline
  scheduler::PulledInput input;
  std::shared_ptr<const Payload> payload;  // shared: see Payload
  std::vector<std::string> stop;
  int32_t picture_tokens = 0;
  bool seed_given = false;
  base::Duration timeout{0};
};

}  // namespace triptych::services
