#pragma once

// How a client wants tokens to be drawn, checked and turned into what an engine is told: biases and
// single-token words become one list of token ids. What each number does: kernels/sample.h.

#include "absl/status/status.h"
#include "scheduler/plan/gateway_messages.h"
#include "services/gateway/request/chat_request.h"
#include "services/gateway/request/served_model.h"

namespace triptych::services {

// Fills sampling and bad_words of `input`. INVALID_ARGUMENT, with the member as `param`, for a
// number out of its range, a token that the model does not have or that is named twice.
absl::Status SetSampling(const ChatRequest& request, const ServedModel& model,
                         scheduler::PulledInput* input);

}  // namespace triptych::services
