#include "services/runtime/http_call.h"

#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"

namespace triptych::services {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Error = boost::system::error_code;
using Tcp = asio::ip::tcp;

// Most that an admin page may be.
constexpr uint64_t kMaxReplyBytes = 16 << 20;

// One exchange; its operations follow one another on the context that the caller runs.
class Exchange {
 public:
  using Request = http::request<http::string_body>;

  Exchange(asio::io_context* context, const HostPort& to, Request request)
      : resolver_(*context), stream_(*context), request_(std::move(request)) {
    request_.set(http::field::host, to.host);
    request_.keep_alive(false);
    request_.prepare_payload();
    parser_.body_limit(kMaxReplyBytes);
    resolver_.async_resolve(to.host, to.port, [this](Error error, const auto& found) {
      if (Failed("unknown host", error)) return;
      stream_.async_connect(found, [this](Error refused, const Tcp::endpoint&) {
        if (!Failed("cannot connect", refused)) Send();
      });
    });
  }

  absl::StatusOr<HttpReply> Result(const std::string& address) {
    if (done_) {
      return HttpReply{.status = static_cast<int>(parser_.get().result_int()),
                       .body = std::move(parser_.get().body())};
    }
    return absl::UnavailableError(absl::StrCat(address, ": ", why_));
  }

 private:
  bool Failed(const char* what, Error error) {
    if (error) why_ = absl::StrCat(what, ": ", error.message());
    return static_cast<bool>(error);
  }

  void Send() {
    http::async_write(stream_, request_, [this](Error error, size_t) {
      if (Failed("cannot send", error)) return;
      http::async_read(stream_, buffer_, parser_, [this](Error unread, size_t) {
        done_ = !Failed("the answer is not HTTP", unread);
      });
    });
  }

  Tcp::resolver resolver_;
  beast::tcp_stream stream_;
  Request request_;
  beast::flat_buffer buffer_;
  http::response_parser<http::string_body> parser_;
  std::string why_ = "no answer in time";
  bool done_ = false;
};

absl::StatusOr<HttpReply> Run(const std::string& address, Exchange::Request request,
                              base::Duration timeout) {
  ASSIGN_OR_RETURN(const HostPort to, SplitAddress(address));
  asio::io_context context{1};
  Exchange exchange(&context, to, std::move(request));
  context.run_for(timeout);
  return exchange.Result(address);
}

}  // namespace

absl::StatusOr<HostPort> SplitAddress(absl::string_view address) {
  if (!absl::ConsumePrefix(&address, "http://") && absl::StrContains(address, "://")) {
    return absl::InvalidArgumentError(
        absl::StrCat(address, ": want host:port, or http:// before it"));
  }
  absl::ConsumeSuffix(&address, "/");
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(absl::StrCat(address, ": want host:port"));
  }
  absl::string_view host = address.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  return HostPort{std::string(host), std::string(address.substr(colon + 1))};
}

absl::StatusOr<HttpReply> HttpGet(const std::string& address, absl::string_view path,
                                  base::Duration timeout) {
  return Run(address, {http::verb::get, std::string(path), 11}, timeout);
}

absl::StatusOr<HttpReply> HttpPostJson(const std::string& address, absl::string_view path,
                                       std::string json, base::Duration timeout) {
  Exchange::Request request(http::verb::post, std::string(path), 11, std::move(json));
  request.set(http::field::content_type, "application/json");
  return Run(address, std::move(request), timeout);
}

}  // namespace triptych::services
