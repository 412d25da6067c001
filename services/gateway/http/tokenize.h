#pragma once

// POST /tokenize and /detokenize, in the form of vLLM's: what a prompt comes to in tokens, and what
// tokens say.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/gateway/request/intake.h"

namespace triptych::services {

// {"prompt": text} or {"messages": [...]}, pictures included: their tokens are placeholders. The
// reservation covers the body while it is read. Errors as of a request for an answer.
absl::StatusOr<std::string> TokenizeJson(const Intake& intake, absl::string_view body,
                                         PayloadBudget::Reservation* reservation);

// {"tokens": [ids]}. INVALID_ARGUMENT for what is no id of the vocabulary.
absl::StatusOr<std::string> DetokenizeJson(const Intake& intake, absl::string_view body);

}  // namespace triptych::services
