#include "services/gateway/http/http_reply.h"

#include <algorithm>
#include <boost/beast/http/status.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace triptych::services {
namespace {

namespace http = boost::beast::http;

absl::string_view Reason(int status) {
  if (status == 499) return "Client Closed Request";
  const auto reason = http::obsolete_reason(static_cast<http::status>(status));
  return {reason.data(), reason.size()};
}

// RFC 9110, 5.6.7.
std::string HttpDate(int64_t unix_seconds) {
  return absl::FormatTime("%a, %d %b %E4Y %H:%M:%S GMT", absl::FromUnixSeconds(unix_seconds),
                          absl::UTCTimeZone());
}

void AppendFrame(const ReplyFrame& frame, std::string* head) {
  absl::StrAppend(head, "Date: ", HttpDate(frame.unix_seconds), "\r\n");
  if (!frame.request_id.empty()) {
    absl::StrAppend(head, "X-Request-Id: ", frame.request_id, "\r\n");
  }
  if (!frame.trace_parent.empty()) {
    absl::StrAppend(head, "traceparent: ", frame.trace_parent, "\r\n");
  }
  *head += frame.cors;
  if (!frame.keep_alive) {
    *head += "Connection: close\r\n";
  } else if (frame.http10) {
    *head += "Connection: keep-alive\r\n";
  }
}

}  // namespace

std::string ReplyHead(const Reply& reply, const ReplyFrame& frame) {
  std::string head = absl::StrCat("HTTP/1.1 ", reply.status, " ", Reason(reply.status), "\r\n");
  if (reply.status != 204) {
    absl::StrAppend(&head, "Content-Type: ", reply.content_type,
                    "\r\nContent-Length: ", reply.body.size(), "\r\n");
  }
  if (*reply.allow != '\0') absl::StrAppend(&head, "Allow: ", reply.allow, "\r\n");
  if (reply.status == 429 || reply.status == 503) {
    const auto seconds =
        std::chrono::ceil<std::chrono::seconds>(std::max(reply.retry_after, base::Duration(1)));
    absl::StrAppend(&head, "Retry-After: ", seconds.count(), "\r\n");
  }
  head += reply.more;
  AppendFrame(frame, &head);
  head += "\r\n";
  return head;
}

std::string StreamHead(const ReplyFrame& frame) {
  std::string head =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
      // Some proxies gather what is not declared otherwise.
      "X-Accel-Buffering: no\r\n";
  if (!frame.http10) head += "Transfer-Encoding: chunked\r\n";
  AppendFrame(frame, &head);
  head += "\r\n";
  return head;
}

std::string CorsLines(absl::string_view origin) {
  return absl::StrCat(
      "Access-Control-Allow-Origin: ", origin,
      "\r\nAccess-Control-Expose-Headers: X-Request-Id, Retry-After, traceparent\r\n"
      "Vary: Origin\r\n");
}

std::string PreflightLines(absl::string_view methods, absl::string_view headers) {
  constexpr size_t kLongest = 1024;
  const bool names =
      !headers.empty() && headers.size() <= kLongest &&
      std::all_of(headers.begin(), headers.end(), [](char c) {
        return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == ',' || c == ' ';
      });
  return absl::StrCat("Access-Control-Allow-Methods: ", methods,
                      "\r\nAccess-Control-Allow-Headers: ",
                      names ? headers : "Authorization, Content-Type, X-Request-Id, traceparent",
                      "\r\nAccess-Control-Max-Age: 600\r\n");
}

}  // namespace triptych::services
