// How a session answers: documents, streams, and what stands at the addresses that take no body.

#include <sys/socket.h>

#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "base/version.h"
#include "services/gateway/http/http_session.h"
#include "services/gateway/http/openapi.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;

constexpr size_t kChunkBytes = 64 << 10;
constexpr size_t kMaxEarlyBytes = 32 << 10;
constexpr size_t kEarlyReadBytes = 4 << 10;
constexpr int64_t kMaxDiscardBytes = int64_t{64} << 20;

absl::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

std::string ModelJson(const FrontEnd& front, absl::string_view name) {
  std::string json = "{\"id\":";
  AppendJsonString(name, &json);
  absl::StrAppend(
      &json, ",\"object\":\"model\",\"created\":", front.serves_since,
      ",\"owned_by\":\"triptych\",\"max_model_len\":", front.intake.model().context_tokens(), "}");
  return json;
}

std::string ModelsJson(const FrontEnd& front) {
  std::vector<std::string> models;
  for (const std::string& name : front.intake.model().names()) {
    models.push_back(ModelJson(front, name));
  }
  return absl::StrCat("{\"object\":\"list\",\"data\":[", absl::StrJoin(models, ","), "]}");
}

}  // namespace

bool HttpSession::keep_alive() const {
  return !must_close_ && parser_ && parser_->get().keep_alive() && front_.ready();
}

ReplyFrame HttpSession::Frame() const {
  ReplyFrame frame{.unix_seconds = front_.unix_seconds(),
                   .request_id = request_id_,
                   .keep_alive = keep_alive(),
                   .http10 = parser_ && parser_->get().version() < 11};
  if (trace_.exists()) frame.trace_parent = TraceParent(trace_);
  if (!parser_) return frame;
  const absl::string_view origin = View(Header("Origin"));
  if (front_.AllowsOrigin(origin)) frame.cors = CorsLines(origin);
  return frame;
}

// ---- what takes no body -------------------------------------------------------------------------

void HttpSession::ReplyToGet() {
  const ServedModel& model = front_.intake.model();
  switch (target_.route) {
    case services::Route::kHealth:
      return WriteReply({.body = "ok\n", .content_type = "text/plain"});
    case services::Route::kReady: {
      const bool ready = front_.ready();
      return WriteReply({.status = ready ? 200 : 503,
                         .body = ready ? "ok\n" : "unavailable\n",
                         .content_type = "text/plain"});
    }
    case services::Route::kVersion:
      return WriteReply({.body = absl::StrCat("{\"version\":\"", base::kVersion, "\"}")});
    case services::Route::kMetrics:
      return WriteReply({.body = front_.client_metrics(),
                         .content_type = "text/plain; version=0.0.4; charset=utf-8"});
    case services::Route::kOpenApi:
      return WriteReply({.body = kOpenApiJson});
    case services::Route::kModel:
      if (model.IsNamed(target_.model)) {
        return WriteReply({.body = ModelJson(front_, target_.model)});
      }
      front_.metrics.Refused(Refuse("model_not_found"));
      return ReplyError(Refuse("model_not_found"));
    default:
      return WriteReply({.body = ModelsJson(front_)});
  }
}

void HttpSession::ReplyToOptions() {
  Reply reply{.status = 204, .allow = target_.allow};
  if (front_.AllowsOrigin(View(Header("Origin"))) &&
      !Header("Access-Control-Request-Method").empty()) {
    reply.more = PreflightLines(target_.allow, View(Header("Access-Control-Request-Headers")));
  }
  WriteReply(std::move(reply));
}

// ---- answers of the model -----------------------------------------------------------------------

void HttpSession::StartAnswers(Prepared prepared) {
  const absl::Status started = TryStartAnswers(&prepared);
  if (started.ok()) return WatchForDeparture();
  if (live_ && live_->answers != nullptr) LeaveAnswers();
  live_.reset();
  front_.metrics.Refused(started);
  ReplyError(started, std::chrono::seconds(1));
}

absl::Status HttpSession::TryStartAnswers(Prepared* prepared) {
  const OpenAiRequest& request = prepared->request;
  if (!request.unknown.empty() && front_.log->Writes(base::LogLevel::kDebug)) {
    front_.log->Log(
        base::LogLevel::kDebug, "members that nobody knows", {},
        {{"completion_id", access_.completion}, {"members", absl::StrJoin(request.unknown, " ")}});
  }
  const ChatRequest& first = request.prompts.front();
  const Endpoint endpoint =
      target_.route == services::Route::kChat ? Endpoint::kChat : Endpoint::kCompletions;
  AnswerForm form{.id = access_.completion,
                  .request_id = request_id_,
                  .model = first.model.empty() ? front_.intake.model().name() : first.model,
                  .endpoint = endpoint,
                  .created = front_.unix_seconds(),
                  .logprobs = first.top_logprobs >= 0,
                  .include_usage = request.include_usage,
                  .continuous_usage = request.include_usage && request.continuous_usage};
  trace_ = front_.tracer.Join(View(Header("traceparent")));
  span_is_given_ = false;
  live_.emplace();
  live_->session = shared_from_this();
  SetSilent(base::kNever);
  live_->answers = std::make_unique<AnswerGroup>(
      front_.intake.model().tokenizer(), std::move(form),
      request.stream ? AnswerGroup::Form::kStream : AnswerGroup::Form::kDocument);
  for (std::unique_ptr<ParsedRequest>& prompt : prepared->prompts) {
    RETURN_IF_ERROR(StartPrompt(std::move(prompt), *prepared));
  }
  return absl::OkStatus();
}

// The n answers to one prompt are requests of their own, alike but for their seeds.
absl::Status HttpSession::StartPrompt(std::unique_ptr<ParsedRequest> prompt,
                                      const Prepared& prepared) {
  const int64_t choices = prepared.request.prompts.front().choices;
  access_.tenant = prompt->submit.tenant;
  // A weak pointer: the core's hold on a mailbox must not keep a closed connection.
  const auto wake = [weak = weak_from_this(), executor = socket_.get_executor()] {
    asio::post(executor, [weak] {
      if (auto self = weak.lock()) self->OnMail();
    });
  };
  for (int64_t i = 0; i < choices; ++i) {
    auto parsed = i + 1 < choices ? std::make_unique<ParsedRequest>(*prompt) : std::move(prompt);
    RETURN_IF_ERROR(front_.keys.Charge(client_, *parsed, front_.intake.model().name()));
    const scheduler::RequestId id = front_.core.NextId();
    CompleteRequest(parsed.get());
    // The first answer's span is the one that the client is told.
    parsed->trace = std::exchange(span_is_given_, true) ? front_.tracer.Beside(trace_) : trace_;
    parsed->input.sampling.seed += static_cast<uint64_t>(parsed->seed_given ? i : 0);
    auto mailbox = std::make_shared<AnswerMailbox>(
        prepared.request.stream ? AnswerMailbox::Wake::kEachPart : AnswerMailbox::Wake::kAtEnd,
        wake);
    live_->answers->Add(
        id, mailbox,
        {.prompt_tokens = parsed->submit.prompt_tokens, .picture_tokens = parsed->picture_tokens},
        i == 0 ? AnswerGroup::Prompt::kFirst : AnswerGroup::Prompt::kAgain);
    // Without a key the owner of an answer is the connection that it goes to: who closes it.
    RETURN_IF_ERROR(front_.core.Start({.id = id,
                                       .parsed = std::move(parsed),
                                       .sink = std::move(mailbox),
                                       .owner = client_.key.empty() ? "" : client_.owner,
                                       .accepted = accepted_}));
  }
  return absl::OkStatus();
}

void HttpSession::LeaveAnswers() {
  for (const scheduler::RequestId& id : live_->answers->Live()) front_.core.Leave(id);
}

// While an answer is under way. An early next request is taken in, so that it hides nothing behind
// it. A client that says it will send no more may still read: from then on only an error of the
// connection is its departure.
void HttpSession::WatchForDeparture() {
  if (watching_) return;
  watching_ = true;
  const bool no_more = half_closed_ || buffer_.size() >= kMaxEarlyBytes;
  const auto what = no_more ? Socket::wait_error : Socket::wait_read;
  socket_.async_wait(what, [self = shared_from_this(), no_more](Error error) {
    self->watching_ = false;
    if (!self->live_) return;
    if (error || no_more) return self->Close();
    self->TakeEarlyBytes();
  });
}

void HttpSession::TakeEarlyBytes() {
  const auto room = buffer_.prepare(std::min(kEarlyReadBytes, kMaxEarlyBytes - buffer_.size()));
  const ssize_t seen = recv(socket_.native_handle(), room.data(), room.size(), MSG_DONTWAIT);
  if (seen < 0 && errno != EAGAIN && errno != EINTR) return Close();
  if (seen > 0) buffer_.commit(static_cast<size_t>(seen));
  half_closed_ = seen == 0;
  WatchForDeparture();
  if (half_closed_) AskWhetherThere();
}

// Who is gone answers anything with a reset. Who only sends no more is told to wait on: by an
// interim status, or in the middle of a stream by a comment.
void HttpSession::AskWhetherThere() {
  if (writing_ || !live_) return;  // what is being written asks as well
  if (parser_->get().version() < 11) return Close();
  if (access_.status != 0) return WriteKeepAlive();
  out_ = "HTTP/1.1 100 Continue\r\n\r\n";
  Write(AfterWrite::kMoreOfAnswer);
}

void HttpSession::OnMail() {
  if (!live_ || writing_) return;
  std::string text;
  AnswerGroup& answers = *live_->answers;
  const AnswerGroup::News news = answers.Take(&text);
  if (news == AnswerGroup::News::kNothing) return;
  if (news == AnswerGroup::News::kFailed) {
    const AnswerEnd failure = answers.failure();
    LeaveAnswers();
    live_.reset();
    return ReplyError(failure.status, failure.retry_after);
  }
  if (answers.streams()) return WriteEvents(std::move(text), news);
  live_.reset();
  WriteReply({.body = std::move(text)});
}

void HttpSession::WriteEvents(std::string events, AnswerGroup::News news) {
  const bool done = news == AnswerGroup::News::kDone;
  const bool chunked = parser_->get().version() >= 11;
  must_close_ = must_close_ || !chunked;
  out_.clear();
  if (access_.status == 0) {
    access_.status = 200;
    front_.metrics.Answered(200);
    out_ = StreamHead(Frame());
  }
  if (chunked) {
    absl::StrAppend(&out_, absl::Hex(events.size()), "\r\n", events, "\r\n",
                    done ? "0\r\n\r\n" : "");
  } else {
    out_ += events;
  }
  if (!done) return Write(AfterWrite::kMoreOfAnswer);
  if (live_->answers->failed()) {
    access_.reason = ToClientError(live_->answers->failure().status).code;
  }
  LeaveAnswers();
  live_.reset();
  Write(keep_alive() ? AfterWrite::kNextRequest : AfterWrite::kClose);
}

// A comment, which clients skip: proxies cut what is silent for long.
void HttpSession::WriteKeepAlive() {
  if (!live_->answers->streams() || !live_->answers->opened()) return;
  WriteEvents(": keep-alive\n\n", AnswerGroup::News::kWrite);
}

void HttpSession::ReplyError(const absl::Status& status, base::Duration retry_after) {
  const ClientError error = ToClientError(status);
  if (request_id_.empty()) request_id_ = DrawClientId();
  access_.reason = error.code;
  WriteReply({.status = error.http_status,
              .body = ErrorJson(status, request_id_),
              .allow = error.http_status == 405 ? target_.allow : "",
              .retry_after = retry_after});
}

void HttpSession::WriteReply(Reply reply) {
  const ReplyFrame frame = Frame();
  access_.status = reply.status;
  front_.metrics.Answered(reply.status);
  out_ = ReplyHead(reply, frame);
  // A body after HEAD would be read as the next answer.
  if (!parser_ || parser_->get().method() != http::verb::head) out_ += reply.body;
  Write(frame.keep_alive ? AfterWrite::kNextRequest : AfterWrite::kClose);
}

void HttpSession::Write(AfterWrite after) {
  writing_ = true;
  SetDeadline(front_.write_stall);
  access_.bytes += static_cast<int64_t>(out_.size());
  asio::async_write(
      socket_, asio::buffer(out_),
      [self = shared_from_this(), after](Error error, size_t) { self->OnWritten(error, after); });
}

void HttpSession::OnWritten(Error error, AfterWrite after) {
  writing_ = false;
  ClearDeadline();
  if (error) return Close();
  if (after == AfterWrite::kMoreOfAnswer) {
    SetDeadline(timeouts_.keep_alive);
    return OnMail();
  }
  LogAccess();
  after == AfterWrite::kNextRequest ? AwaitRequest() : Linger();
}

// One line a request, whatever became of it. Probes and scrapes are no news.
void HttpSession::LogAccess() {
  const base::TimePoint begun = std::exchange(access_.begun, {});
  if (begun == base::TimePoint()) return;
  const bool probe = !target_.posted && access_.status == 200;
  const base::LogLevel level = probe ? base::LogLevel::kDebug : base::LogLevel::kInfo;
  if (!front_.log->Writes(level)) return;
  const std::string method =
      parser_ ? std::string(View(parser_->get().method_string())) : std::string();
  const auto us =
      std::chrono::duration_cast<std::chrono::microseconds>(front_.core.Now() - begun).count();
  front_.log->Log(level, "http", {},
                  {{"method", method},
                   {"path", target_.path.substr(0, 128)},
                   {"status", access_.status},
                   {"reason", access_.reason},
                   {"bytes", access_.bytes},
                   {"duration_us", us},
                   {"tenant", access_.tenant},
                   {"client_id", request_id_},
                   {"completion_id", access_.completion}});
}

// A close with unread bytes would reset the connection, and the client might lose the answer.
void HttpSession::Linger() {
  Error ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
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
  if (live_) {
    if (access_.reason.empty()) access_.reason = "client_left";
    LeaveAnswers();
    LogAccess();
  }
  live_.reset();
  ClearDeadline();
  timer_.cancel();
  Error ignored;
  socket_.close(ignored);
}

}  // namespace triptych::services
