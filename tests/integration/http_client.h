#pragma once

// A client of the OpenAI API over a plain socket, which can leave wherever it likes: in the middle
// of its request, or of its answer. One thread.

#include <string>

#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "triptych/v1/inference.pb.h"

namespace triptych::testing {

// The same request as JSON, streamed. Pictures become data: URLs.
std::string HttpBody(const v1::GenerateRequest& request);
// Header and body of a POST.
std::string HttpRequest(const std::string& body);

class HttpClient {
 public:
  // Requires that `address`, 127.0.0.1:port, accepts.
  explicit HttpClient(const std::string& address);
  ~HttpClient() { Leave(); }

  void Send(absl::string_view bytes);
  // Reads until so many tokens have come; false when the stream ended or `timeout` passed before.
  bool WaitTokens(int count, base::Duration timeout);
  // Closes the connection at once; what has not been read is lost.
  void Leave();

 private:
  int socket_ = -1;
  std::string received_;
};

}  // namespace triptych::testing
