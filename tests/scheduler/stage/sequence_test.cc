// What is defended: which tokens a row may draw. Ends that come too early and the last tokens of
// bad words are forbidden, as often as the answer comes to them, and a sequence that is rebuilt
// from what was sent asks for the same draws.

#include "scheduler/stage/sequence.h"

#include <catch2/catch.hpp>
#include <limits>
#include <map>

namespace triptych::scheduler {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

SequenceLimits Limits() { return {.max_tokens = 20, .sample_limit = 20, .max_position = 100}; }

// Three tokens of text; what is not known of `answer` is still to be computed.
Sequence Make(SequenceLimits limits, std::vector<int32_t> answer = {}) {
  PromptLayout layout{.token_ids = {5, 6, 5}, .runs = {PositionRun{}}, .next_position = 3};
  return Sequence(std::move(layout), std::move(answer), 0, std::move(limits));
}

// The draw that follows what is known.
SampleSpec NextDraw(Sequence* sequence) {
  const PlanRow row = sequence->TakeRow(StepId(1), 0, sequence->available());
  REQUIRE(row.sample.has_value());
  return *row.sample;
}

std::map<int32_t, float> BiasesOf(const SampleSpec& draw) {
  std::map<int32_t, float> biases;
  for (const TokenBias& bias : draw.params.biases) {
    REQUIRE(biases.emplace(bias.token, bias.bias).second);
  }
  return biases;
}

using Biases = std::map<int32_t, float>;

TEST_CASE("Sequence: stop tokens are forbidden among the fewest tokens of an answer",
          "[scheduler][stage]") {
  SequenceLimits limits = Limits();
  limits.min_tokens = 2;
  limits.stop_token_ids = {9, 8};
  limits.sampling.biases = {{.token = 7, .bias = 1.5f}, {.token = 8, .bias = 100}};
  for (const std::vector<int32_t>& answer : {std::vector<int32_t>{}, {1}}) {
    Sequence sequence = Make(limits, answer);
    CHECK(BiasesOf(NextDraw(&sequence)) == Biases{{7, 1.5f}, {8, kForbidden}, {9, kForbidden}});
  }
  Sequence later = Make(limits, {1, 2});
  CHECK(BiasesOf(NextDraw(&later)) == Biases{{7, 1.5f}, {8, 100}});
}

TEST_CASE("Sequence: a bad word's last token is forbidden where the answer ends in its others",
          "[scheduler][stage]") {
  SequenceLimits limits = Limits();
  limits.bad_words = {{{1, 2}}, {{3, 1, 4}}};
  const std::pair<std::vector<int32_t>, Biases> rows[] = {
      {{}, {}},        {{1}, {{2, kForbidden}}},
      {{2}, {}},       {{3, 1}, {{2, kForbidden}, {4, kForbidden}}},
      {{3, 1, 5}, {}},
  };
  for (const auto& [answer, biases] : rows) {
    Sequence sequence = Make(limits, answer);
    CHECK(BiasesOf(NextDraw(&sequence)) == biases);
  }
}

TEST_CASE("Sequence: with bad words a row waits for the token before it", "[scheduler][stage]") {
  SequenceLimits limits = Limits();
  Sequence ahead = Make(limits);
  NextDraw(&ahead);
  CHECK(ahead.available() == 1);
  limits.bad_words = {{{1, 2}}};
  Sequence waiting = Make(limits);
  NextDraw(&waiting);
  CHECK(waiting.available() == 0);
  REQUIRE(waiting.FinishRow({{.token = 1}}));
  CHECK(waiting.available() == 1);
  CHECK(BiasesOf(NextDraw(&waiting)) == Biases{{2, kForbidden}});
}

TEST_CASE("Sequence: rebuilt from what was sent, it asks for the same draw", "[scheduler][stage]") {
  SequenceLimits limits = Limits();
  limits.sampling.frequency_penalty = 1;
  Sequence whole = Make(limits);
  for (const int32_t token : {6, 1, 6, 4}) {
    NextDraw(&whole);
    REQUIRE(whole.FinishRow({{.token = token}}));
  }
  Sequence again = Make(limits, {6, 1, 6, 4});
  const SampleSpec draw = NextDraw(&whole);
  const SampleSpec redone = NextDraw(&again);
  CHECK(draw.index == 4);
  CHECK(redone.index == 4);
  CHECK(draw.uses == redone.uses);
  CHECK(draw.uses == std::vector<TokenUse>{{.token = 1, .in_answer = 1},
                                           {.token = 4, .in_answer = 1},
                                           {.token = 5, .in_prompt = 1},
                                           {.token = 6, .in_answer = 2, .in_prompt = 1}});
}

}  // namespace
}  // namespace triptych::scheduler
