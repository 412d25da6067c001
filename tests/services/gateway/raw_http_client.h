#pragma once

// A client that speaks HTTP/1.1 byte by byte, so that it can speak it wrongly. One thread.

#include <map>
#include <string>

#include "absl/strings/string_view.h"
#include "base/clock.h"

namespace triptych::services::testing {

struct HttpReply {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // without its chunks

  // Empty when there is none.
  std::string header(const std::string& name) const;
};

// The code of an error; requires the one shape that errors have, and the same id in the header.
std::string ErrorCode(const HttpReply& reply);

// Header and body of a request for the chat.
std::string Post(absl::string_view body, absl::string_view more_headers = "");
std::string PostTo(absl::string_view path, absl::string_view body);
std::string Get(absl::string_view path, absl::string_view method = "GET");

class RawHttpClient {
 public:
  // Nothing that is waited for may take longer.
  static constexpr base::Duration kPatience = std::chrono::seconds(20);

  // Requires that `address`, 127.0.0.1:port, accepts.
  explicit RawHttpClient(const std::string& address);
  RawHttpClient(const RawHttpClient&) = delete;
  RawHttpClient& operator=(const RawHttpClient&) = delete;
  ~RawHttpClient() { Leave(); }

  // False when the server has closed the connection.
  bool Send(absl::string_view bytes);

  // One whole answer; requires that it comes. What follows it stays for the next.
  enum class Body { kAsAnnounced, kNone };
  HttpReply Read(Body body = Body::kAsAnnounced);
  // Requires that `text` comes in what has not been read as a reply; it stays there.
  void WaitFor(absl::string_view text);
  // What has come and has not been read as a reply, without waiting.
  const std::string& Peek();
  // True when the server closes, and says nothing more before.
  bool Closed();
  // No more is sent, but the answer can be read.
  void CloseSending();
  void Leave();

 private:
  // Waits for more bytes; false at the end of the stream.
  bool Receive();
  // A line of the answer without its end.
  std::string Line();
  std::string Bytes(size_t count);
  std::string Chunks();

  int socket_ = -1;
  std::string received_;
};

}  // namespace triptych::services::testing
