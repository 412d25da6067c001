#pragma once

// How a load generator reaches a server: one API each. Requests run side by side, without a thread
// a request.

#include "absl/status/status.h"
#include "triptych/v1/inference.pb.h"

namespace triptych::services {

// Hears of one request, from the client's threads, in order.
class LoadListener {
 public:
  virtual ~LoadListener() = default;
  // A part of the answer has come; the tokens it carried, at least 1 where the API does not say.
  virtual void OnPart(int tokens) = 0;
  // Last, exactly once. `output_tokens` of the whole answer; 0: the server did not say.
  // An error has the server's own words as its message.
  virtual void OnEnd(const absl::Status& status, int output_tokens) = 0;
};

class LoadClient {
 public:
  // After every request has ended.
  virtual ~LoadClient() = default;
  // Does not block. `listener` is borrowed until its OnEnd.
  virtual void Send(const v1::GenerateRequest& request, LoadListener* listener) = 0;
};

}  // namespace triptych::services
