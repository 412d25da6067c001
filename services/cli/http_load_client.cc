#include "services/cli/http_load_client.h"

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "services/cli/openai_chat.h"
#include "services/runtime/http_call.h"

namespace triptych::services {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Error = boost::system::error_code;
using Tcp = asio::ip::tcp;

constexpr size_t kMaxRefusalBytes = 16 << 10;

// On the client's thread. Owned by the operation under way, or by the client's idle list.
class HttpLoadClient::Connection : public std::enable_shared_from_this<Connection> {
 public:
  explicit Connection(HttpLoadClient* client) : client_(client), stream_(client->context_) {}

  void Start(std::string request, LoadListener* listener) {
    listener_ = listener;
    out_ = std::move(request);
    events_ = {};
    parts_ = 0;
    reused_ = connected_;
    Begin();
  }

 private:
  void Begin() {
    stream_.expires_after(client_->request_timeout_);
    if (connected_) return Write();
    stream_.async_connect(client_->endpoints_,
                          [self = shared_from_this()](Error error, const Tcp::endpoint&) {
                            if (error) return self->End(StatusOf(error));
                            self->connected_ = true;
                            self->stream_.socket().set_option(Tcp::no_delay(true), error);
                            self->Write();
                          });
  }

  static absl::Status StatusOf(Error error) {
    if (error == beast::error::timeout) return absl::DeadlineExceededError("no answer in time");
    return absl::UnavailableError(error.message());
  }

  void Write() {
    asio::async_write(stream_, asio::buffer(out_),
                      [self = shared_from_this()](Error error, size_t) {
                        if (error) return self->End(StatusOf(error));
                        self->ReadHeader();
                      });
  }

  void ReadHeader() {
    parser_.emplace();
    // Boost 1.74 takes "none" for a limit that every length exceeds.
    parser_->body_limit(std::numeric_limits<uint64_t>::max());
    refusal_.clear();
    http::async_read_header(stream_, buffer_, *parser_,
                            [self = shared_from_this()](Error error, size_t) {
                              if (error) return self->OnSilence(error);
                              self->ReadBody();
                            });
  }

  void ReadBody() {
    if (parser_->is_done()) return EndAnswered();
    parser_->get().body().data = chunk_.data();
    parser_->get().body().size = chunk_.size();
    http::async_read_some(stream_, buffer_, *parser_,
                          [self = shared_from_this()](Error error, size_t) {
                            if (error && error != http::error::need_buffer) {
                              return self->End(StatusOf(error));
                            }
                            self->Take();
                            self->ReadBody();
                          });
  }

  void Take() {
    const absl::string_view bytes{chunk_.data(), chunk_.size() - parser_->get().body().size};
    if (parser_->get().result() != http::status::ok) {
      if (refusal_.size() < kMaxRefusalBytes) refusal_.append(bytes.data(), bytes.size());
      return;
    }
    events_.Feed(bytes);
    const int parts = events_.events().parts - parts_;
    if (parts == 0) return;
    parts_ += parts;
    listener_->OnPart(parts);
  }

  // Before any answer. A connection that was used before may have been closed while it was idle.
  void OnSilence(Error error) {
    if (error == beast::error::timeout || !std::exchange(reused_, false))
      return End(StatusOf(error));
    stream_.close();
    connected_ = false;
    buffer_.clear();
    Begin();
  }

  void EndAnswered() {
    const auto http_status = static_cast<int>(parser_->get().result_int());
    absl::Status status(CodeOfHttpStatus(http_status),
                        absl::StrCat(http_status, " ", ErrorSentence(refusal_)));
    if (status.ok() && !events_.events().done) {
      status = absl::InternalError(events_.events().failed ? events_.events().error
                                                           : "the stream has no end");
    }
    const bool again = parser_->keep_alive();
    stream_.expires_never();
    if (again) client_->idle_.push_back(shared_from_this());
    std::exchange(listener_, nullptr)->OnEnd(status, events_.events().output_tokens);
  }

  void End(const absl::Status& status) {
    stream_.close();
    std::exchange(listener_, nullptr)->OnEnd(status, 0);
  }

  HttpLoadClient* const client_;
  beast::tcp_stream stream_;
  bool connected_ = false;
  bool reused_ = false;  // an earlier request has used the connection
  beast::flat_buffer buffer_;
  std::optional<http::response_parser<http::buffer_body>> parser_;
  std::array<char, 16384> chunk_;
  std::string out_;
  LoadListener* listener_ = nullptr;
  EventStreamReader events_;
  std::string refusal_;  // the body of an answer other than 200
  int parts_ = 0;        // told so far
};

absl::StatusOr<std::unique_ptr<HttpLoadClient>> HttpLoadClient::Connect(
    const std::string& server, base::Duration request_timeout) {
  ASSIGN_OR_RETURN(const HttpReply reply, HttpGet(server, "/v1/models", request_timeout));
  const nlohmann::json models = nlohmann::json::parse(reply.body, nullptr, false);
  std::string model;
  try {
    model = models.at("data").at(0).at("id");
  } catch (const nlohmann::json::exception&) {
    return absl::UnavailableError(absl::StrCat(server, " does not tell its model"));
  }
  std::unique_ptr<HttpLoadClient> client(
      new HttpLoadClient(server, std::move(model), request_timeout));
  ASSIGN_OR_RETURN(const HostPort address, SplitAddress(server));
  Error error;
  client->endpoints_ = Tcp::resolver(client->context_).resolve(address.host, address.port, error);
  if (error) return absl::InvalidArgumentError(server + ": unknown host");
  client->thread_ = std::thread([c = client.get()] { c->context_.run(); });
  return client;
}

HttpLoadClient::HttpLoadClient(std::string server, std::string model,
                               base::Duration request_timeout)
    : server_(std::move(server)),
      model_(std::move(model)),
      request_timeout_(request_timeout),
      work_(asio::make_work_guard(context_)) {}

HttpLoadClient::~HttpLoadClient() {
  work_.reset();
  if (thread_.joinable()) thread_.join();
}

void HttpLoadClient::Send(const v1::GenerateRequest& request, LoadListener* listener) {
  const std::string body = OpenAiBody(request, model_);
  std::string text = absl::StrCat(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: ", server_,
      "\r\nContent-Type: application/json\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
  asio::post(context_, [this, text = std::move(text), listener]() mutable {
    std::shared_ptr<Connection> connection;
    if (idle_.empty()) {
      connection = std::make_shared<Connection>(this);
    } else {
      connection = std::move(idle_.back());
      idle_.pop_back();
    }
    connection->Start(std::move(text), listener);
  });
}

}  // namespace triptych::services
