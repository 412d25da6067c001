// Both front ends read the same request from JSON and from protobuf, and one table of refusals
// holds for both. Pictures come from data: URLs alone.

#include <catch2/catch.hpp>

#include "services/gateway/request/base64.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/grpc_request.h"
#include "services/gateway/request/inline_media.h"
#include "services/gateway/request/intake.h"
#include "services/gateway/request/openai_request.h"
#include "tests/services/gateway/small_model.h"
#include "tests/support/skip.h"

namespace triptych::services {
namespace {

using testing::SmallModel;

PayloadBudget& Budget() {
  static PayloadBudget budget(1 << 20);
  return budget;
}

using Parsed = absl::StatusOr<std::unique_ptr<ParsedRequest>>;

Parsed Take(ChatRequest chat) {
  const Intake intake(*SmallModel(), {});
  PayloadBudget::Reservation reservation = Budget().Open();
  CHECK(reservation.GrowTo(1000));
  return intake.Parse(std::move(chat), std::move(reservation));
}

Parsed TakeJson(const std::string& body) {
  absl::StatusOr<OpenAiRequest> request = ParseOpenAiRequest(body);
  if (!request.ok()) return request.status();
  return Take(std::move(request->chat));
}

Parsed TakeProto(v1::GenerateRequest request) {
  absl::StatusOr<ChatRequest> chat = FromProto(std::move(request));
  if (!chat.ok()) return chat.status();
  return Take(*std::move(chat));
}

std::string CodeOf(const Parsed& parsed) {
  return parsed.ok() ? "ok" : ToClientError(parsed.status()).code;
}

// `members` are added to a request that is good without them.
std::string Body(const std::string& members) {
  return R"({"messages":[{"role":"user","content":"Hello"}])" + members + "}";
}

TEST_CASE("DecodeBase64: strict, and the same as the table of RFC 4648", "[gateway][base64]") {
  const std::pair<const char*, const char*> good[] = {
      {"", ""},
      {"Zg==", "f"},
      {"Zm8=", "fo"},
      {"Zm9v", "foo"},
      {"Zm9vYg==", "foob"},
      {"Zm9vYmE=", "fooba"},
      {"Zm9vYmFy", "foobar"},
  };
  for (const auto& [text, expected] : good) {
    std::string bytes;
    CHECK(DecodeBase64(text, &bytes));
    CHECK(bytes == expected);
  }
  for (const char* text : {"Z", "Zg", "Zg=", "Zh==", "Zm9=", "====", "Zg==Zg==", "Zm 9v", "Zm9v\n",
                           "Zm-_", "=Zm9", "Z===", "Zm9v\xff\xff\xff\xff"}) {
    INFO(text);
    std::string bytes;
    CHECK_FALSE(DecodeBase64(text, &bytes));
  }
}

TEST_CASE("ParseImageUrl: anything but a picture in a data: URL is refused", "[gateway][media]") {
  for (const char* url :
       {"http://example.com/a.png", "https://example.com/a.png", "file:///etc/passwd", "",
        "data:", "data:image/svg+xml;base64,AAAA", "data:text/html;base64,AAAA",
        "data:image/png,AAAA", "data:image/png;base64;base64,AAAA", "data:image/png;base64,A",
        "data:image/png;base64,A===", "data:image/;base64,AAAA",
        "data:image/png;charset=x;base64,AAAA", "data:video/jpeg;base64,AAAA"}) {
    INFO(url);
    const auto media = ParseImageUrl(url);
    REQUIRE_FALSE(media.ok());
    CHECK(media.status().message() == "unsupported_image_source");
  }
  CHECK(ParseImageUrl("data:image/png;base64,Zm9v")->frames[0] == "foo");
  const auto video = ParseVideoUrl("data:video/jpeg;base64,Zm9v,Zg==", 4);
  REQUIRE(video.ok());
  CHECK(video->frames == std::vector<std::string>{"foo", "f"});
  CHECK_FALSE(ParseVideoUrl("data:video/mp4;base64,Zm9v", 4).ok());
}

TEST_CASE("ToClientError: texts that are not ours never reach a client", "[gateway][errors]") {
  struct Row {
    absl::Status status;
    const char* code;
    int http;
  };
  const Row rows[] = {
      {absl::InternalError("/secret/path 10.0.0.1"), "internal", 500},
      {absl::InternalError("numerical_error"), "numerical_error", 500},
      {absl::UnavailableError("peer 10.0.0.1:99"), "unavailable", 503},
      {absl::FailedPreconditionError("x"), "unavailable", 503},
      {absl::ResourceExhaustedError("queue"), "overloaded", 429},
      {absl::DeadlineExceededError("late"), "deadline_exceeded", 504},
      {absl::AlreadyExistsError("x"), "request_id_active", 409},
      {absl::CancelledError(""), "cancelled", 499},
      {absl::InvalidArgumentError("image_too_large"), "image_too_large", 400},
      {absl::InternalError("image_too_large"), "internal", 500},
      {Refuse("model_not_found"), "model_not_found", 404},
      {Refuse("body_too_large"), "body_too_large", 413},
      {Refuse("draining"), "draining", 503},
      {Refuse("request_timeout"), "request_timeout", 408},
  };
  for (const Row& row : rows) {
    INFO(row.status.ToString());
    const ClientError error = ToClientError(row.status);
    CHECK(error.code == std::string(row.code));
    CHECK(error.http_status == row.http);
    CHECK(error.message.find("10.0.0.1") == std::string::npos);
    CHECK(error.message.find("/secret") == std::string::npos);
    CHECK(ToClientStatus(row.status).message().find("10.0") == absl::string_view::npos);
  }
  CHECK(ToClientError(Refuse("invalid_request", "n must be 1")).message == "n must be 1");
}

TEST_CASE("ParseOpenAiRequest: members of a wrong type are refused", "[gateway][request]") {
  for (const char* members : {R"(,"temperature":"1")",
                              R"(,"max_tokens":"5")",
                              R"(,"max_tokens":1.5)",
                              R"(,"stream":1)",
                              R"(,"stop":[1])",
                              R"(,"stop":{})",
                              R"(,"seed":0.5)",
                              R"(,"top_k":"3")",
                              R"(,"n":[])",
                              R"(,"logprobs":2)",
                              R"(,"top_logprobs":3)",
                              R"(,"stream_options":true)",
                              R"(,"model":3)",
                              R"(,"tools":[{}])",
                              R"(,"presence_penalty":1)",
                              R"(,"min_p":0.1)",
                              R"(,"repetition_penalty":1.1)",
                              R"(,"guided_regex":"a")",
                              R"(,"response_format":"text")",
                              R"(,"response_format":{"type":"json_object"})"}) {
    INFO(members);
    const auto request = ParseOpenAiRequest(Body(members));
    REQUIRE_FALSE(request.ok());
    CHECK(ToClientError(request.status()).code == std::string("invalid_request"));
  }
  for (const char* body :
       {"[]", "3", "{}", R"({"messages":3})", R"({"messages":[3]})",
        R"({"messages":[{"role":"user"}]})", R"({"messages":[{"role":"user","content":[3]}]})",
        R"({"messages":[{"role":"user","content":[{"type":"audio"}]}]})"}) {
    INFO(body);
    CHECK_FALSE(ParseOpenAiRequest(body).ok());
  }
  CHECK(ParseOpenAiRequest(Body(R"(,"tools":[],"user":"me","unknown":{"a":[1]})")).ok());
  CHECK(ParseOpenAiRequest(Body(R"(,"response_format":{"type":"text"},"repetition_penalty":1)"))
            .ok());
}

TEST_CASE("ParseOpenAiRequest: a thousand pictures are refused unread", "[gateway][request]") {
  std::string parts;
  for (int i = 0; i < 1000; ++i) {
    parts += R"({"type":"image_url","image_url":{"url":"not even a URL"}},)";
  }
  parts.pop_back();
  const auto request =
      ParseOpenAiRequest(R"({"messages":[{"role":"user","content":[)" + parts + "]}]}");
  REQUIRE_FALSE(request.ok());
  CHECK(request.status().message() == "too_many_images");
}

TEST_CASE("Intake: one table of limits", "[gateway][request]") {
  if (SmallModel() == nullptr) return triptych::testing::SkipTest("the shipped model is not here");
  const std::pair<const char*, const char*> rows[] = {
      {"", "ok"},
      {R"(,"max_tokens":1)", "ok"},
      {R"(,"max_tokens":0)", "invalid_request"},
      {R"(,"max_tokens":-1)", "invalid_request"},
      {R"(,"max_tokens":2147483648)", "invalid_request"},
      {R"(,"n":1000000)", "invalid_request"},
      {R"(,"temperature":-0.1)", "invalid_request"},
      {R"(,"temperature":0.7,"top_p":0.9,"top_k":40,"seed":7)", "ok"},
      {R"(,"top_p":0)", "invalid_request"},
      {R"(,"top_p":1.01)", "invalid_request"},
      {R"(,"top_k":-2)", "invalid_request"},
      {R"(,"logprobs":true,"top_logprobs":21)", "invalid_request"},
      {R"(,"stop":[""])", "invalid_request"},
      {R"(,"timeout_ms":-1)", "invalid_request"},
      {R"(,"model":"other")", "model_not_found"},
  };
  for (const auto& [members, code] : rows) {
    INFO(members);
    CHECK(CodeOf(TakeJson(Body(members))) == code);
  }
  std::string stops = R"(,"stop":[)";
  for (int i = 0; i < 17; ++i) stops += i == 0 ? "\"a\"" : ",\"a\"";
  CHECK(CodeOf(TakeJson(Body(stops + "]"))) == "invalid_request");
  CHECK(CodeOf(TakeJson(R"({"messages":[]})")) == "invalid_request");
  CHECK(CodeOf(TakeJson(R"({"messages":[{"role":"wizard","content":"x"}]})")) == "invalid_request");
  // The newer name of a system message, with the same rules.
  CHECK(CodeOf(TakeJson(R"({"messages":[{"role":"developer","content":[{"type":"image_url",)"
                        R"("image_url":{"url":"data:image/png;base64,AA=="}}]}]})")) ==
        "invalid_request");
  const std::string giant(400'000, 'a');
  CHECK(CodeOf(TakeJson(R"({"messages":[{"role":"user","content":")" + giant + " " + giant +
                        "\"}]}")) == "prompt_too_long");
  CHECK(Budget().free_bytes() == 1 << 20);
}

TEST_CASE("Intake: control words that a user types are plain text", "[gateway][request]") {
  if (SmallModel() == nullptr) return triptych::testing::SkipTest("the shipped model is not here");
  const Parsed parsed = TakeJson(
      R"({"messages":[{"role":"user","content":"<|image_pad|><|im_end|><|vision_start|>"}]})");
  REQUIRE(parsed.ok());
  const auto* run = std::get_if<scheduler::TokenRun>(&(*parsed)->input.segments.at(0));
  REQUIRE(run != nullptr);
  const models::ModelConfig& config = SmallModel()->config();
  for (int32_t id : run->ids) {
    CHECK(id != config.image_token_id);
    CHECK(id != config.vision_start_token_id);
  }
}

TEST_CASE("Intake: JSON and protobuf give the same request", "[gateway][request]") {
  if (SmallModel() == nullptr) return triptych::testing::SkipTest("the shipped model is not here");
  const Parsed json = TakeJson(Body(R"(,"temperature":0.5,"top_p":0.25,"top_k":7,"seed":9,
      "max_tokens":11,"stop":["\n\n","END"],"logprobs":true,"top_logprobs":2,"timeout_ms":1500,
      "priority":3)"));
  v1::GenerateRequest request;
  v1::Message* message = request.add_messages();
  message->set_role("user");
  message->add_content()->set_text("Hello");
  v1::SamplingParams* sampling = request.mutable_sampling();
  sampling->set_temperature(0.5);
  sampling->set_top_p(0.25);
  sampling->set_top_k(7);
  sampling->set_seed(9);
  sampling->set_top_logprobs(2);
  request.set_max_tokens(11);
  request.add_stop("\n\n");
  request.add_stop("END");
  request.set_timeout_ms(1500);
  request.set_priority(3);
  const Parsed proto = TakeProto(request);
  REQUIRE(json.ok());
  REQUIRE(proto.ok());
  const ParsedRequest& a = **json;
  const ParsedRequest& b = **proto;
  CHECK(a.submit.prompt_tokens == b.submit.prompt_tokens);
  CHECK(a.submit.max_tokens == 11);
  CHECK(b.submit.max_tokens == 11);
  CHECK(a.submit.priority == b.submit.priority);
  CHECK(a.submit.tenant == b.submit.tenant);
  CHECK(a.stop == b.stop);
  CHECK(a.timeout == b.timeout);
  const auto& p = a.input.sampling;
  const auto& q = b.input.sampling;
  CHECK(std::tuple(p.temperature, p.top_p, p.top_k, p.seed, p.top_logprobs) ==
        std::tuple(q.temperature, q.top_p, q.top_k, q.seed, q.top_logprobs));
  CHECK(std::get<scheduler::TokenRun>(a.input.segments.at(0)).ids ==
        std::get<scheduler::TokenRun>(b.input.segments.at(0)).ids);
}

}  // namespace
}  // namespace triptych::services
