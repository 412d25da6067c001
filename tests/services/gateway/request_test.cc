// Both front ends read the same request from JSON and from protobuf, and one table of refusals
// holds for both. Pictures come from data: URLs alone.

#include <catch2/catch.hpp>

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
  absl::StatusOr<OpenAiRequest> request = ParseOpenAiRequest(body, Endpoint::kChat);
  if (!request.ok()) return request.status();
  return Take(std::move(request->prompts[0]));
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

TEST_CASE("ParseImageUrl: anything but base64 in a data: URL is refused, with the reason",
          "[gateway][media]") {
  const std::pair<const char*, const char*> rows[] = {
      {"http://example.com/a.png", "not fetched"},
      {"https://example.com/a.png", "not fetched"},
      {"file:///etc/passwd", "not fetched"},
      {"", "not fetched"},
      {"data:", "without a comma"},
      {"data:image/png,AAAA", "in base64"},
      {"data:image/png;base64;x=y,AAAA", "in base64"},
      {"data:image/png;base64,A", "does not belong"},
      {"data:image/png;base64,A===", "does not belong"},
      {"data:image/png;base64,Zg==Zg==", "does not belong"},
      {"data:image/png;base64,Zm-_", "does not belong"},
      {"data:image/png;base64,Zm9v%0A", "does not belong"},
      {"data:image/png;base64,Zm9v\xff\xff\xff\xff", "does not belong"},
  };
  for (const auto& [url, reason] : rows) {
    INFO(url);
    const auto media = ParseImageUrl(url);
    REQUIRE_FALSE(media.ok());
    const ClientError error = ToClientError(media.status());
    CHECK(error.code == std::string("unsupported_image_source"));
    CHECK(error.message.find(reason) != std::string::npos);
  }
}

TEST_CASE("ParseImageUrl: the bytes decide, whatever the URL calls them and however it is broken",
          "[gateway][media]") {
  for (const char* url :
       {"data:image/png;base64,Zm9v", "DATA:image/png;BASE64,Zm9v", "data:image/PNG;base64,Zm9v",
        "data:;base64,Zm9v", "data:image/*;base64,Zm9v",
        "data:application/octet-stream;base64,Zm9v", "data:image/png;charset=utf-8;base64,Zm9v",
        "data:image/png;name=a b.png; base64 ,Zm9v", "data:image/x-png;base64, Zm9v",
        "data:image/png;base64,Zm9v\n", " data:image/png;base64,Zm9v",
        "data:image/png;base64,Zm\r\n9v", "data:image/svg+xml;base64,Z m 9 v"}) {
    INFO(url);
    const auto media = ParseImageUrl(url);
    REQUIRE(media.ok());
    CHECK(media->frames == std::vector<std::string>{"foo"});
  }
  CHECK(ParseImageUrl("data:;base64,Zm8")->frames[0] == "fo");
  CHECK(ParseImageUrl("data:;base64,Zg")->frames[0] == "f");
}

TEST_CASE("ParseVideoUrl: frames in order, and no files of videos", "[gateway][media]") {
  const auto video = ParseVideoUrl("data:video/JPEG;base64,Zm9v,Zg==", 4);
  REQUIRE(video.ok());
  CHECK(video->frames == std::vector<std::string>{"foo", "f"});
  CHECK(video->fps == 4);
  const std::pair<const char*, const char*> rows[] = {
      {"data:video/mp4;base64,Zm9v", "files of videos"},
      {"data:image/jpeg;base64,Zm9v", "files of videos"},
      {"data:video/jpeg;base64,Zm9v,", "frame 1 is empty"},
      {"data:video/jpeg;base64,Zm9v,,Zm9v", "frame 1 is empty"},
      {"data:video/jpeg;base64,Zm9v,Z", "does not belong"},
  };
  for (const auto& [url, reason] : rows) {
    INFO(url);
    const auto refused = ParseVideoUrl(url, 4);
    REQUIRE_FALSE(refused.ok());
    CHECK(ToClientError(refused.status()).message.find(reason) != std::string::npos);
  }
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
  CHECK(ToClientError(Refuse("invalid_request", "n is small")).message == "n is small");
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
                              R"(,"presence_penalty":"1")",
                              R"(,"logit_bias":[5])",
                              R"(,"bad_words":"cat")",
                              R"(,"guided_regex":"a")",
                              R"(,"response_format":"text")",
                              R"(,"response_format":{"type":"json_object"})"}) {
    INFO(members);
    const auto request = ParseOpenAiRequest(Body(members), Endpoint::kChat);
    REQUIRE_FALSE(request.ok());
    CHECK(ToClientError(request.status()).code == std::string("invalid_request"));
  }
  for (const char* body :
       {"[]", "3", "{}", R"({"messages":3})", R"({"messages":[3]})",
        R"({"messages":[{"role":"user"}]})", R"({"messages":[{"role":"user","content":[3]}]})",
        R"({"messages":[{"role":"user","content":[{"type":"audio"}]}]})"}) {
    INFO(body);
    CHECK_FALSE(ParseOpenAiRequest(body, Endpoint::kChat).ok());
  }
  CHECK(ParseOpenAiRequest(Body(R"(,"tools":[],"user":"me","unknown":{"a":[1]})"), Endpoint::kChat)
            .ok());
  CHECK(ParseOpenAiRequest(Body(R"(,"response_format":{"type":"text"},"repetition_penalty":1)"),
                           Endpoint::kChat)
            .ok());
}

TEST_CASE("ParseOpenAiRequest: a thousand pictures are refused unread", "[gateway][request]") {
  std::string parts;
  for (int i = 0; i < 1000; ++i) {
    parts += R"({"type":"image_url","image_url":{"url":"not even a URL"}},)";
  }
  parts.pop_back();
  const auto request = ParseOpenAiRequest(
      R"({"messages":[{"role":"user","content":[)" + parts + "]}]}", Endpoint::kChat);
  REQUIRE_FALSE(request.ok());
  CHECK(ToClientError(request.status()).code == std::string("too_many_images"));
}

TEST_CASE("Intake: one table of limits", "[gateway][request]") {
  if (SmallModel() == nullptr) return triptych::testing::SkipTest("the shipped model is not here");
  const std::pair<const char*, const char*> rows[] = {
      {"", "ok"},
      {R"(,"max_tokens":1)", "ok"},
      {R"(,"max_tokens":0)", "invalid_request"},
      {R"(,"max_tokens":-1)", "invalid_request"},
      {R"(,"max_tokens":9223372036854775807)", "ok"},
      {R"(,"n":8)", "ok"},
      {R"(,"n":9)", "invalid_request"},
      {R"(,"n":1000000)", "invalid_request"},
      {R"(,"min_tokens":-1)", "invalid_request"},
      {R"(,"min_tokens":9,"max_tokens":8)", "invalid_request"},
      {R"(,"stop_token_ids":[-1])", "invalid_request"},
      {R"(,"stop_token_ids":[99999999])", "invalid_request"},
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
      "priority":3,"min_tokens":4,"ignore_eos":true,"stop_token_ids":[5],
      "include_stop_str_in_output":true,"skip_special_tokens":false)"));
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
  request.set_min_tokens(4);
  request.set_ignore_eos(true);
  request.add_stop_token_ids(5);
  request.set_include_stop(true);
  request.set_keep_special_tokens(true);
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
  CHECK(a.answer.stop == b.answer.stop);
  CHECK(a.answer.include_stop == b.answer.include_stop);
  CHECK(a.answer.skip_special_tokens == b.answer.skip_special_tokens);
  CHECK(a.input.min_tokens == b.input.min_tokens);
  CHECK(a.input.stop_token_ids == b.input.stop_token_ids);
  CHECK(a.timeout == b.timeout);
  const auto& p = a.input.sampling;
  const auto& q = b.input.sampling;
  CHECK(std::tuple(p.temperature, p.top_p, p.top_k, p.seed, p.top_logprobs) ==
        std::tuple(q.temperature, q.top_p, q.top_k, q.seed, q.top_logprobs));
  CHECK(std::get<scheduler::TokenRun>(a.input.segments.at(0)).ids ==
        std::get<scheduler::TokenRun>(b.input.segments.at(0)).ids);
}

TEST_CASE("ToClientError: the member that is wrong is named from the outside in",
          "[gateway][errors]") {
  const absl::Status refusal = At("messages[1]", At("content[0]", Refuse("image_malformed")));
  CHECK(ToClientError(refusal).param == "messages[1].content[0]");
  CHECK(ToClientError(refusal).code == std::string("image_malformed"));
  CHECK(ToClientError(Refuse("image_malformed")).param.empty());
}

// What a refusal of a body says: member, then sentence.
std::pair<std::string, std::string> Said(const std::string& body) {
  const Parsed parsed = TakeJson(body);
  if (parsed.ok()) return {"", "ok"};
  const ClientError error = ToClientError(parsed.status());
  return {error.param, error.message};
}

TEST_CASE("ParseOpenAiRequest: a refusal names the member, what came and what is wanted",
          "[gateway][request]") {
  if (SmallModel() == nullptr) return triptych::testing::SkipTest("the shipped model is not here");
  const std::string picture = R"({"type":"image_url","image_url":{"url":"data:;base64,Zm9v"}})";
  const std::tuple<std::string, const char*, const char*> rows[] = {
      {Body(R"(,"temperature":"1")"), "temperature", "temperature is a number, not a string"},
      {Body(R"(,"stop":["a",1])"), "stop[1]", "stop[1] is a string, not an integer"},
      {R"({"messages":[{"role":"user","content":"a"},{"role":"user","content":["b",)" + picture +
           "]}]}",
       "messages[1].content[1]", "a picture is not JPEG, PNG, WebP, GIF or BMP"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":"/a.png"}]}]})",
       "messages[0].content[0].image_url", "pictures are not fetched"},
      {R"({"messages":[{"role":"user","content":[{"type":"input_audio"}]}]})",
       "messages[0].content[0].type", "audio is not offered"},
      {R"({"messages":[{"role":"tool","tool_call_id":"1","content":"4"}]})", "messages[0].role",
       "tools are not offered"},
      {R"({"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}]})",
       "messages[0].tool_calls", "tools are not offered"},
      {R"({"messages":[{"role":"user","content":null}]})", "messages[0].content", "missing"},
      {R"({"messages":[{"content":"a"}]})", "messages[0].role", "missing"},
      {R"({"messages":[{"role":"wizard","content":"a"}]})", "messages[0].role", "a role is"},
      {Body(R"(,"tools":[{"type":"function"}])"), "tools", "tools is not offered"},
      {Body(R"(,"model":"other")"), "model", "no such model"},
      {R"({"messages":[],"messages":[]})", "", "stands twice"},
      {R"({"messages":[)", "", "at byte"},
  };
  for (const auto& [body, member, sentence] : rows) {
    INFO(body);
    const auto [said_member, said] = Said(body);
    CHECK(said_member == member);
    CHECK(said.find(sentence) != std::string::npos);
  }
}

TEST_CASE("ParseOpenAiRequest: what an SDK's own answer looks like may be sent back",
          "[gateway][request]") {
  const auto request = ParseOpenAiRequest(
      R"({"messages":[{"role":"user","content":"Hello"},)"
      R"({"role":"assistant","content":null,"refusal":"No.","tool_calls":[],"annotations":[],)"
      R"("audio":null,"function_call":null},{"role":"assistant"},)"
      R"({"role":"assistant","content":[]},{"role":"user","name":"me","content":["And now?"]}]})",
      Endpoint::kChat);
  REQUIRE(request.ok());
  const std::vector<ChatMessage>& messages = request->prompts[0].messages;
  REQUIRE(messages.size() == 5);
  CHECK(std::get<std::string>(messages[1].parts.at(0)) == "No.");
  CHECK(messages[2].parts.empty());
  CHECK(messages[3].parts.empty());
  CHECK(std::get<std::string>(messages[4].parts.at(0)) == "And now?");
}

TEST_CASE("Intake: an answer is cut to what the context leaves, or the server's own limit",
          "[gateway][request]") {
  if (SmallModel() == nullptr) return triptych::testing::SkipTest("the shipped model is not here");
  const int context = SmallModel()->context_tokens();
  for (const char* members : {"", R"(,"max_tokens":2147483648)"}) {
    const Parsed parsed = TakeJson(Body(members));
    REQUIRE(parsed.ok());
    CHECK((*parsed)->submit.prompt_tokens + (*parsed)->submit.max_tokens == context);
  }
  const Intake limited(*SmallModel(), {.max_output_tokens = 7});
  auto request = ParseOpenAiRequest(Body(R"(,"max_tokens":100,"min_tokens":50)"), Endpoint::kChat);
  REQUIRE(request.ok());
  const Parsed cut = limited.Parse(std::move(request->prompts[0]), Budget().Open());
  REQUIRE(cut.ok());
  CHECK((*cut)->input.max_tokens == 7);
  CHECK((*cut)->input.min_tokens == 7);
  CHECK_FALSE((*cut)->submit.open_ended);
  CHECK((*TakeJson(Body("")))->submit.open_ended);
}

TEST_CASE("Intake: what ends an answer is the client's choice", "[gateway][request]") {
  if (SmallModel() == nullptr) return triptych::testing::SkipTest("the shipped model is not here");
  const std::vector<int32_t>& ends = SmallModel()->config().eos_token_ids;
  CHECK((*TakeJson(Body("")))->input.stop_token_ids == ends);
  CHECK((*TakeJson(Body(R"(,"ignore_eos":true)")))->input.stop_token_ids.empty());
  CHECK((*TakeJson(Body(R"(,"ignore_eos":true,"stop_token_ids":[5,6])")))->input.stop_token_ids ==
        std::vector<int32_t>{5, 6});
  const Parsed parsed = TakeJson(
      Body(R"(,"min_tokens":3,"include_stop_str_in_output":true,"skip_special_tokens":false)"));
  REQUIRE(parsed.ok());
  CHECK((*parsed)->input.min_tokens == 3);
  CHECK((*parsed)->answer.min_tokens == 3);
  CHECK((*parsed)->answer.include_stop);
  CHECK_FALSE((*parsed)->answer.skip_special_tokens);
}

TEST_CASE("ParseOpenAiRequest: completions take texts and tokens, several at once",
          "[gateway][request]") {
  if (SmallModel() == nullptr) return triptych::testing::SkipTest("the shipped model is not here");
  const auto parse = [](const std::string& body) {
    return ParseOpenAiRequest(body, Endpoint::kCompletions);
  };
  const std::pair<const char*, size_t> good[] = {
      {R"({"prompt":"Hello"})", 1},
      {R"({"prompt":["Hello","World"],"max_tokens":3})", 2},
      {R"({"prompt":[1,2,3]})", 1},
      {R"({"prompt":[[1,2],[3]],"echo":false,"best_of":1,"suffix":null})", 2},
  };
  for (const auto& [body, prompts] : good) {
    INFO(body);
    auto request = parse(body);
    REQUIRE(request.ok());
    REQUIRE(request->prompts.size() == prompts);
    CHECK(Take(std::move(request->prompts[0])).ok());
  }
  CHECK(parse(R"({"prompt":"Hello"})")->prompts[0].max_tokens == 16);
  for (const char* body :
       {"{}", R"({"prompt":[]})", R"({"prompt":3})", R"({"prompt":["a",3]})",
        R"({"prompt":[1,"a"]})", R"({"prompt":"a","echo":true})", R"({"prompt":"a","suffix":"b"})",
        R"({"prompt":["1","2","3","4","5","6","7","8","9"]})"}) {
    INFO(body);
    CHECK_FALSE(parse(body).ok());
  }
  for (const char* body : {R"({"prompt":""})", R"({"prompt":[-1]})", R"({"prompt":[99999999]})"}) {
    INFO(body);
    auto request = parse(body);
    REQUIRE(request.ok());
    CHECK(CodeOf(Take(std::move(request->prompts[0]))) == "invalid_request");
  }
}

}  // namespace
}  // namespace triptych::services
