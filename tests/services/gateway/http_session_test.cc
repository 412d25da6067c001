// Defended, over real sockets: how HTTP is framed, whatever a client sends and however slowly; each
// refusal is read by the client that earned it, in the one shape of errors, counted once; and a
// connection is of use again wherever its next request can be found.

#include <catch2/catch.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/services/gateway/front_fixture.h"
#include "tests/support/eventually.h"
#include "tests/support/skip.h"

namespace triptych::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ErrorCode;
using testing::FrontFixture;
using testing::Get;
using testing::HttpReply;
using testing::Post;
using testing::RawHttpClient;
using testing::SmallModel;

constexpr char kHello[] = R"({"messages":[{"role":"user","content":"Hello"}]})";
constexpr char kChunkedPost[] =
    "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n";

bool ModelMissing() {
  if (SmallModel() == nullptr) triptych::testing::SkipTest("the shipped model is not here");
  return SmallModel() == nullptr;
}

// What one new client is told after it has sent `bytes`.
HttpReply Ask(const FrontFixture& front, const std::string& bytes) {
  RawHttpClient client(front.http_address());
  client.Send(bytes);
  return client.Read();
}

TEST_CASE("HttpSession: models, health, readiness and version have addresses", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  const std::string model = "\"id\":\"" + front.model() + "\"";
  const std::string created = absl::StrCat("\"created\":", FrontFixture::kUnixSeconds - 1, ",");
  for (const std::string& path : {std::string("/v1/models"), "/v1/models/" + front.model()}) {
    const HttpReply reply = Ask(front, Get(path));
    CHECK(reply.status == 200);
    CHECK(reply.body.find(model) != std::string::npos);
    CHECK(reply.body.find(created) != std::string::npos);
    CHECK(reply.header("date") == "Tue, 14 Nov 2023 22:13:20 GMT");
  }
  CHECK(ErrorCode(Ask(front, Get("/v1/models/other"))) == "model_not_found");
  CHECK(Ask(front, Get("/version")).body.find("\"version\":\"") != std::string::npos);
  CHECK(Ask(front, Get("/openapi.json")).body.find("\"openapi\"") != std::string::npos);
  CHECK(Ask(front, Get("/healthz")).body == "ok\n");
  for (const char* path : {"/readyz", "/health", "/ping"}) {
    front.SetReady(true);
    CHECK(Ask(front, Get(path)).status == 200);
    front.SetReady(false);
    const HttpReply unready = Ask(front, Get(path));
    CHECK(unready.status == 503);
    CHECK(unready.header("retry-after") == "1");
    CHECK(unready.header("connection") == "close");
  }
  CHECK(Ask(front, Get("/healthz")).status == 200);
}

TEST_CASE("HttpSession: the path alone is the address", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  for (const char* target : {"/v1/models?", "/v1/models?api-version=1&x=/healthz", "/v1/models/",
                             "http://host/v1/models", "HTTP://host:80/v1/models?limit=2",
                             "/v1/model%73", "/v1/models/triptych%2d16m?x"}) {
    INFO(target);
    CHECK(Ask(front, Get(target)).status == 200);
  }
  RawHttpClient client(front.http_address());
  client.Send(testing::PostTo("/v1/chat/completions?api-version=2024-10-21", kHello));
  front.AnswerNext("Hi.");
  CHECK(client.Read().status == 200);
  client.Send(
      testing::PostTo("/openai/deployments/triptych-16m/chat/completions?api-version=1", kHello));
  front.AnswerNext("Hi.");
  CHECK(client.Read().status == 200);
  for (const char* target : {"/", "*", "http://host", "/v1/models/../../etc/passwd", "/metrics",
                             "/v1/chat/completions/x", "/v1/models%00", "/%"}) {
    INFO(target);
    const HttpReply reply = Ask(front, Get(target));
    CHECK(reply.status == 404);
    ErrorCode(reply);
  }
}

TEST_CASE("HttpSession: other addresses and methods are refused", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  const auto code = [&](const std::string& request, int status, const std::string& allow) {
    client.Send(request);
    const HttpReply reply = client.Read();
    CHECK(reply.status == status);
    CHECK(reply.header("allow") == allow);
    CHECK_FALSE(reply.header("x-request-id").empty());
    return ErrorCode(reply);
  };
  CHECK(code(Get("/"), 404, "") == "not_found");
  CHECK(code(Get("/v1/chat/completions"), 405, "POST, OPTIONS") == "method_not_allowed");
  CHECK(code(Get("/healthz", "DELETE"), 405, "GET, HEAD, OPTIONS") == "method_not_allowed");
  CHECK(front.Refusals("not_found") == 1);
  CHECK(front.Refusals("method_not_allowed") == 2);
  client.Send(Post(kHello, "Content-Encoding: gzip\r\n"));
  const HttpReply zipped = client.Read();
  CHECK(zipped.status == 415);
  CHECK(ErrorCode(zipped) == "unsupported_encoding");
}

TEST_CASE("HttpSession: pages of the named origins may read answers, and no others",
          "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front({.allowed_origins = {"https://chat.example"}});
  const std::string asks =
      "Access-Control-Request-Method: POST\r\n"
      "Access-Control-Request-Headers: content-type,x-stainless-os\r\n\r\n";
  const auto preflight = [&](const char* origin) {
    RawHttpClient client(front.http_address());
    client.Send(absl::StrCat("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: t\r\nOrigin: ", origin,
                             "\r\n", asks));
    return client.Read(RawHttpClient::Body::kNone);
  };
  const HttpReply allowed = preflight("https://chat.example");
  CHECK(allowed.status == 204);
  CHECK(allowed.header("access-control-allow-origin") == "https://chat.example");
  CHECK(allowed.header("access-control-allow-methods") == "POST, OPTIONS");
  CHECK(allowed.header("access-control-allow-headers") == "content-type,x-stainless-os");
  CHECK(allowed.header("vary") == "Origin");
  const HttpReply other = preflight("https://evil.example");
  CHECK(other.status == 204);
  CHECK(other.header("access-control-allow-origin").empty());
  CHECK(other.header("access-control-allow-methods").empty());
  RawHttpClient client(front.http_address());
  client.Send(Post(kHello, "Origin: https://chat.example\r\n"));
  front.AnswerNext("Hi.");
  CHECK(client.Read().header("access-control-allow-origin") == "https://chat.example");
  client.Send(Post("{}", "Origin: https://chat.example\r\n"));
  CHECK(client.Read().header("access-control-allow-origin") == "https://chat.example");
  client.Send(Post("{}", "Origin: https://evil.example\r\n"));
  CHECK(client.Read().header("access-control-allow-origin").empty());
}

TEST_CASE("HttpSession: texts to tokens and back", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  const models::Tokenizer& tokenizer = SmallModel()->tokenizer();
  const HttpReply text =
      Ask(front, testing::PostTo("/tokenize", R"({"prompt":"Hello, w\u00f6rld"})"));
  CHECK(text.status == 200);
  const std::vector<int32_t> ids = tokenizer.Encode("Hello, w\xc3\xb6rld");
  CHECK(text.body.find(absl::StrCat("\"count\":", ids.size(), ",")) != std::string::npos);
  CHECK(text.body.find(absl::StrCat("\"tokens\":[", absl::StrJoin(ids, ","), "]")) !=
        std::string::npos);
  const HttpReply chat = Ask(front, testing::PostTo("/tokenize", kHello));
  CHECK(chat.status == 200);
  const HttpReply back = Ask(
      front,
      testing::PostTo("/detokenize", absl::StrCat("{\"tokens\":[", absl::StrJoin(ids, ","), "]}")));
  CHECK(back.body == "{\"prompt\":\"Hello, w\xc3\xb6rld\"}");
  for (const char* bad : {R"({"tokens":[-1]})", R"({"tokens":["a"]})", "{}", "[]", ""}) {
    INFO(bad);
    CHECK(Ask(front, testing::PostTo("/detokenize", bad)).status == 400);
    CHECK(Ask(front, testing::PostTo("/tokenize", bad)).status == 400);
  }
  front.RequireIdle();
}

TEST_CASE("HttpSession: an answer to HEAD has no body", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  client.Send(Get("/v1/models", "HEAD") + Get("/nowhere", "HEAD") + Get("/healthz"));
  CHECK(client.Read(RawHttpClient::Body::kNone).status == 200);
  CHECK(client.Read(RawHttpClient::Body::kNone).status == 404);
  CHECK(client.Read().body == "ok\n");
}

TEST_CASE("HttpSession: a request's name is the client's, or drawn; an answer's id is its own",
          "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  client.Send(Post(kHello, "X-Request-Id: mine-1\r\n"));
  front.AnswerNext("Hi.");
  const HttpReply named = client.Read();
  CHECK(named.header("x-request-id") == "mine-1");
  CHECK(named.body.find("\"id\":\"chatcmpl-") != std::string::npos);
  client.Send(Post("{}", "X-Request-Id: mine-2\r\n"));
  const HttpReply refused = client.Read();
  CHECK(refused.header("x-request-id") == "mine-2");
  CHECK(ErrorCode(refused) == "invalid_request");
  for (const std::string& bad : {std::string(), std::string("a b"), std::string(129, 'x'),
                                 std::string("\xc3\xa9"), std::string("a\tb")}) {
    client.Send(Post(kHello, "X-Request-Id: " + bad + "\r\n"));
    front.AnswerNext("Hi.");
    const HttpReply reply = client.Read();
    CHECK(reply.status == 200);
    CHECK(reply.header("x-request-id").rfind("chatcmpl-", 0) == 0);
  }
}

TEST_CASE("HttpSession: an answer tells its place in its client's trace", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-";
  client.Send(Post(kHello, "traceparent: " + trace + "b7ad6b7169203331-01\r\n"));
  front.AnswerNext("Hi.");
  const std::string told = client.Read().header("traceparent");
  CHECK(told.rfind(trace, 0) == 0);
  CHECK(told.substr(trace.size()) == "0000000000000001-01");
  for (const char* bad : {"", "traceparent: nonsense\r\n"}) {
    client.Send(Post(kHello, bad));
    front.AnswerNext("Hi.");
    CHECK(client.Read().header("traceparent").empty());
  }
}

TEST_CASE("HttpSession: one request after another, and those sent early", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  constexpr char kStream[] = R"({"stream":true,"messages":[{"role":"user","content":"Hello"}]})";
  client.Send(Post(kHello) + Post(kStream) + Post("{}") + Get("/healthz"));
  front.AnswerNext("One.");
  CHECK(client.Read().body.find("\"content\":\"One.\"") != std::string::npos);
  front.AnswerNext("Two.");
  CHECK(client.Read().body.find("\"content\":\"Two.\"") != std::string::npos);
  CHECK(client.Read().status == 400);
  CHECK(client.Read().body == "ok\n");
  client.Send(Post(kHello));
  front.AnswerNext("Three.");
  CHECK(client.Read().body.find("\"content\":\"Three.\"") != std::string::npos);
  front.RequireIdle();
}

TEST_CASE("HttpSession: a client that keeps no connection is let go after its answer",
          "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient polite(front.http_address());
  polite.Send(Post(kHello, "Connection: close\r\n"));
  front.AnswerNext("Hi.");
  const HttpReply reply = polite.Read();
  CHECK(reply.status == 200);
  CHECK(reply.header("connection") == "close");
  CHECK(polite.Closed());
  // HTTP/1.0 knows no chunks: the end of the connection is the end of the stream.
  RawHttpClient old(front.http_address());
  const std::string body = R"({"stream":true,"messages":[{"role":"user","content":"Hello"}]})";
  old.Send(absl::StrCat("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: ", body.size(),
                        "\r\n\r\n", body));
  front.AnswerNext("Hi.");
  const HttpReply stream = old.Read();
  CHECK(stream.header("transfer-encoding").empty());
  CHECK(stream.body.rfind("data: {", 0) == 0);
  CHECK(stream.body.find("data: [DONE]\n\n") == stream.body.size() - 14);
  // One that asks to stay is told that it may.
  RawHttpClient keeping(front.http_address());
  keeping.Send("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  CHECK(keeping.Read().header("connection") == "keep-alive");
}

TEST_CASE("HttpSession: a client that waits before its body is told to go on, or why not",
          "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  const auto header = [](size_t length) {
    return absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n",
                        "Content-Length: ", length, "\r\n\r\n");
  };
  RawHttpClient client(front.http_address());
  client.Send(header(sizeof(kHello) - 1));
  CHECK(client.Read(RawHttpClient::Body::kNone).status == 100);
  client.Send(kHello);
  front.AnswerNext("Hi.");
  CHECK(client.Read().status == 200);
  client.Send(header(2 << 20));
  CHECK(ErrorCode(client.Read()) == "body_too_large");
  CHECK(client.Closed());
}

TEST_CASE("HttpSession: a body over the limit is refused at once, and holds nothing",
          "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front;
  const auto refused = [&](const std::string& bytes) {
    // The whole body goes out before the answer is looked at: no reset may take that away.
    RawHttpClient client(front.http_address());
    REQUIRE(client.Send(bytes));
    const HttpReply reply = client.Read();
    CHECK(reply.status == 413);
    CHECK(ErrorCode(reply) == "body_too_large");
    CHECK(reply.header("connection") == "close");
    client.CloseSending();
    CHECK(client.Closed());
  };
  refused(Post(std::string(3 << 20, 'x')));
  // One that announces and sends nothing hears it too.
  RawHttpClient silent(front.http_address());
  silent.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 2000000\r\n\r\n");
  CHECK(silent.Read().status == 413);
  std::string chunks = kChunkedPost;
  for (int i = 0; i < 40; ++i) {
    absl::StrAppend(&chunks, "10000\r\n", std::string(0x10000, 'x'), "\r\n");
  }
  refused(chunks + "0\r\n\r\n");
  CHECK(front.Refusals("body_too_large") == 3);
  front.RequireIdle();
  front.RequireServes();
}

TEST_CASE("HttpSession: a body without an end is refused, and the connection closed",
          "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  client.Send(kChunkedPost);
  const std::string chunk = absl::StrCat("10000\r\n", std::string(0x10000, 'x'), "\r\n");
  // In whole chunks, so that what is sent stays well formed.
  while (client.Peek().empty()) {
    if (!client.Send(chunk)) break;
  }
  const HttpReply reply = client.Read();
  CHECK(reply.status == 413);
  CHECK(reply.header("connection") == "close");
  CHECK(ErrorCode(reply) == "body_too_large");
  client.CloseSending();
  CHECK(client.Closed());
  front.RequireIdle();
  front.RequireServes();
}

TEST_CASE("HttpSession: chunk sizes that no body can have are refused",
          "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front;
  const std::pair<std::string, int> chunk_sizes[] = {
      {"-1", 400},
      {"", 400},
      {"zz", 400},
      {"x10", 400},
      {"10000000000000000", 400},  // 2^64
      {std::string(300'000, '0'), 400},
      {"5;" + std::string(300'000, 'x'), 400},
      {"8000000000000000", 413},  // 2^63
      {"7fffffffffffffff", 413},
      {"ffffffffffffffff", 413},
      {"100001", 413},  // the limit and one
  };
  for (const auto& [size, status] : chunk_sizes) {
    INFO("chunk size " << size.substr(0, 30));
    const HttpReply reply = Ask(front, absl::StrCat(kChunkedPost, size, "\r\nabc"));
    CHECK(reply.status == status);
    CHECK(ErrorCode(reply) == (status == 413 ? "body_too_large" : "invalid_http"));
    CHECK(reply.header("connection") == "close");
  }
  front.RequireIdle();
  front.RequireServes();
}

TEST_CASE("HttpSession: lengths that no body can have are refused", "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  // So long is waited for the rest of a body that is refused and does not come.
  FrontFixture front({.timeouts = {.drain = milliseconds(100)}});
  const std::pair<std::string, int> lengths[] = {
      {"-1", 400},
      {"1e3", 400},
      {"", 400},
      {"5, 6", 400},
      {"18446744073709551616", 400},
      {"9223372036854775808", 413},
      {"18446744073709551615", 413},
      {"1048577", 413},
  };
  for (const auto& [length, status] : lengths) {
    INFO("length " << length);
    const HttpReply reply =
        Ask(front, absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: ",
                                length, "\r\n\r\n{}"));
    CHECK(reply.status == status);
    ErrorCode(reply);
  }
  front.RequireIdle();
  front.RequireServes();
}

TEST_CASE("HttpSession: a header that is too large, or tells of two bodies, is refused",
          "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front;
  std::string flood = "GET /healthz HTTP/1.1\r\n";
  for (int i = 0; i < 100'000; ++i) absl::StrAppend(&flood, "X-", i, ": y\r\n");
  const std::string chat = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n";
  const std::tuple<std::string, int, std::string> rows[] = {
      {flood + "\r\n", 431, "header_too_large"},
      {"GET /healthz HTTP/1.1\r\nX: " + std::string(1 << 20, 'x') + "\r\n\r\n", 431,
       "header_too_large"},
      {"GET /" + std::string(1 << 20, 'x') + " HTTP/1.1\r\n\r\n", 431, "header_too_large"},
      {chat + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
       "invalid_http"},
      {chat + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", 400,
       "invalid_http"},
      {chat + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", 400, "invalid_http"},
      {chat + "Transfer-Encoding: gzip\r\n\r\n{}", 400, "invalid_http"},
      {chat + "Transfer-Encoding: chunked, gzip\r\n\r\n{}", 400, "invalid_http"},
      {chat + "Content-Length : 2\r\n\r\n{}", 400, "invalid_http"},
      {"GET /healthz HTTP/9.9\r\n\r\n", 400, "invalid_http"},
      {"\x16\x03\x01\x02\x01\x01\xfc\x03\x03\r\n\r\n", 400, "invalid_http"},
      {"GET /healthz HTTP/1.1\r\n folded\r\n\r\n", 400, "invalid_http"},
      {"GET /healthz HTTP/1.1\r\n\r\n", 400, "invalid_http"},
      {"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "invalid_http"},
      {chat + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "invalid_http"},
      {chat + "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400, "invalid_http"},
  };
  for (const auto& [bytes, status, code] : rows) {
    INFO(bytes.substr(0, 120));
    const int before = front.Refusals(code);
    const HttpReply reply = Ask(front, bytes);
    CHECK(reply.status == status);
    CHECK(ErrorCode(reply) == code);
    CHECK(reply.header("connection") == "close");
    CHECK(front.Refusals(code) == before + 1);
  }
  CHECK(front.submitted() == 0);
  front.RequireServes();
}

TEST_CASE("HttpSession: a client that does not read is cut off, and slows nobody",
          "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front({.write_stall = seconds(1)});
  RawHttpClient stalled(front.http_address());
  stalled.Send(Post(R"({"stream":true,"logprobs":true,"top_logprobs":20,
                        "messages":[{"role":"user","content":"Hello"}]})"));
  const scheduler::RequestId id = front.WaitSubmit().request;
  // More than the buffers of both sockets take.
  front.SayAtLength(id, 20'000);
  for (int i = 0; i < 5; ++i) front.RequireServes();
  front.RequireIdle();
  CHECK(front.Terminals("client_stalled") == 1);
}

TEST_CASE("HttpSession: a request that comes too slowly is refused, the second one too",
          "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front(
      {.timeouts = {
           .idle = seconds(1000), .header = milliseconds(500), .body = milliseconds(500)}});
  // Bytes that go on coming buy no time.
  const auto dribble = [](RawHttpClient& client, const std::string& bytes) {
    size_t next = 0;
    while (client.Peek().empty() && next < bytes.size()) {
      if (!client.Send(bytes.substr(next++, 1))) break;
      triptych::testing::WaitAMoment(milliseconds(20));
    }
    const HttpReply reply = client.Read();
    CHECK(reply.status == 408);
    CHECK(ErrorCode(reply) == "request_timeout");
    client.CloseSending();
    CHECK(client.Closed());
  };
  const std::string header = "GET /healthz HTTP/1.1\r\nX: " + std::string(5000, 'x');
  RawHttpClient first(front.http_address());
  dribble(first, header);
  RawHttpClient second(front.http_address());
  second.Send(Get("/healthz"));
  CHECK(second.Read().status == 200);
  dribble(second, header);
  // With half of its header sent together with the request before.
  RawHttpClient third(front.http_address());
  third.Send(Get("/healthz") + header.substr(0, 10));
  CHECK(third.Read().status == 200);
  dribble(third, header.substr(10));
  RawHttpClient body(front.http_address());
  body.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 5000\r\n\r\n");
  dribble(body, std::string(4999, ' '));
  CHECK(front.Refusals("request_timeout") == 4);
  front.RequireIdle();
}

TEST_CASE("HttpSession: a client that says nothing is closed without a word", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front({.timeouts = {.header = milliseconds(50)}});
  RawHttpClient silent(front.http_address());
  CHECK(silent.Closed());
  FrontFixture patient({.timeouts = {.idle = milliseconds(50)}});
  RawHttpClient idle(patient.http_address());
  idle.Send(Get("/healthz"));
  CHECK(idle.Read().status == 200);
  CHECK(idle.Closed());
}

}  // namespace
}  // namespace triptych::services
