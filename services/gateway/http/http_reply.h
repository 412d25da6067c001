#pragma once

// The head of an answer, as bytes.

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "base/clock.h"

namespace triptych::services {

// What every answer to one request says besides its status.
struct ReplyFrame {
  int64_t unix_seconds = 0;  // the header Date
  std::string request_id;    // empty: none
  std::string trace_parent;  // of the request; empty: it is part of no trace
  std::string cors;          // whole header lines for an origin that is allowed, or nothing
  bool keep_alive = true;
  bool http10 = false;  // there keeping a connection must be told, and nothing is chunked
};

struct Reply {
  int status = 200;
  std::string body;
  const char* content_type = "application/json";
  const char* allow = "";  // of 405 and OPTIONS
  std::string more;        // further header lines, whole
  base::Duration retry_after{0};
};

// Status line and headers, up to the empty line. 429 and 503 say when to come again: `retry_after`
// in whole seconds, at least one.
std::string ReplyHead(const Reply& reply, const ReplyFrame& frame);
// The same for a stream of events, whose length nobody knows.
std::string StreamHead(const ReplyFrame& frame);

// Header lines that let a page of `origin` read the answer.
std::string CorsLines(absl::string_view origin);
// Those that a browser asks for before it posts. `headers` is what it wants to send, echoed where
// it is a list of names.
std::string PreflightLines(absl::string_view methods, absl::string_view headers);

}  // namespace triptych::services
