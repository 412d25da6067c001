#pragma once

// What clients are told when something is refused: one table for HTTP and gRPC. A status that is
// meant for a client has a message that is one of the table's codes, alone or followed by ": " and
// a sentence of ours; anything else is shown by its canonical code only, never by its text.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace triptych::services {

// One refusal as clients see it. All texts live as long as the process.
struct ClientError {
  const char* code;     // "image_too_large"
  int http_status;      // 400
  const char* type;     // "invalid_request_error"
  std::string message;  // a sentence with fixed text, and numbers or names of ours
  std::string param;    // the member that is wrong, "messages[0].content[2]"; empty: none
};

// Never for an OK status.
ClientError ToClientError(const absl::Status& status);

// The status with the client's code and sentence as its message and the same canonical code: what a
// gRPC client gets.
absl::Status ToClientStatus(const absl::Status& status);

// Every code of the table, for what counts them.
std::vector<const char*> ClientErrorCodes();
// Every HTTP status of an answer, good ones included.
std::vector<int> HttpStatuses();

// Shorthands for refusals of our own. `code` is one of the table's.
absl::Status Refuse(const char* code);
absl::Status Refuse(const char* code, absl::string_view sentence);

// The refusal with the member that earned it. What was said first, inside, stays behind a dot:
// At("messages[0]", At("content[1]", ...)).
absl::Status At(absl::string_view member, absl::Status refusal);

}  // namespace triptych::services
