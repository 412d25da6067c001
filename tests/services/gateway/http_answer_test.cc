// Defended, over real sockets: what a client reads of an answer, good or failed, whole or streamed;
// and that a client which leaves, whenever it does, leaves nothing behind.

#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/services/gateway/front_fixture.h"
#include "tests/support/eventually.h"
#include "tests/support/skip.h"

namespace triptych::services {
namespace {

using nlohmann::json;
using scheduler::Finish;
using scheduler::RequestId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ErrorCode;
using testing::FrontFixture;
using testing::HttpReply;
using testing::Post;
using testing::RawHttpClient;
using testing::SmallModel;

bool ModelMissing() {
  if (SmallModel() == nullptr) triptych::testing::SkipTest("the shipped model is not here");
  return SmallModel() == nullptr;
}

// A good request with more members.
std::string Body(const std::string& members = "") {
  return absl::StrCat(R"({"messages":[{"role":"user","content":"Hello"}])", members, "}");
}
const std::string kStream = Body(R"(,"stream":true)");

std::string FileText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// A question about a picture.
std::string PictureBody(const std::string& members) {
  return absl::StrCat(
      R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":")",
      "data:image/png;base64,", absl::Base64Escape(FileText("assets/examples/shapes.png")),
      R"("}},{"type":"text","text":"What is it?"}]}])", members, "}");
}

// The events of a stream, without "data: "; requires that it is made of nothing else.
std::vector<std::string> Events(const std::string& body) {
  std::vector<std::string> events;
  for (absl::string_view event : absl::StrSplit(body, "\n\n")) {
    if (event.empty()) continue;
    REQUIRE(event.substr(0, 6) == "data: ");
    events.emplace_back(event.substr(6));
  }
  return events;
}

TEST_CASE("HttpSession: a whole answer tells when, why it ended, and what it used",
          "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  client.Send(Post(PictureBody("")));
  const scheduler::SubmitRequest submit = front.WaitSubmit();
  REQUIRE(submit.items.size() == 1);
  front.Say(submit.request, "A circle", Finish::kLength);
  const HttpReply reply = client.Read();
  CHECK(reply.status == 200);
  CHECK(reply.header("content-type") == "application/json");
  const json answer = json::parse(reply.body);
  CHECK(answer["object"] == "chat.completion");
  CHECK(answer["created"] == FrontFixture::kUnixSeconds);
  CHECK(answer["model"] == front.model());
  CHECK(answer["id"].get<std::string>().rfind("chatcmpl-", 0) == 0);
  CHECK(answer["choices"][0]["message"]["content"] == "A circle");
  CHECK(answer["choices"][0]["finish_reason"] == "length");
  const json& usage = answer["usage"];
  const int output = static_cast<int>(SmallModel()->tokenizer().Encode("A circle").size());
  CHECK(usage["prompt_tokens"] == submit.prompt_tokens);
  CHECK(usage["completion_tokens"] == output);
  CHECK(usage["total_tokens"] == submit.prompt_tokens + output);
  CHECK(usage["prompt_tokens_details"]["image_tokens"] == submit.items[0].num_tokens);
  CHECK(usage["prompt_tokens_details"]["cached_tokens"] == 0);
  CHECK(front.Terminals("length") == 1);
  front.RequireIdle();
}

TEST_CASE("HttpSession: a stream begins when it is admitted and ends with its usage",
          "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  client.Send(Post(PictureBody(R"(,"stream":true,"stream_options":{"include_usage":true})")));
  const scheduler::SubmitRequest submit = front.WaitSubmit();
  CHECK(client.Peek().empty());
  front.Admit(submit.request);
  client.WaitFor("\"role\":\"assistant\"");
  front.Say(submit.request, "One");
  client.WaitFor("\"content\":\"One\"");
  front.Say(submit.request, " two", Finish::kStop);
  const HttpReply reply = client.Read();
  CHECK(reply.status == 200);
  CHECK(reply.header("content-type") == "text/event-stream");
  const std::vector<std::string> events = Events(reply.body);
  REQUIRE(events.size() >= 4);
  std::string text;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const json event = json::parse(events[i]);
    CHECK(event["object"] == "chat.completion.chunk");
    CHECK(event["created"] == FrontFixture::kUnixSeconds);
    CHECK(event["id"] == json::parse(events[0])["id"]);
    if (!event["choices"].empty()) text += event["choices"][0]["delta"].value("content", "");
  }
  CHECK(text == "One two");
  CHECK(json::parse(events[events.size() - 3])["choices"][0]["finish_reason"] == "stop");
  const json usage = json::parse(events[events.size() - 2])["usage"];
  CHECK(usage["prompt_tokens"] == submit.prompt_tokens);
  CHECK(usage["prompt_tokens_details"]["image_tokens"] == submit.items[0].num_tokens);
  CHECK(events.back() == "[DONE]");
  front.RequireIdle();
}

TEST_CASE("HttpSession: an error before the first token is an answer of its own",
          "[gateway][http]") {
  if (ModelMissing()) return;
  struct Row {
    absl::Status status;
    base::Duration retry_after;
    int http;
    const char* code;
    const char* retry;
  };
  const Row rows[] = {
      {absl::ResourceExhaustedError("queue"), milliseconds(1500), 429, "overloaded", "2"},
      {absl::UnavailableError("10.0.0.1:4 is gone"), seconds(3), 503, "unavailable", "3"},
      {absl::UnavailableError("no hint"), seconds(0), 503, "unavailable", "1"},
      {absl::FailedPreconditionError("no worker"), seconds(0), 503, "unavailable", "1"},
      {absl::DeadlineExceededError("late"), seconds(0), 504, "deadline_exceeded", ""},
      {absl::InternalError("/secret/path"), seconds(0), 500, "internal", ""},
      {absl::InternalError("numerical_error"), seconds(0), 500, "numerical_error", ""},
      {absl::InvalidArgumentError("image_malformed"), seconds(0), 400, "image_malformed", ""},
  };
  FrontFixture front;
  RawHttpClient client(front.http_address());
  for (const std::string& body : {Body(), kStream}) {
    for (const Row& row : rows) {
      INFO(row.status.ToString());
      const int before = front.Terminals(row.code);
      client.Send(Post(body));
      front.Fail(front.WaitSubmit().request, row.status, row.retry_after);
      const HttpReply reply = client.Read();
      CHECK(reply.status == row.http);
      CHECK(ErrorCode(reply) == row.code);
      CHECK(reply.header("retry-after") == row.retry);
      CHECK(reply.body.find("secret") == std::string::npos);
      CHECK(reply.body.find("10.0.0.1") == std::string::npos);
      CHECK(front.Terminals(row.code) == before + 1);
    }
  }
  front.RequireIdle();
  front.RequireServes();
}

TEST_CASE("HttpSession: an error inside a stream is its last event, and no [DONE] follows",
          "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  client.Send(Post(kStream));
  const RequestId id = front.WaitSubmit().request;
  front.Say(id, "Half of");
  client.WaitFor("Half of");
  front.FailTask(id, absl::InternalError("at /secret/path"));
  const HttpReply reply = client.Read();
  CHECK(reply.status == 200);
  const std::vector<std::string> events = Events(reply.body);
  REQUIRE(events.size() >= 2);
  const json error = json::parse(events.back())["error"];
  CHECK(error["code"] == "internal");
  CHECK(error["type"] == "server_error");
  CHECK(error["request_id"] == reply.header("x-request-id"));
  CHECK(reply.body.find("secret") == std::string::npos);
  CHECK(reply.body.find("[DONE]") == std::string::npos);
  // The stream has ended as a stream: the connection is of use.
  client.Send(Post(Body()));
  front.AnswerNext("Hi.");
  CHECK(client.Read().status == 200);
  front.RequireIdle();
}

TEST_CASE("HttpSession: a gateway that is full or draining says when to come again",
          "[gateway][http]") {
  if (ModelMissing()) return;
  constexpr int64_t kBudget = 15 << 16;  // whole chunks, as bodies are read
  FrontFixture front({.budget_bytes = kBudget, .max_requests = 1});
  RawHttpClient first(front.http_address());
  first.Send(Post(Body()));
  const RequestId live = front.WaitSubmit().request;
  RawHttpClient second(front.http_address());
  second.Send(Post(Body()));
  const HttpReply full = second.Read();
  CHECK(full.status == 429);
  CHECK(ErrorCode(full) == "overloaded");
  CHECK(full.header("retry-after") == "1");
  front.Say(live, "Hi.", Finish::kStop);
  CHECK(first.Read().status == 200);
  // What is announced and does not come takes nobody's place.
  RawHttpClient silent(front.http_address());
  silent.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 1048576\r\n\r\n");
  REQUIRE(triptych::testing::Eventually(seconds(10), [&] { return front.held_bytes() > 0; }));
  second.Send(Post(Body()));
  front.Say(front.WaitSubmit().request, "Hi.", Finish::kStop);
  CHECK(second.Read().status == 200);
  silent.Leave();
  front.RequireIdle();
  // All the bytes that bodies may hold are held by one that never ends.
  RawHttpClient greedy(front.http_address());
  greedy.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 1048576\r\n\r\n" +
              std::string((1 << 20) - 1, 'x'));
  REQUIRE(
      triptych::testing::Eventually(seconds(10), [&] { return front.held_bytes() == kBudget; }));
  second.Send(Post(Body()));
  const HttpReply spent = second.Read();
  CHECK(spent.status == 429);
  CHECK(ErrorCode(spent) == "overloaded");
  CHECK(spent.header("retry-after") == "1");
  greedy.Leave();
  front.RequireIdle();
  front.core().Call(
      [](RequestDesk& desk, base::TimePoint now) { desk.Drain(now + seconds(100), [] {}); });
  second.Send(Post(Body()));
  const HttpReply draining = second.Read();
  CHECK(draining.status == 503);
  CHECK(ErrorCode(draining) == "draining");
  CHECK_FALSE(draining.header("retry-after").empty());
}

TEST_CASE("HttpSession: a stream that waits says that it is there", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front({.timeouts = {.keep_alive = milliseconds(20)}});
  RawHttpClient client(front.http_address());
  client.Send(Post(kStream));
  const RequestId id = front.WaitSubmit().request;
  front.Admit(id);
  client.WaitFor(": keep-alive\n\n");
  front.Say(id, "Hi.", Finish::kStop);
  const HttpReply reply = client.Read();
  CHECK(reply.status == 200);
  CHECK(reply.body.find("\"content\":\"Hi.\"") != std::string::npos);
  front.RequireIdle();
}

TEST_CASE("HttpSession: a failure after admission is the last event of the stream",
          "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  client.Send(Post(kStream));
  const RequestId id = front.WaitSubmit().request;
  front.Admit(id);
  client.WaitFor("assistant");
  front.Fail(id, absl::UnavailableError("no worker"));
  const HttpReply reply = client.Read();
  CHECK(reply.status == 200);
  CHECK(json::parse(Events(reply.body).back())["error"]["code"] == "unavailable");
  front.RequireIdle();
}

TEST_CASE("HttpSession: n answers are n requests, all or none", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  client.Send(Post(PictureBody(R"(,"n":3,"seed":5)")));
  const scheduler::SubmitRequest first = front.WaitSubmit();
  const RequestId second = front.WaitSubmit().request;
  const RequestId third = front.WaitSubmit().request;
  CHECK(front.held_bytes() > 0);
  front.Say(third, "Three", Finish::kStop);
  front.Say(first.request, "One", Finish::kLength);
  front.Say(second, "Two", Finish::kStop);
  const json answer = json::parse(client.Read().body);
  REQUIRE(answer["choices"].size() == 3);
  CHECK(answer["choices"][0]["message"]["content"] == "One");
  CHECK(answer["choices"][0]["finish_reason"] == "length");
  CHECK(answer["choices"][2]["message"]["content"] == "Three");
  CHECK(answer["choices"][2]["index"] == 2);
  // One prompt was sent, whatever came of it.
  CHECK(answer["usage"]["prompt_tokens"] == first.prompt_tokens);
  CHECK(answer["usage"]["completion_tokens"] >= 3);
  front.RequireIdle();
  for (const char* stream : {"", R"(,"stream":true)"}) {
    client.Send(Post(Body(absl::StrCat(R"(,"n":2)", stream))));
    front.Admit(front.WaitSubmit().request);
    front.Fail(front.WaitSubmit().request, absl::ResourceExhaustedError("full"));
    const HttpReply refused = client.Read();
    CHECK(refused.status == 429);
    CHECK(ErrorCode(refused) == "overloaded");
    front.RequireIdle();
  }
  client.Send(Post(Body(R"(,"n":2,"stream":true)")));
  const RequestId left = front.WaitSubmit().request, right = front.WaitSubmit().request;
  front.Say(right, "Right", Finish::kStop);
  front.Say(left, "Left", Finish::kStop);
  std::string texts[2];
  const std::vector<std::string> events = Events(client.Read().body);
  CHECK(events.back() == "[DONE]");
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const json choice = json::parse(events[i])["choices"][0];
    texts[choice["index"].get<size_t>()] += choice["delta"].value("content", "");
  }
  CHECK(texts[0] == "Left");
  CHECK(texts[1] == "Right");
  front.RequireIdle();
}

TEST_CASE("HttpSession: one name for many requests is the client's affair", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient first(front.http_address()), second(front.http_address());
  first.Send(Post(kStream, "X-Request-Id: same\r\n"));
  const RequestId id = front.WaitSubmit().request;
  second.Send(Post(Body(), "X-Request-Id: same\r\n"));
  front.AnswerNext("Hi.");
  front.Say(id, "Hi.", Finish::kStop);
  const HttpReply stream = first.Read(), whole = second.Read();
  CHECK(stream.status == 200);
  CHECK(whole.status == 200);
  CHECK(stream.header("x-request-id") == "same");
  CHECK(whole.header("x-request-id") == "same");
  CHECK(json::parse(Events(stream.body)[0])["id"] != json::parse(whole.body)["id"]);
  front.RequireIdle();
}

TEST_CASE("HttpSession: text completions have the form of their own", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  client.Send(testing::PostTo("/v1/completions", R"({"prompt":["A","B"],"logprobs":0})"));
  front.AnswerNext("One");
  front.AnswerNext("Two");
  const json answer = json::parse(client.Read().body);
  CHECK(answer["object"] == "text_completion");
  REQUIRE(answer["choices"].size() == 2);
  CHECK(answer["choices"][1]["text"] == "Two");
  CHECK(answer["choices"][0]["logprobs"]["token_logprobs"][0] == -0.5);
  CHECK(answer["usage"]["prompt_tokens"] == 2);
  client.Send(testing::PostTo("/v1/completions", R"({"prompt":"A","stream":true})"));
  front.AnswerNext("One");
  const std::vector<std::string> events = Events(client.Read().body);
  CHECK(json::parse(events.at(0))["choices"][0]["text"] == "One");
  CHECK(events.back() == "[DONE]");
  front.RequireIdle();
}

TEST_CASE("HttpSession: a deadline of 1 ms is 504, however long an answer might take",
          "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  for (const char* stream : {"", R"(,"stream":true)"}) {
    client.Send(Post(Body(absl::StrCat(R"(,"timeout_ms":1)", stream))));
    const HttpReply reply = client.Read();
    CHECK(reply.status == 504);
    CHECK(ErrorCode(reply) == "deadline_exceeded");
  }
  CHECK(front.Terminals("deadline_exceeded") == 2);
  front.RequireIdle();
  // Beyond the server's maximum is the maximum, without overflow.
  client.Send(Post(Body(R"(,"timeout_ms":9223372036854775807)")));
  bool last_found = false;
  while (!last_found) {
    const scheduler::SubmitRequest submit = front.WaitSubmit();
    last_found = submit.time_left > seconds(1);
    if (!last_found) continue;
    CHECK(submit.time_left <= IntakeLimits().max_timeout);
    front.Say(submit.request, "Hi.", Finish::kStop);
  }
  CHECK(client.Read().status == 200);
}

TEST_CASE("HttpSession: a client that leaves inside its body leaves nothing",
          "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front;
  for (const char* header : {"Content-Length: 500000", "Transfer-Encoding: chunked"}) {
    RawHttpClient client(front.http_address());
    client.Send(absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n", header,
                             "\r\n\r\n100\r\n{\"messages\":"));
    REQUIRE(triptych::testing::Eventually(seconds(10), [&] { return front.held_bytes() > 0; }));
    client.Leave();
    front.RequireIdle();
  }
  CHECK(front.submitted() == 0);
  front.RequireServes();
}

TEST_CASE("HttpSession: a client that leaves before or inside its answer leaves nothing",
          "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front;
  int cancelled = 0;
  for (const std::string& members : {std::string(), std::string(R"(,"stream":true)")}) {
    for (const int tokens_before : {0, 1, 5}) {
      RawHttpClient client(front.http_address());
      client.Send(Post(PictureBody(members)));
      const RequestId id = front.WaitSubmit().request;
      CHECK(front.held_bytes() > 0);
      for (int i = 0; i < tokens_before; ++i) front.Say(id, "word ");
      if (tokens_before > 0 && !members.empty()) client.WaitFor("word");
      client.Leave();
      front.RequireIdle();
      CHECK(front.Terminals("cancelled") == ++cancelled);
    }
  }
  front.RequireServes();
}

TEST_CASE("HttpSession: an early byte hides no departure", "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front;
  for (const std::string& early : {std::string("G"), std::string(20'000, 'G')}) {
    RawHttpClient client(front.http_address());
    client.Send(Post(PictureBody("")) + early);
    front.WaitSubmit();
    client.Leave();
    front.RequireIdle();
  }
  CHECK(front.Terminals("cancelled") == 2);
  front.RequireServes();
}

TEST_CASE("HttpSession: a client that only sends no more gets its answer", "[gateway][http]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient whole(front.http_address());
  whole.Send(Post(Body()));
  const RequestId id = front.WaitSubmit().request;
  whole.CloseSending();
  CHECK(whole.Read(RawHttpClient::Body::kNone).status == 100);
  front.Say(id, "Hi.", Finish::kStop);
  CHECK(whole.Read().status == 200);
  RawHttpClient stream(front.http_address());
  stream.Send(Post(kStream));
  const RequestId other = front.WaitSubmit().request;
  front.Say(other, "word ");
  stream.WaitFor("word");
  stream.CloseSending();
  stream.WaitFor(": keep-alive\n\n");
  front.Say(other, "end", Finish::kStop);
  const HttpReply reply = stream.Read();
  CHECK(reply.status == 200);
  CHECK(reply.body.find("[DONE]") != std::string::npos);
  front.RequireIdle();
}

TEST_CASE("HttpSession: a client that leaves between two pipelined answers leaves nothing",
          "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front;
  RawHttpClient client(front.http_address());
  client.Send(Post(kStream) + Post(kStream));
  const RequestId first = front.WaitSubmit().request;
  front.Say(first, "word ");
  client.WaitFor("word");
  front.Say(first, "end", Finish::kStop);
  const RequestId second = front.WaitSubmit().request;
  CHECK(client.Read().status == 200);
  client.Leave();
  // What the second request says finds nobody.
  for (int i = 0; i < 2; ++i) front.Say(second, "word ");
  front.RequireIdle();
  front.RequireServes();
}

TEST_CASE("HttpSession: a thousand requests begun and left leave nothing",
          "[gateway][http][hostile]") {
  if (ModelMissing()) return;
  FrontFixture front({.max_requests = 2000});
  for (int i = 0; i < 1000; ++i) {
    RawHttpClient client(front.http_address());
    client.Send(Post(kStream));
  }
  front.RequireIdle();
  front.RequireServes();
}

}  // namespace
}  // namespace triptych::services
