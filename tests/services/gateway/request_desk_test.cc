// The gateway's core against a scripted scheduler and worker, without threads or network: one
// terminal event for each accepted request, text in order, ids unique, everything given back.

#include "services/gateway/core/request_desk.h"

#include <catch2/catch.hpp>

#include "services/gateway/request/errors.h"
#include "tests/models/tokenizer/small_tokenizer.h"

namespace triptych::services {
namespace {

using scheduler::Finish;
using scheduler::RequestId;
using std::chrono::seconds;

// Keeps what a client would have got.
struct Client final : ResponseSink {
  void OnPart(AnswerPart part) override {
    CHECK(ends == 0);
    text += part.text;
  }
  void OnEnd(const AnswerEnd& what) override {
    ++ends;
    end = what;
  }
  std::string text;
  int ends = 0;
  AnswerEnd end;
};

class Script {
 public:
  Script()
      : tokenizer_(models::Tokenizer::Parse(testing::SmallTokenizerJson().dump(),
                                            testing::kSmallVocabulary)
                       .value()),
        metrics_(&registry_),
        desk_(*tokenizer_, "model", {.max_requests = 4}, &metrics_, &log_) {
    desk_.Live(clock_.Now());
    desk_.OnSchedulerConnected(clock_.Now());
  }

  RequestId Submit(Client* client, const std::string& name, std::vector<std::string> stop = {}) {
    auto parsed = std::make_unique<ParsedRequest>();
    parsed->client_id = name;
    parsed->submit.prompt_tokens = 3;
    parsed->submit.max_tokens = parsed->input.max_tokens = 100;
    parsed->input.segments = {scheduler::TokenRun{{1, 2, 3}}};
    parsed->answer.stop = std::move(stop);
    parsed->timeout = seconds(10);
    auto payload = std::make_unique<Payload>();
    payload->reservation = budget_.Open();
    CHECK(payload->reservation.GrowTo(100));
    parsed->payload = std::move(payload);
    const RequestId id{scheduler::Incarnation(7), ++number_};
    // The test owns the client: the desk borrows it.
    std::shared_ptr<ResponseSink> sink(client, [](ResponseSink*) {});
    desk_.Start({.id = id,
                 .parsed = std::move(parsed),
                 .sink = sink,
                 .owner = "owner",
                 .accepted = clock_.Now()},
                clock_.Now());
    return id;
  }

  absl::StatusOr<PullAnswer> Pull(RequestId id, uint32_t epoch,
                                  scheduler::Stage stage = scheduler::Stage::kPrefill) {
    return desk_.Pull({.request = id,
                       .stage = stage,
                       .epoch = scheduler::OutputEpoch(epoch),
                       .item = stage == scheduler::Stage::kEncode ? 0 : -1},
                      clock_.Now());
  }

  scheduler::TokenReply Tokens(RequestId id, uint32_t epoch, int start, const std::string& text,
                               Finish finish = Finish::kNone) {
    scheduler::TokenBatch batch{.request = id,
                                .epoch = scheduler::OutputEpoch(epoch),
                                .start_index = start,
                                .finish = finish};
    for (char c : text) batch.tokens.push_back({.token = static_cast<unsigned char>(c)});
    if (finish == Finish::kStop) {
      batch.tokens.push_back({.token = tokenizer_->ControlId("<|im_end|>").value()});
    }
    return desk_.Tokens(batch, {.prefill_us = 42}, clock_.Now());
  }

  // How many RequestEnded were sent since the last call.
  int EndsTold() {
    int ends = 0;
    for (const auto& message : desk_.TakeMessages()) {
      ends += std::holds_alternative<scheduler::RequestEnded>(message);
    }
    return ends;
  }

  void After(base::Duration d) {
    clock_.Advance(d);
    desk_.OnTime(clock_.Now());
  }
  base::TimePoint now() const { return clock_.Now(); }
  RequestDesk& desk() { return desk_; }
  std::vector<std::string> log_lines() const { return log_.lines(); }
  int64_t held_bytes() const { return 1000 - budget_.free_bytes(); }

 private:
  base::SimulatedClock clock_;
  base::CapturingLogger log_{clock_};
  base::Registry registry_;
  PayloadBudget budget_{1000};
  std::unique_ptr<models::Tokenizer> tokenizer_;
  GatewayMetrics metrics_;
  RequestDesk desk_;
  uint64_t number_ = 0;
};

TEST_CASE("RequestDesk: tokens in order, duplicates dropped, one end", "[gateway][core]") {
  Script script;
  Client client;
  const RequestId id = script.Submit(&client, "a");
  REQUIRE(script.Pull(id, 1).ok());
  script.Tokens(id, 1, 0, "Hel");
  script.Tokens(id, 1, 0, "Hel");
  CHECK(script.Tokens(id, 1, 5, "!").kind == scheduler::TokenReply::Kind::kResumeFrom);
  script.After(seconds(1));
  script.Tokens(id, 1, 2, "llo", Finish::kStop);
  CHECK(client.text == "Hello");
  CHECK(client.ends == 1);
  CHECK(client.end.status.ok());
  CHECK(client.end.finish == Finish::kStop);
  CHECK(client.end.usage.output_tokens == 6);
  CHECK(client.end.usage.prompt_tokens == 3);
  CHECK(client.end.timeline.prefill_us == 42);
  CHECK(client.end.timeline.total_us == 1'000'000);
  CHECK(script.EndsTold() == 1);
  CHECK(script.desk().live() == 0);
  CHECK(script.held_bytes() == 0);
  CHECK(script.Tokens(id, 1, 5, "x").kind == scheduler::TokenReply::Kind::kGone);
  CHECK(client.ends == 1);
}

TEST_CASE("RequestDesk: tokens of a fenced producer change nothing", "[gateway][core]") {
  Script script;
  Client client;
  const RequestId id = script.Submit(&client, "a");
  REQUIRE(script.Pull(id, 1).ok());
  script.Tokens(id, 1, 0, "ab");
  const auto again = script.Pull(id, 2);
  REQUIRE(again.ok());
  CHECK(again->input.prefix_tokens == std::vector<int32_t>{'a', 'b'});
  CHECK(script.Tokens(id, 1, 2, "zz").kind == scheduler::TokenReply::Kind::kGone);
  CHECK(absl::IsFailedPrecondition(script.Pull(id, 1).status()));
  script.Tokens(id, 2, 2, "c", Finish::kLength);
  CHECK(client.text == "abc");
  CHECK(client.end.finish == Finish::kLength);
}

TEST_CASE("RequestDesk: a stop string ends the request at once", "[gateway][core]") {
  Script script;
  Client client;
  const RequestId id = script.Submit(&client, "a", {"ND"});
  REQUIRE(script.Pull(id, 1).ok());
  script.Tokens(id, 1, 0, "xENDy");
  CHECK(client.text == "xE");
  CHECK(client.ends == 1);
  CHECK(client.end.finish == Finish::kStop);
  CHECK(script.EndsTold() == 1);
  CHECK(script.Tokens(id, 1, 5, "z").kind == scheduler::TokenReply::Kind::kGone);
}

TEST_CASE("RequestDesk: an active id is refused, and free again after the end", "[gateway][core]") {
  Script script;
  Client first, second, third;
  const RequestId id = script.Submit(&first, "same");
  script.Submit(&second, "same");
  CHECK(second.ends == 1);
  CHECK(ToClientError(second.end.status).http_status == 409);
  CHECK(first.ends == 0);
  script.desk().Leave(id, script.now());
  CHECK(absl::IsCancelled(first.end.status));
  script.desk().Leave(id, script.now());
  CHECK(first.ends == 1);
  script.Submit(&third, "same");
  CHECK(third.ends == 0);
  for (const char* stranger : {"another", ""}) {
    CHECK(absl::IsNotFound(script.desk().Cancel("same", stranger, script.now())));
  }
  CHECK(third.ends == 0);
  REQUIRE(script.desk().Cancel("same", "owner", script.now()).ok());
  CHECK(absl::IsCancelled(third.end.status));
  CHECK(absl::IsNotFound(script.desk().Cancel("same", "owner", script.now())));
  CHECK(script.held_bytes() == 0);
}

TEST_CASE("RequestDesk: deadline, scheduler's refusal, a full desk", "[gateway][core]") {
  Script script;
  Client late, refused;
  script.Submit(&late, "late");
  script.After(seconds(11));
  CHECK(ToClientError(late.end.status).http_status == 504);
  const RequestId id = script.Submit(&refused, "refused");
  script.desk().OnScheduler(
      scheduler::RequestFailed{id, absl::ResourceExhaustedError("queue"), seconds(2)},
      script.now());
  CHECK(ToClientError(refused.end.status).http_status == 429);
  CHECK(refused.end.retry_after == seconds(2));
  Client many[5];
  for (int i = 0; i < 5; ++i) script.Submit(&many[i], std::to_string(i));
  CHECK(many[3].ends == 0);
  CHECK(ToClientError(many[4].end.status).http_status == 429);
  script.desk().EndAll(script.now());
  for (const Client& client : many) CHECK(client.ends == 1);
  CHECK(script.held_bytes() == 0);
}

TEST_CASE("RequestDesk: draining refuses the new and waits for the live", "[gateway][core]") {
  Script script;
  Client live, fresh;
  script.Submit(&live, "live");
  int idle = 0;
  script.desk().Drain(script.now() + seconds(5), [&] { ++idle; });
  script.Submit(&fresh, "fresh");
  CHECK(ToClientError(fresh.end.status).code == std::string("draining"));
  script.After(seconds(1));
  CHECK(idle == 0);
  script.After(seconds(4));
  CHECK(idle == 1);
  CHECK(ToClientError(live.end.status).http_status == 503);
}

TEST_CASE("RequestDesk: a model is served while a scheduler has a worker for each stage",
          "[gateway][core]") {
  Script script;
  const auto told = [&](uint8_t roles) {
    script.desk().OnScheduler(
        scheduler::Membership{.models = {{"other.w.f", {7}}, {"model.w.f", {roles}}}},
        script.now());
    return script.desk().Served();
  };
  CHECK_FALSE(script.desk().Served());
  CHECK_FALSE(told(3));
  CHECK(told(7));
  CHECK_FALSE(told(6));
  CHECK(told(7));
  script.desk().OnSchedulerLost(script.now());
  CHECK_FALSE(script.desk().Served());
  script.desk().OnSchedulerConnected(script.now());
  CHECK_FALSE(script.desk().Served());
}

TEST_CASE("RequestDesk: the log has one line an answer, with the ids of both sides",
          "[gateway][core]") {
  Script script;
  Client good, bad;
  const RequestId first = script.Submit(&good, "asked-for");
  REQUIRE(script.Pull(first, 1).ok());
  REQUIRE(script.Pull(first, 2).ok());
  script.Tokens(first, 2, 0, "Hello", Finish::kStop);
  const RequestId second = script.Submit(&bad, "late");
  script.After(seconds(11));
  const std::vector<std::string> lines = script.log_lines();
  REQUIRE(lines.size() == 2);
  using Catch::Contains;
  CHECK_THAT(lines[0], Contains("\"request_id\":\"" + ToString(first) + "\",\"epoch\":2"));
  CHECK_THAT(lines[0], Contains("\"client_id\":\"asked-for\",\"result\":\"stop\""));
  CHECK_THAT(lines[0], Contains("\"output_tokens\":6"));
  CHECK_THAT(lines[1], Contains(ToString(second)) && Contains("\"result\":\"deadline_exceeded\""));
}

TEST_CASE("RequestDesk: an encode pull must name an item", "[gateway][core]") {
  Script script;
  Client client;
  const RequestId id = script.Submit(&client, "a");
  CHECK(absl::IsInvalidArgument(script.Pull(id, 1, scheduler::Stage::kEncode).status()));
  CHECK(absl::IsNotFound(script.Pull({scheduler::Incarnation(7), 99}, 1).status()));
}

}  // namespace
}  // namespace triptych::services
