// Server-sent events: framing, escapes, one error at the end of a stream and no [DONE] after it;
// text that is cut at stop strings and never inside a character.

#include "services/gateway/http/answer_json.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "services/gateway/core/answer.h"
#include "services/gateway/core/answer_mailbox.h"
#include "services/gateway/request/errors.h"
#include "tests/models/tokenizer/small_tokenizer.h"

namespace triptych::services {
namespace {

using nlohmann::json;
using scheduler::Finish;
using scheduler::SampledToken;

const models::Tokenizer& SmallTokenizer() {
  static const std::unique_ptr<models::Tokenizer> tokenizer =
      models::Tokenizer::Parse(testing::SmallTokenizerJson().dump(), testing::kSmallVocabulary)
          .value();
  return *tokenizer;
}

// Ids of the small vocabulary's bytes.
std::vector<SampledToken> Bytes(absl::string_view text) {
  std::vector<SampledToken> tokens;
  for (char c : text) tokens.push_back({.token = static_cast<unsigned char>(c)});
  return tokens;
}

// The payloads of `data:` events; every event ends with one empty line.
std::vector<std::string> Events(const std::string& stream) {
  std::vector<std::string> events;
  size_t at = 0;
  while (at < stream.size()) {
    REQUIRE(stream.compare(at, 6, "data: ") == 0);
    const size_t end = stream.find("\n\n", at);
    REQUIRE(end != std::string::npos);
    events.push_back(stream.substr(at + 6, end - at - 6));
    at = end + 2;
  }
  return events;
}

TEST_CASE("AppendJsonString: every byte below 0x80 survives a strict parser", "[gateway][json]") {
  std::string text = "\xc3\xa9";
  for (int c = 0; c < 0x80; ++c) text += static_cast<char>(c);
  std::string out;
  AppendJsonString(text, &out);
  CHECK(json::parse(out).get<std::string>() == text);
}

TEST_CASE("EventWriter: role, deltas, finish, usage, [DONE]", "[gateway][sse]") {
  EventWriter writer(SmallTokenizer(), {.id = "r\"1", .model = "m", .include_usage = true});
  const Usage usage{.prompt_tokens = 5, .picture_tokens = 2, .output_tokens = 3};
  std::string stream;
  writer.AppendOpening(1, &stream);
  writer.AppendPart(0, {.text = "a\n"}, {}, &stream);
  writer.AppendPart(0, {.text = ""}, {}, &stream);
  writer.AppendPart(0, {.text = "b"}, {}, &stream);
  writer.AppendFinish(0, Finish::kLength, usage, &stream);
  writer.AppendDone(usage, &stream);
  const std::vector<std::string> events = Events(stream);
  REQUIRE(events.size() == 6);
  const json first = json::parse(events[0]);
  CHECK(first["id"] == "r\"1");
  CHECK(first["object"] == "chat.completion.chunk");
  CHECK(first["choices"][0]["delta"] == json({{"role", "assistant"}, {"content", ""}}));
  CHECK(first["usage"].is_null());
  CHECK(json::parse(events[1])["choices"][0]["delta"] == json({{"content", "a\n"}}));
  CHECK(json::parse(events[2])["choices"][0]["delta"] == json({{"content", "b"}}));
  CHECK(json::parse(events[3])["choices"][0]["finish_reason"] == "length");
  const json last = json::parse(events[4]);
  CHECK(last["choices"].empty());
  CHECK(last["usage"]["prompt_tokens"] == 5);
  CHECK(last["usage"]["completion_tokens"] == 3);
  CHECK(last["usage"]["prompt_tokens_details"]["image_tokens"] == 2);
  CHECK(last["usage"]["prompt_tokens_details"]["text_tokens"] == 3);
  CHECK(events[5] == "[DONE]");
}

TEST_CASE("EventWriter: usage with every event where it is asked for", "[gateway][sse]") {
  EventWriter writer(SmallTokenizer(), {.include_usage = true, .continuous_usage = true});
  std::string stream;
  writer.AppendPart(0, {.text = "a"}, {.prompt_tokens = 5, .output_tokens = 1}, &stream);
  CHECK(json::parse(Events(stream).at(0))["usage"]["total_tokens"] == 6);
}

TEST_CASE("EventWriter: an error inside a stream is its last event", "[gateway][sse]") {
  EventWriter writer(SmallTokenizer(), {.id = "c1", .request_id = "r1", .model = "m"});
  std::string stream;
  writer.AppendPart(0, {.text = "a"}, {}, &stream);
  writer.AppendError(absl::InternalError("peer at 10.0.0.1 died"), &stream);
  const std::vector<std::string> events = Events(stream);
  REQUIRE(events.size() == 2);
  const json error = json::parse(events[1])["error"];
  CHECK(error["code"] == "internal");
  CHECK(error["type"] == "server_error");
  CHECK(error["request_id"] == "r1");
  CHECK(error["param"].is_null());
  CHECK(stream.find("10.0.0.1") == std::string::npos);
  CHECK(stream.find("[DONE]") == std::string::npos);
}

TEST_CASE("EventWriter: text completions have texts instead of deltas", "[gateway][sse]") {
  EventWriter writer(SmallTokenizer(), {.endpoint = Endpoint::kCompletions, .logprobs = true});
  std::string stream;
  writer.AppendOpening(2, &stream);
  CHECK(stream.empty());
  writer.AppendPart(1, {.text = "ab", .tokens = Bytes("ab")}, {}, &stream);
  writer.AppendPart(1, {.text = "c", .tokens = Bytes("c")}, {}, &stream);
  const std::vector<std::string> events = Events(stream);
  const json first = json::parse(events.at(0));
  CHECK(first["object"] == "text_completion");
  CHECK(first["choices"][0]["index"] == 1);
  CHECK(first["choices"][0]["text"] == "ab");
  CHECK(first["choices"][0]["logprobs"]["tokens"] == json({"a", "b"}));
  CHECK(first["choices"][0]["logprobs"]["text_offset"] == json({0, 1}));
  CHECK(json::parse(events.at(1))["choices"][0]["logprobs"]["text_offset"] == json({2}));
}

TEST_CASE("CompletionJson: log probabilities as OpenAI writes them", "[gateway][json]") {
  AnswerPart part{.text = "a", .tokens = Bytes("a")};
  part.tokens[0].logprob = -0.5f;
  part.tokens[0].top = {{.token = 'a', .logprob = -0.5f},
                        {.token = 'b', .logprob = -std::numeric_limits<float>::infinity()}};
  const json answer = json::parse(CompletionJson(
      SmallTokenizer(), {.id = "r", .model = "m", .logprobs = true},
      {{.part = part, .finish = Finish::kStop}}, {.prompt_tokens = 1, .output_tokens = 1}));
  const json entry = answer["choices"][0]["logprobs"]["content"][0];
  CHECK(entry["token"] == "a");
  CHECK(entry["logprob"] == -0.5);
  CHECK(entry["bytes"] == json({97}));
  CHECK(entry["top_logprobs"][1]["logprob"] == -9999);
  CHECK(answer["choices"][0]["message"]["content"] == "a");
  CHECK(answer["usage"]["total_tokens"] == 2);
}

TEST_CASE("Answer: a stop string across tokens ends it and is swallowed", "[gateway][answer]") {
  Answer answer(SmallTokenizer(), {.stop = {"END"}});
  CHECK(answer.Push(Bytes("abE"), Finish::kNone).text == "ab");
  CHECK(answer.finish() == Finish::kNone);
  const AnswerPart part = answer.Push(Bytes("NDxyz"), Finish::kNone);
  CHECK(part.text.empty());
  CHECK(part.tokens.size() == 2);
  CHECK(answer.finish() == Finish::kStop);
  CHECK(answer.output_tokens() == 5);
}

TEST_CASE("Answer: what was held back comes with the last token", "[gateway][answer]") {
  Answer answer(SmallTokenizer(), {.stop = {"END"}});
  CHECK(answer.Push(Bytes("EN"), Finish::kNone).text.empty());
  CHECK(answer.Push(Bytes("\xc3"), Finish::kLength).text == "EN\xef\xbf\xbd");
  CHECK(answer.finish() == Finish::kLength);
}

TEST_CASE("Answer: a stop string that is wanted stays", "[gateway][answer]") {
  Answer answer(SmallTokenizer(), {.stop = {"END"}, .include_stop = true});
  CHECK(answer.Push(Bytes("abENDx"), Finish::kNone).text == "abEND");
  CHECK(answer.finish() == Finish::kStop);
}

TEST_CASE("Answer: a stop token has no text, unless it is wanted", "[gateway][answer]") {
  Answer swallowing(SmallTokenizer(), {});
  AnswerPart part = swallowing.Push(Bytes("ab."), Finish::kStop);
  CHECK(part.text == "ab");
  CHECK(part.tokens.size() == 3);
  CHECK(swallowing.output_tokens() == 3);
  Answer keeping(SmallTokenizer(), {.include_stop = true});
  CHECK(keeping.Push(Bytes("ab."), Finish::kStop).text == "ab.");
  Answer cut(SmallTokenizer(), {});
  CHECK(cut.Push(Bytes("ab."), Finish::kLength).text == "ab.");
}

TEST_CASE("Answer: no stop string is found before the least number of tokens",
          "[gateway][answer]") {
  Answer answer(SmallTokenizer(), {.stop = {"ab"}, .min_tokens = 3});
  // The first is too early, and the second begins too early.
  CHECK(answer.Push(Bytes("abab"), Finish::kNone).text == "abab");
  CHECK(answer.finish() == Finish::kNone);
  CHECK(answer.Push(Bytes("cab"), Finish::kNone).text == "c");
  CHECK(answer.finish() == Finish::kStop);
}

TEST_CASE("Answer: control tokens are written where they are wanted", "[gateway][answer]") {
  const auto control = SmallTokenizer().ControlId("<|im_end|>");
  REQUIRE(control.has_value());
  Answer silent(SmallTokenizer(), {});
  CHECK(silent.Push({{.token = *control}}, Finish::kNone).text.empty());
  Answer written(SmallTokenizer(), {.skip_special_tokens = false});
  CHECK(written.Push({{.token = *control}}, Finish::kNone).text == "<|im_end|>");
}

TEST_CASE("AnswerMailbox: wakes once for mail that nobody took, and keeps it", "[gateway]") {
  int wakes = 0;
  AnswerMailbox each(AnswerMailbox::Wake::kEachPart, [&] { ++wakes; });
  each.OnPart({.text = "a"});
  each.OnPart({.text = "b", .tokens = Bytes("b")});
  CHECK(wakes == 1);
  const AnswerMailbox::Mail two = each.Take();
  CHECK(two.parts.size() == 2);
  CHECK(two.Joined().text == "ab");
  CHECK(two.Joined().tokens.size() == 1);
  CHECK(each.Take().empty());

  wakes = 0;
  AnswerMailbox at_end(AnswerMailbox::Wake::kAtEnd, [&] { ++wakes; });
  at_end.OnPart({.text = "a"});
  CHECK(wakes == 0);
  at_end.OnEnd({});
  CHECK(wakes == 1);
  CHECK(at_end.Take().end.has_value());
}

TEST_CASE("AnswerMailbox: a slow reader's parts are joined, in order", "[gateway]") {
  AnswerMailbox mailbox(AnswerMailbox::Wake::kEachPart, [] {});
  std::string all;
  for (char c = 'a'; c <= 'z'; ++c) {
    all += c;
    mailbox.OnPart({.text = std::string(1, c), .tokens = Bytes(std::string(1, c))});
  }
  const AnswerMailbox::Mail mail = mailbox.Take();
  CHECK(mail.parts.size() == 16);
  CHECK(mail.parts.front().text == "a");
  CHECK(mail.Joined().text == all);
  CHECK(mail.Joined().tokens.size() == 26);
}

}  // namespace
}  // namespace triptych::services
