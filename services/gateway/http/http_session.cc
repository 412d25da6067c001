#include "services/gateway/http/http_session.h"

#include <sys/socket.h>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/error.hpp>
#include <cerrno>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
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
constexpr char kChatPath[] = "/v1/chat/completions";

absl::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

const char* Reason(int status) {
  return http::obsolete_reason(static_cast<http::status>(status)).data();
}

enum class Part { kHeader, kBody };

// What overflows the buffer is the header, or else a line between chunks.
absl::Status StatusOfParseError(const HttpSession::Error& error, Part part) {
  const bool overflow = error == http::error::header_limit || error == http::error::buffer_overflow;
  if (overflow && part == Part::kHeader) return Refuse("header_too_large");
  return error == http::error::body_limit ? Refuse("body_too_large") : Refuse("invalid_http");
}

// Where an id of the client's cannot be used, the request is refused; it is never echoed then.
bool UsableId(absl::string_view id) {
  if (id.size() > kMaxIdBytes) return false;
  for (char c : id) {
    if (c <= ' ' || c > '~') return false;
  }
  return true;
}

}  // namespace

HttpSession::HttpSession(Tcp::socket socket, const FrontEnd& front, const HttpTimeouts& timeouts)
    : socket_(std::move(socket)),
      front_(front),
      timeouts_(timeouts),
      timer_(socket_.get_executor()),
      buffer_(kMaxHeaderBytes + kChunkBytes) {
  Error ignored;
  socket_.set_option(Tcp::no_delay(true), ignored);
  check_chunk_ = [limit = static_cast<uint64_t>(front.max_body_bytes)](
                     uint64_t size, boost::beast::string_view, Error& error) {
    if (size > limit) error = http::error::body_limit;
  };
}

void HttpSession::Run() {
  asio::dispatch(socket_.get_executor(), [self = shared_from_this()] { self->ReadHeader(); });
}

bool HttpSession::keep_alive() const {
  return !must_close_ && parser_ && parser_->get().keep_alive() && front_.ready();
}

// ---- reading ------------------------------------------------------------------------------------

// A connection that has been of use may idle; a request that has begun may not.
void HttpSession::AwaitRequest() {
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
  body_.clear();
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
  if (error) return OnReadError(error);
  ClearDeadline();
  Route();
}

void HttpSession::Route() {
  const auto& request = parser_->get();
  // Where such a body would end nobody can say; the parser takes it for none.
  if (request.find(http::field::transfer_encoding) != request.end() && !parser_->chunked()) {
    return RefuseAndClose(Refuse("invalid_http"));
  }
  const absl::string_view target = View(request.target());
  const auto method = request.method();
  if (target == kChatPath) {
    if (method == http::verb::post) return BeginBody();
    return Discard(Refuse("method_not_allowed"));
  }
  if (target != "/v1/models" && target != "/healthz" && target != "/readyz") {
    return Discard(Refuse("not_found"));
  }
  if (method != http::verb::get && method != http::verb::head) {
    return Discard(Refuse("method_not_allowed"));
  }
  must_close_ = must_close_ || !parser_->is_done();  // a body is not read here
  if (target == "/healthz") return WriteReply({.body = "ok\n", .content_type = "text/plain"});
  if (target == "/readyz") {
    const bool ready = front_.ready();
    return WriteReply({.status = ready ? 200 : 503,
                       .body = ready ? "ok\n" : "unavailable\n",
                       .content_type = "text/plain"});
  }
  std::string body = "{\"object\":\"list\",\"data\":[{\"id\":";
  AppendJsonString(front_.intake.model().name(), &body);
  absl::StrAppend(&body, ",\"object\":\"model\",\"created\":", front_.serves_since,
                  ",\"owned_by\":\"triptych\"}]}");
  WriteReply({.body = std::move(body)});
}

void HttpSession::BeginBody() {
  const auto& request = parser_->get();
  const absl::string_view id = View(request["X-Request-Id"]);
  if (!UsableId(id)) {
    return Discard(Refuse("invalid_request", "X-Request-Id has at most 128 printable characters"));
  }
  request_id_ = std::string(id);
  const auto length = parser_->content_length();
  if (length && *length > static_cast<uint64_t>(front_.max_body_bytes)) {
    return Discard(Refuse("body_too_large"));
  }
  reservation_ = front_.budget.Open();
  // A body of unknown length starts with one chunk and grows.
  if (!reservation_.GrowTo(length ? static_cast<int64_t>(*length) : kChunkBytes)) {
    return Discard(Refuse("overloaded"));
  }
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
  if (parser_->is_done()) return StartChat();
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
  if (size > front_.max_body_bytes) return Discard(Refuse("body_too_large"));
  if (!reservation_.GrowTo(size)) return Discard(Refuse("overloaded"));
  body_.append(chunk_.data(), offered);
  ReadBody();
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

// ---- answering ----------------------------------------------------------------------------------

void HttpSession::StartChat() {
  ClearDeadline();
  const absl::Status started = TryStartChat();
  DropBody();
  if (started.ok()) return WatchForDeparture();
  live_.reset();
  front_.metrics.Refused(started);
  ReplyError(started, std::chrono::seconds(1));
}

absl::Status HttpSession::TryStartChat() {
  const base::TimePoint accepted = front_.core.Now();
  const scheduler::RequestId id = front_.core.NextId();
  if (request_id_.empty()) request_id_ = DrawClientId(id);
  ASSIGN_OR_RETURN(OpenAiRequest request, ParseOpenAiRequest(body_));
  request.chat.client_id = request_id_;
  ASSIGN_OR_RETURN(std::unique_ptr<ParsedRequest> parsed,
                   front_.intake.Parse(std::move(request.chat), std::move(reservation_)));
  CompleteRequest(id, parsed.get());
  live_.emplace();
  live_->session = shared_from_this();
  live_->id = id;
  live_->form = {.request_id = request_id_,
                 .model = front_.intake.model().name(),
                 .created = front_.unix_seconds(),
                 .logprobs = parsed->input.sampling.top_logprobs >= 0,
                 .include_usage = request.include_usage};
  if (request.stream) {
    live_->events.emplace(front_.intake.model().tokenizer(), live_->form);
  }
  // A weak pointer: the core's hold on the mailbox must not keep a closed connection.
  auto wake = [weak = weak_from_this(), executor = socket_.get_executor()] {
    asio::post(executor, [weak] {
      if (auto self = weak.lock()) self->OnMail();
    });
  };
  live_->mailbox = std::make_shared<AnswerMailbox>(
      request.stream ? AnswerMailbox::Wake::kEachPart : AnswerMailbox::Wake::kAtEnd,
      std::move(wake));
  return front_.core.Start(
      {.id = id, .parsed = std::move(parsed), .sink = live_->mailbox, .accepted = accepted});
}

// Readable while an answer is under way means that the client left, or sent its next request early;
// then it is watched no more, and a failed write will tell.
void HttpSession::WatchForDeparture() {
  if (watching_ || buffer_.size() > 0) return;
  watching_ = true;
  socket_.async_wait(Tcp::socket::wait_read, [self = shared_from_this()](Error error) {
    self->watching_ = false;
    if (!self->live_) return;
    if (error) return self->Close();
    // The wake may be that of bytes which were read already: only a look at the socket tells.
    char byte = 0;
    const ssize_t seen = recv(self->socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (seen > 0) return;
    if (seen < 0 && (errno == EAGAIN || errno == EINTR)) return self->WatchForDeparture();
    self->Close();
  });
}

void HttpSession::OnMail() {
  if (!live_ || writing_) return;
  AnswerMailbox::Mail mail = live_->mailbox->Take();
  if (mail.empty()) return;
  if (!live_->events) {
    if (mail.end) WriteWholeAnswer(mail);
    return;
  }
  if (mail.end && !mail.end->status.ok() && !live_->started && mail.parts.empty()) {
    return WriteWholeAnswer(mail);
  }
  WriteStreamMail(std::move(mail));
}

void HttpSession::WriteWholeAnswer(const AnswerMailbox::Mail& mail) {
  const AnswerForm form = std::move(live_->form);
  live_.reset();
  if (!mail.end->status.ok()) return ReplyError(mail.end->status, mail.end->retry_after);
  WriteReply(
      {.body = CompletionJson(front_.intake.model().tokenizer(), form, mail.Joined(), *mail.end)});
}

void HttpSession::WriteStreamMail(AnswerMailbox::Mail mail) {
  std::string events;
  for (const AnswerPart& part : mail.parts) live_->events->AppendPart(part, &events);
  if (mail.end) live_->events->AppendEnd(*mail.end, &events);
  if (events.empty()) return;
  const bool chunked = parser_->get().version() >= 11;
  must_close_ = must_close_ || !chunked;
  out_.clear();
  if (!live_->started) {
    live_->started = true;
    absl::StrAppend(&out_, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n",
                    "Cache-Control: no-cache\r\nX-Request-Id: ", request_id_, "\r\n",
                    chunked ? "Transfer-Encoding: chunked\r\n" : "",
                    keep_alive() ? "" : "Connection: close\r\n", "\r\n");
  }
  if (chunked) {
    absl::StrAppend(&out_, absl::Hex(events.size()), "\r\n", events, "\r\n",
                    mail.end ? "0\r\n\r\n" : "");
  } else {
    out_ += events;
  }
  if (!mail.end) return Write(AfterWrite::kMoreOfAnswer);
  live_.reset();
  Write(keep_alive() ? AfterWrite::kNextRequest : AfterWrite::kClose);
}

void HttpSession::ReplyError(const absl::Status& status, base::Duration retry_after) {
  const ClientError error = ToClientError(status);
  WriteReply({.status = error.http_status,
              .body = ErrorJson(status, request_id_),
              .retry_after = retry_after});
}

void HttpSession::WriteReply(const Reply& reply) {
  const bool keep = keep_alive();
  out_.clear();
  absl::StrAppend(&out_, "HTTP/1.1 ", reply.status, " ",
                  reply.status == 499 ? "Client Closed Request" : Reason(reply.status),
                  "\r\nContent-Type: ", reply.content_type,
                  "\r\nContent-Length: ", reply.body.size(), "\r\n");
  if (!request_id_.empty()) absl::StrAppend(&out_, "X-Request-Id: ", request_id_, "\r\n");
  if (reply.status == 429 || reply.status == 503) {
    const auto seconds =
        std::chrono::ceil<std::chrono::seconds>(std::max(reply.retry_after, base::Duration(1)));
    absl::StrAppend(&out_, "Retry-After: ", seconds.count(), "\r\n");
  }
  absl::StrAppend(&out_, keep ? "" : "Connection: close\r\n", "\r\n");
  // A body after HEAD would be read as the next answer.
  if (!parser_ || parser_->get().method() != http::verb::head) out_ += reply.body;
  Write(keep ? AfterWrite::kNextRequest : AfterWrite::kClose);
}

void HttpSession::Write(AfterWrite after) {
  writing_ = true;
  SetDeadline(front_.write_stall);
  asio::async_write(
      socket_, asio::buffer(out_),
      [self = shared_from_this(), after](Error error, size_t) { self->OnWritten(error, after); });
}

void HttpSession::OnWritten(Error error, AfterWrite after) {
  writing_ = false;
  ClearDeadline();
  if (error) return Close();
  switch (after) {
    case AfterWrite::kMoreOfAnswer:
      return OnMail();
    case AfterWrite::kNextRequest:
      return AwaitRequest();
    case AfterWrite::kClose:
      return Linger();
  }
}

// A close with unread bytes would reset the connection, and the client might lose the answer.
void HttpSession::Linger() {
  Error ignored;
  socket_.shutdown(Tcp::socket::shutdown_send, ignored);
  SetDeadline(timeouts_.drain);
  LingerMore(kMaxDiscardBytes);
}

void HttpSession::LingerMore(int64_t left) {
  chunk_.resize(kChunkBytes);
  socket_.async_read_some(asio::buffer(chunk_),
                          [self = shared_from_this(), left](Error error, size_t read) {
                            const int64_t rest = left - static_cast<int64_t>(read);
                            if (error || rest <= 0) return self->Close();
                            self->LingerMore(rest);
                          });
}

void HttpSession::Close() {
  if (live_) front_.core.Leave(live_->id);
  live_.reset();
  ClearDeadline();
  timer_.cancel();
  Error ignored;
  socket_.close(ignored);
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
  if (writing_ && live_) {
    front_.core.GiveUp(live_->id, Refuse("client_stalled"));
    live_.reset();
  }
  if (writing_ || !socket_.is_open()) return Close();
  // The read under way ends with an error and says what that means.
  timed_out_ = true;
  Error ignored;
  socket_.cancel(ignored);
}

}  // namespace triptych::services
