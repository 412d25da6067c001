#include "services/gateway/http/http_session.h"

#include <algorithm>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/error.hpp>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "services/gateway/http/tokenize.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;

constexpr size_t kMaxHeaderBytes = 32 << 10;
constexpr size_t kChunkBytes = 64 << 10;
constexpr size_t kFirstReadBytes = 4 << 10;
constexpr int64_t kMaxDiscardBytes = int64_t{64} << 20;
constexpr int64_t kBodyBytesPerSecond = 256 << 10;
constexpr size_t kMaxIdBytes = 128;

absl::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

enum class Part { kHeader, kBody };

// What overflows the buffer is the header, or else a line between chunks.
absl::Status StatusOfParseError(const HttpSession::Error& error, Part part) {
  const bool overflow = error == http::error::header_limit || error == http::error::buffer_overflow;
  if (overflow && part == Part::kHeader) return Refuse("header_too_large");
  return error == http::error::body_limit ? Refuse("body_too_large") : Refuse("invalid_http");
}

// What cannot be a header or a log's field is replaced by an id of ours.
bool UsableId(absl::string_view id) {
  if (id.empty() || id.size() > kMaxIdBytes) return false;
  for (char c : id) {
    if (c <= ' ' || c > '~') return false;
  }
  return true;
}

}  // namespace

HttpSession::HttpSession(Socket socket, Client by_address, const FrontEnd& front,
                         const HttpTimeouts& timeouts)
    : socket_(std::move(socket)),
      front_(front),
      timeouts_(timeouts),
      by_address_(std::move(by_address)),
      timer_(socket_.get_executor()),
      buffer_(kMaxHeaderBytes + kChunkBytes) {
  Error ignored;
  SetSilent(front.core.Now());
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  check_chunk_ = [limit = static_cast<uint64_t>(front.max_body_bytes)](
                     uint64_t size, boost::beast::string_view, Error& error) {
    if (size > limit) error = http::error::body_limit;
  };
}

void HttpSession::GiveWay() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    if (!self->live_) self->Close();
  });
}

void HttpSession::Run(std::shared_ptr<void> place) {
  place_ = std::move(place);
  asio::dispatch(socket_.get_executor(), [self = shared_from_this()] { self->ReadHeader(); });
}

boost::beast::string_view HttpSession::Header(boost::beast::string_view name) const {
  return parser_->get()[name];
}

// A connection that has been of use may idle; a request that has begun may not.
void HttpSession::AwaitRequest() {
  SetSilent(front_.core.Now());
  if (buffer_.size() > 0) return ReadHeader();
  SetDeadline(timeouts_.idle);
  socket_.async_read_some(buffer_.prepare(kFirstReadBytes),
                          [self = shared_from_this()](Error error, size_t read) {
                            if (error) return self->Close();
                            self->buffer_.commit(read);
                            self->ReadHeader();
                          });
}

void HttpSession::ReadHeader() {
  parser_.emplace();
  parser_->header_limit(kMaxHeaderBytes);
  parser_->body_limit(std::numeric_limits<uint64_t>::max());  // ReadBody counts
  request_id_.clear();
  trace_ = {};
  body_.clear();
  target_ = {};
  access_ = {};
  parser_->on_chunk_header(check_chunk_);
  SetDeadline(timeouts_.header);
  http::async_read_header(
      socket_, buffer_, *parser_,
      [self = shared_from_this()](Error error, size_t) { self->OnHeader(error); });
}

void HttpSession::OnReadError(Error error) {
  if (timed_out_) {
    if (!parser_->got_some() && buffer_.size() == 0) return Close();
    return RefuseAndClose(Refuse("request_timeout"));
  }
  const bool parse_error =
      error.category() == http::make_error_code(http::error::bad_method).category();
  if (!parse_error || error == http::error::end_of_stream ||
      error == http::error::partial_message) {
    return Close();
  }
  RefuseAndClose(
      StatusOfParseError(error, parser_->is_header_done() ? Part::kBody : Part::kHeader));
}

void HttpSession::RefuseAndClose(const absl::Status& refusal) {
  front_.metrics.Refused(refusal);
  DropBody();
  must_close_ = true;
  ReplyError(refusal);
}

void HttpSession::OnHeader(Error error) {
  access_.begun = front_.core.Now();
  if (error) return OnReadError(error);
  ClearDeadline();
  Route();
}

void HttpSession::Route() {
  const auto& request = parser_->get();
  target_ = TargetOf(View(request.target()));
  if (const absl::string_view id = View(Header("X-Request-Id")); UsableId(id)) {
    request_id_ = std::string(id);
  }
  const bool named = request.count(http::field::host) == 1;
  if (!named && request.version() >= 11) return RefuseAndClose(Refuse("invalid_http"));
  // One coding is known. Where a body of another would end nobody can say.
  const auto coding = request.find(http::field::transfer_encoding);
  if (coding != request.end() && !absl::EqualsIgnoreCase(View(coding->value()), "chunked")) {
    return RefuseAndClose(Refuse("invalid_http"));
  }
  const auto method = request.method();
  if (target_.route == services::Route::kMetrics && front_.client_metrics == nullptr) {
    target_.route = services::Route::kNone;
  }
  if (target_.route == services::Route::kNone) return Discard(Refuse("not_found"));
  if (method == http::verb::options) {
    must_close_ = must_close_ || !parser_->is_done();  // a body is not read here
    return ReplyToOptions();
  }
  if (target_.posted) {
    return method == http::verb::post ? BeginBody() : Discard(Refuse("method_not_allowed"));
  }
  if (method != http::verb::get && method != http::verb::head) {
    return Discard(Refuse("method_not_allowed"));
  }
  must_close_ = must_close_ || !parser_->is_done();
  ReplyToGet();
}

void HttpSession::BeginBody() {
  const auto& request = parser_->get();
  if (const absl::string_view encoding = View(request[http::field::content_encoding]);
      !encoding.empty() && !absl::EqualsIgnoreCase(encoding, "identity")) {
    return Discard(Refuse("unsupported_encoding"));
  }
  const auto length = parser_->content_length();
  if (length && *length > static_cast<uint64_t>(front_.max_body_bytes)) {
    return RefuseAndClose(Refuse(
        "body_too_large", absl::StrCat("a body has at most ", front_.max_body_bytes, " bytes")));
  }
  const auto client = front_.keys.Identify(View(request[http::field::authorization]), by_address_);
  if (!client.ok()) return Discard(client.status());
  client_ = *client;
  // What is announced costs nothing: the budget is charged as bytes arrive.
  reservation_ = front_.budget.Open(client_.tenant);
  const int64_t first = std::min<int64_t>(length.value_or(kChunkBytes), kChunkBytes);
  if (!reservation_.GrowTo(first)) return Discard(Refuse("overloaded"));
  SetDeadline(timeouts_.body +
              std::chrono::seconds(length ? static_cast<int64_t>(*length) / kBodyBytesPerSecond
                                          : front_.max_body_bytes / kBodyBytesPerSecond));
  if (!absl::EqualsIgnoreCase(View(request[http::field::expect]), "100-continue"))
    return ReadBody();
  out_ = "HTTP/1.1 100 Continue\r\n\r\n";
  asio::async_write(socket_, asio::buffer(out_), [self = shared_from_this()](Error error, size_t) {
    if (error) return self->Close();
    self->ReadBody();
  });
}

void HttpSession::ReadBody() {
  if (parser_->is_done()) return OnBody();
  chunk_.resize(kChunkBytes);
  parser_->get().body().data = chunk_.data();
  parser_->get().body().size = chunk_.size();
  http::async_read(socket_, buffer_, *parser_, [self = shared_from_this()](Error error, size_t) {
    self->OnBodyChunk(error, self->chunk_.size() - self->parser_->get().body().size);
  });
}

void HttpSession::OnBodyChunk(Error error, size_t offered) {
  if (error && error != http::error::need_buffer) return OnReadError(error);
  const int64_t size = static_cast<int64_t>(body_.size() + offered);
  if (size > front_.max_body_bytes) return RefuseAndClose(Refuse("body_too_large"));
  if (!reservation_.GrowTo(size)) return Discard(Refuse("overloaded"));
  body_.append(chunk_.data(), offered);
  ReadBody();
}

void HttpSession::OnBody() {
  ClearDeadline();
  accepted_ = front_.core.Now();
  access_.completion = DrawClientId();
  if (request_id_.empty()) request_id_ = access_.completion;
  if (static_cast<int64_t>(body_.size()) <= ParsePool::kAtOnceBytes) {
    ReadRequest();
    return OnRequestRead();
  }
  SetSilent(base::kNever);
  const bool posted = front_.parsers.Post(
      client_.tenant,
      [self = shared_from_this(), executor = socket_.get_executor()](ParsePool::Turn turn) {
        if (turn == ParsePool::Turn::kRun) {
          self->ReadRequest();
        } else {
          self->read_ = Refuse("draining");
        }
        asio::post(executor, [self] {
          if (self->socket_.is_open()) self->OnRequestRead();
        });
      });
  if (posted) return;
  read_ = Refuse("overloaded");
  OnRequestRead();
}

void HttpSession::ReadRequest() {
  const auto document = [this](absl::StatusOr<std::string> json) {
    if (!json.ok()) return void(read_ = json.status());
    read_ = *std::move(json);
  };
  const auto request = [this](Endpoint endpoint) {
    absl::StatusOr<Prepared> prepared = Prepare(endpoint);
    if (!prepared.ok()) return void(read_ = prepared.status());
    read_ = *std::move(prepared);
  };
  switch (target_.route) {
    case services::Route::kChat:
      return request(Endpoint::kChat);
    case services::Route::kCompletions:
      return request(Endpoint::kCompletions);
    case services::Route::kTokenize:
      return document(TokenizeJson(front_.intake, body_, &reservation_));
    default:
      return document(DetokenizeJson(front_.intake, body_));
  }
}

absl::StatusOr<HttpSession::Prepared> HttpSession::Prepare(Endpoint endpoint) {
  Prepared prepared;
  ASSIGN_OR_RETURN(prepared.request, ParseOpenAiRequest(body_, endpoint));
  std::vector<ChatRequest>& prompts = prepared.request.prompts;
  const int64_t choices = prompts.front().choices;
  const int64_t answers = static_cast<int64_t>(prompts.size()) * choices;
  if (choices > 1 && answers > kMaxChoices) {
    return At("n", Refuse("invalid_request",
                          absl::StrCat("prompts times n is ", answers, ", at most ", kMaxChoices)));
  }
  for (ChatRequest& chat : prompts) {
    ChatRequest rest{
        .model = chat.model, .top_logprobs = chat.top_logprobs, .choices = chat.choices};
    chat.tag = request_id_;
    PayloadBudget::Reservation reservation = front_.budget.Open(client_.tenant);
    std::swap(reservation, reservation_);
    ASSIGN_OR_RETURN(
        std::unique_ptr<ParsedRequest> prompt,
        front_.intake.Parse(std::exchange(chat, rest), std::move(reservation), &client_));
    prepared.prompts.push_back(std::move(prompt));
  }
  return prepared;
}

void HttpSession::OnRequestRead() {
  DropBody();
  absl::StatusOr<std::variant<Prepared, std::string>> read = std::exchange(read_, std::string());
  if (!read.ok()) {
    SetSilent(front_.core.Now());
    front_.metrics.Refused(read.status());
    return ReplyError(read.status(), std::chrono::seconds(1));
  }
  if (auto* json = std::get_if<std::string>(&*read)) return WriteReply({.body = std::move(*json)});
  StartAnswers(std::move(std::get<Prepared>(*read)));
}

void HttpSession::Discard(const absl::Status& refusal) {
  front_.metrics.Refused(refusal);
  DropBody();
  if (absl::EqualsIgnoreCase(View(parser_->get()[http::field::expect]), "100-continue")) {
    must_close_ = true;
  }
  SetDeadline(timeouts_.drain);
  DiscardMore(refusal, kMaxDiscardBytes);
}

void HttpSession::DropBody() {
  body_ = std::string();
  reservation_ = {};
}

void HttpSession::DiscardMore(absl::Status refusal, int64_t left) {
  if (parser_->is_done() || left <= 0 || must_close_) {
    must_close_ = must_close_ || !parser_->is_done();
    return ReplyError(refusal, std::chrono::seconds(1));
  }
  chunk_.resize(kChunkBytes);
  parser_->get().body().data = chunk_.data();
  parser_->get().body().size = chunk_.size();
  auto next = [self = shared_from_this(), refusal = std::move(refusal), left](Error error, size_t) {
    const size_t read = self->chunk_.size() - self->parser_->get().body().size;
    if (error && error != http::error::need_buffer) self->must_close_ = true;
    self->timed_out_ = false;
    self->DiscardMore(refusal, left - static_cast<int64_t>(read));
  };
  http::async_read(socket_, buffer_, *parser_, std::move(next));
}

// ---- time ---------------------------------------------------------------------------------------

void HttpSession::SetDeadline(base::Duration from_now) {
  const base::TimePoint deadline = front_.core.Now() + from_now;
  const bool earlier = deadline < deadline_;
  deadline_ = deadline;
  timed_out_ = false;
  if (!timer_running_ || (earlier && deadline < timer_.expiry())) WaitForDeadline();
}

void HttpSession::WaitForDeadline() {
  timer_running_ = true;
  timer_.expires_at(deadline_);
  timer_.async_wait([weak = weak_from_this()](Error error) {
    const auto self = weak.lock();
    // Cancelled by a wait for an earlier time: that one goes on.
    if (self == nullptr || error) return;
    self->timer_running_ = false;
    self->OnDeadline();
  });
}

void HttpSession::OnDeadline() {
  if (deadline_ == base::kNever) return;
  if (front_.core.Now() < deadline_) return WaitForDeadline();
  deadline_ = base::kNever;
  if (live_ && !writing_) return WriteKeepAlive();
  if (writing_ && live_) {
    for (const scheduler::RequestId& id : live_->answers->Live()) {
      front_.core.GiveUp(id, Refuse("client_stalled"));
    }
    live_.reset();
  }
  if (writing_ || !socket_.is_open()) return Close();
  // The read under way ends with an error and says what that means.
  timed_out_ = true;
  Error ignored;
  socket_.cancel(ignored);
}

}  // namespace triptych::services
