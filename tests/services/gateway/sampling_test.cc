// How tokens are to be drawn: each number has its range, and words become tokens that are
// forbidden.

#include "services/gateway/request/sampling.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/grpc_request.h"
#include "services/gateway/request/openai_request.h"
#include "tests/services/gateway/small_model.h"
#include "tests/support/skip.h"

namespace triptych::services {
namespace {

using testing::SmallModel;

using Set = absl::StatusOr<scheduler::PulledInput>;

Set SetFrom(const ChatRequest& chat) {
  scheduler::PulledInput input;
  const absl::Status status = SetSampling(chat, *SmallModel(), &input);
  if (!status.ok()) return status;
  return input;
}

Set SetJson(const std::string& members) {
  const auto request = ParseOpenAiRequest(
      absl::StrCat(R"({"messages":[{"role":"user","content":"Hello"}],)", members, "}"),
      Endpoint::kChat);
  if (!request.ok()) return request.status();
  return SetFrom(request->prompts[0]);
}

std::string ParamOf(const Set& set) { return set.ok() ? "ok" : ToClientError(set.status()).param; }

bool ModelMissing() {
  if (SmallModel() == nullptr) triptych::testing::SkipTest("the shipped model is not here");
  return SmallModel() == nullptr;
}

TEST_CASE("SetSampling: each number has its range, and is named beyond it", "[gateway][request]") {
  if (ModelMissing()) return;
  struct Row {
    std::string name;
    std::vector<std::string> good, bad;
  };
  const Row rows[] = {
      {"min_p", {"0", "0.05", "1"}, {"-0.01", "1.01"}},
      {"repetition_penalty", {"0.01", "1", "1.3", "100"}, {"0", "-1", "101", "1e-30"}},
      {"presence_penalty", {"-2", "0.5", "2"}, {"-2.1", "2.1", "1e300"}},
      {"frequency_penalty", {"-2", "0.5", "2"}, {"-2.1", "2.1"}},
      {"logit_bias",
       {"{}", "{\"5\":-100}", "{\"0\":100,\"1\":0.5}"},
       {"{\"5\":101}", "{\"5\":-101}", "{\"-1\":1}", "{\"99999999\":1}", "{\"x\":1}",
        "{\"5\":\"1\"}", "{\"5\":1,\"05\":1}", "{\"5\":null}"}},
      {"bad_words", {"[]", "[\"cat\",\" dog\"]"}, {"[\"\"]"}},
  };
  for (const Row& row : rows) {
    for (const std::string& value : row.good) {
      INFO(row.name << " " << value);
      CHECK(ParamOf(SetJson(absl::StrCat("\"", row.name, "\":", value))) == "ok");
    }
    for (const std::string& value : row.bad) {
      INFO(row.name << " " << value);
      CHECK(ParamOf(SetJson(absl::StrCat("\"", row.name, "\":", value))).find(row.name) == 0);
    }
  }
  ChatRequest many;
  for (int64_t i = 0; i < 896; ++i) many.logit_bias.emplace_back(i, 1);
  many.bad_words.assign(64, "word");
  CHECK(ParamOf(SetFrom(many)) == "ok");
  many.bad_words.emplace_back("word");
  CHECK(ParamOf(SetFrom(many)) == "bad_words");
  many.logit_bias.emplace_back(896, 1);
  CHECK(ParamOf(SetFrom(many)) == "logit_bias");
  CHECK(ParamOf(SetFrom({.min_p = std::nan("")})) == "min_p");
  CHECK(ParamOf(SetFrom({.bad_words = {std::string(257, 'a')}})) == "bad_words");
}

TEST_CASE("SetSampling: biases come once a token, and a bad word outweighs them",
          "[gateway][request]") {
  if (ModelMissing()) return;
  const std::vector<int32_t> a = SmallModel()->tokenizer().Encode("a");
  const std::vector<int32_t> a_within = SmallModel()->tokenizer().Encode(" a");
  REQUIRE((a.size() == 1 && a_within.size() == 1));
  const Set set = SetFrom({.logit_bias = {{a[0], 5}, {3, -2}}, .bad_words = {"a"}});
  REQUIRE(set.ok());
  std::map<int32_t, float> biases;
  for (const scheduler::TokenBias& bias : set->sampling.biases) biases[bias.token] = bias.bias;
  constexpr float kForbidden = -std::numeric_limits<float>::infinity();
  CHECK(biases == std::map<int32_t, float>{{3, -2}, {a[0], kForbidden}, {a_within[0], kForbidden}});
  CHECK(set->bad_words.empty());
}

TEST_CASE("SetSampling: a bad word of several tokens is forbidden as a run", "[gateway][request]") {
  if (ModelMissing()) return;
  const std::string word = "qzxjvqk";
  const Set set = SetFrom({.bad_words = {word}});
  REQUIRE(set.ok());
  CHECK(set->sampling.biases.empty());
  REQUIRE(set->bad_words.size() == 2);
  CHECK(set->bad_words[0].ids == SmallModel()->tokenizer().Encode(word));
  CHECK(set->bad_words[1].ids == SmallModel()->tokenizer().Encode(" " + word));
}

TEST_CASE("SetSampling: JSON and protobuf ask for the same draw", "[gateway][request]") {
  if (ModelMissing()) return;
  const Set json = SetJson(R"("min_p":0.25,"repetition_penalty":1.5,"presence_penalty":0.5,
      "frequency_penalty":-0.5,"logit_bias":{"7":-1.5,"3":2},"bad_words":["cat"])");
  v1::GenerateRequest request;
  v1::SamplingParams* sampling = request.mutable_sampling();
  sampling->set_min_p(0.25);
  sampling->set_repetition_penalty(1.5);
  sampling->set_presence_penalty(0.5);
  sampling->set_frequency_penalty(-0.5);
  for (const auto& [token, bias] : {std::pair(7, -1.5f), std::pair(3, 2.0f)}) {
    v1::TokenBias* added = sampling->add_biases();
    added->set_token(token);
    added->set_bias(bias);
  }
  request.add_bad_words("cat");
  const absl::StatusOr<ChatRequest> chat = FromProto(std::move(request));
  REQUIRE(chat.ok());
  const Set proto = SetFrom(*chat);
  REQUIRE(json.ok());
  REQUIRE(proto.ok());
  const auto numbers = [](const scheduler::SamplingParams& p) {
    return std::tuple(p.min_p, p.repetition_penalty, p.presence_penalty, p.frequency_penalty,
                      p.biases);
  };
  CHECK(numbers(json->sampling) == numbers(proto->sampling));
  CHECK(json->sampling.min_p == 0.25f);
  CHECK(json->sampling.repetition_penalty == 1.5f);
  CHECK(json->sampling.presence_penalty == 0.5f);
  CHECK(json->sampling.frequency_penalty == -0.5f);
}

}  // namespace
}  // namespace triptych::services
