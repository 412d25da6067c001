#pragma once

// One client's connection: requests one after another, each bounded in size and time. Reading is in
// http_session.cc, answering in http_session_answer.cc.

#include <atomic>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "services/gateway/core/client.h"
#include "services/gateway/core/front_end.h"
#include "services/gateway/http/answer_group.h"
#include "services/gateway/http/http_reply.h"
#include "services/gateway/http/http_target.h"
#include "services/gateway/http/http_timeouts.h"
#include "services/gateway/request/openai_request.h"
#include "services/gateway/request/parsed_request.h"

namespace triptych::services {

// Runs on the strand of its socket; owned by the operations in flight.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  using Socket = boost::asio::generic::stream_protocol::socket;
  using Error = boost::system::error_code;

  // Borrows `front`.
  HttpSession(Socket socket, Client by_address, const FrontEnd& front,
              const HttpTimeouts& timeouts);
  // `place` is kept as long as the connection.
  void Run(std::shared_ptr<void> place);

  const std::string& address() const { return by_address_.tenant; }
  // Since when nothing was answered here; kNever while something is. Any thread.
  base::TimePoint silent_since() const {
    return base::TimePoint(base::Duration(silent_since_.load(std::memory_order_relaxed)));
  }
  // Closes it, unless a request has come meanwhile. Any thread.
  void GiveWay();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::buffer_body>;
  enum class AfterWrite { kNextRequest, kClose, kMoreOfAnswer };

  // The answers that are under way.
  struct Live {
    std::unique_ptr<AnswerGroup> answers;
    // Shared with itself while the answer is under way, whatever operations are in flight; undone
    // with this struct.
    std::shared_ptr<HttpSession> session;
  };

  // A body that has been read: prompts in order, each laid out and counted in the budget.
  struct Prepared {
    OpenAiRequest request;  // its prompts' messages are gone
    std::vector<std::unique_ptr<ParsedRequest>> prompts;
  };

  // What the access log will say of the request that is being served.
  struct Access {
    base::TimePoint begun;
    int status = 0;  // 0: nothing has been answered yet
    int64_t bytes = 0;
    std::string reason;  // of a refusal or a failure
    std::string tenant;
    std::string completion;  // its id
  };

  // Reading.
  void AwaitRequest();
  void ReadHeader();
  void OnHeader(Error error);
  void OnReadError(Error error);
  void RefuseAndClose(const absl::Status& refusal);
  void Route();
  void BeginBody();
  void ReadBody();
  void OnBodyChunk(Error error, size_t offered);
  void OnBody();
  void Discard(const absl::Status& refusal);
  void DropBody();
  void DiscardMore(absl::Status refusal, int64_t left);
  boost::beast::string_view Header(boost::beast::string_view name) const;

  // What may take long: on a thread of the pool, while nothing else happens here.
  void ReadRequest();
  absl::StatusOr<Prepared> Prepare(Endpoint endpoint);
  void OnRequestRead();

  // Answering.
  void StartAnswers(Prepared prepared);
  absl::Status TryStartAnswers(Prepared* prepared);
  absl::Status StartPrompt(std::unique_ptr<ParsedRequest> prompt, const Prepared& prepared);
  void LeaveAnswers();
  void WatchForDeparture();
  void TakeEarlyBytes();
  void AskWhetherThere();
  void OnMail();
  void WriteEvents(std::string events, AnswerGroup::News news);
  void WriteKeepAlive();
  void ReplyError(const absl::Status& status, base::Duration retry_after = base::Duration(0));
  void ReplyToGet();
  void ReplyToOptions();
  void WriteReply(Reply reply);
  void Write(AfterWrite after);
  void OnWritten(Error error, AfterWrite after);
  void LogAccess();
  void Linger();
  void LingerMore(int64_t left);
  void Close();
  // What is said about this request besides its answer.
  ReplyFrame Frame() const;
  void SetSilent(base::TimePoint since) {
    silent_since_.store(since.time_since_epoch().count(), std::memory_order_relaxed);
  }

  // One timer for all phases; it is moved lazily.
  void SetDeadline(base::Duration from_now);
  void ClearDeadline() { deadline_ = base::kNever; }
  void WaitForDeadline();
  void OnDeadline();

  bool keep_alive() const;

  Socket socket_;
  const FrontEnd& front_;
  const HttpTimeouts timeouts_;
  Client by_address_;
  Client client_;                // of the request under way
  std::shared_ptr<void> place_;  // among the connections of the server
  std::atomic<base::Duration::rep> silent_since_;
  boost::asio::steady_timer timer_;
  base::TimePoint deadline_ = base::kNever;
  bool timer_running_ = false;
  bool timed_out_ = false;

  boost::beast::flat_buffer buffer_;
  // Refuses a chunk that announces more than a whole body may have. The parser borrows it.
  std::function<void(uint64_t, boost::beast::string_view, Error&)> check_chunk_;
  std::optional<Parser> parser_;
  std::vector<char> chunk_;
  std::string body_;
  PayloadBudget::Reservation reservation_;
  Target target_;
  std::string request_id_;      // the client's own, or drawn
  TraceContext trace_;          // of an answer's request
  bool span_is_given_ = false;  // to its first answer
  Access access_;
  bool must_close_ = false;

  base::TimePoint accepted_;
  // What ReadRequest made of the body: what is to be answered, or the answer.
  absl::StatusOr<std::variant<Prepared, std::string>> read_ = Prepared{};

  std::optional<Live> live_;
  std::string out_;
  bool writing_ = false;
  bool watching_ = false;
  bool half_closed_ = false;  // the client sends no more
};

}  // namespace triptych::services
