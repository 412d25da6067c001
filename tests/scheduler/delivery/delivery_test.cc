// Defended: one terminal event for each accepted request, tokens in order, none lost, none twice,
// whoever sends them how often; the fence; what the next scheduler is told. How: a script of
// messages, and a random stream of batches by successive producers.

#include "scheduler/delivery/delivery.h"

#include <catch2/catch.hpp>

#include "base/random.h"

namespace triptych::scheduler {
namespace {

constexpr Incarnation kGateway{7};

RequestId Id(uint64_t number) { return {kGateway, number}; }

struct Fixture {
  explicit Fixture(DeliveryLimits limits = {}, std::string model = {})
      : delivery(limits, std::move(model)) {}

  absl::Status Accept(uint64_t number, base::TimePoint deadline = base::kNever) {
    SubmitRequest submit{.request = Id(number), .prompt_tokens = 5, .max_tokens = 10};
    submit.items.resize(1);
    absl::Status status = delivery.Accept(submit, PulledInput{.max_tokens = 10}, deadline, now);
    Collect();
    return status;
  }
  TokenReply Tokens(uint64_t number, uint32_t epoch, int32_t start, std::vector<int32_t> ids,
                    Finish finish = Finish::kNone, TaskId task = {}) {
    TokenBatch batch{
        .request = Id(number), .task = task, .epoch = OutputEpoch(epoch), .start_index = start};
    for (int32_t id : ids) batch.tokens.push_back({.token = id});
    batch.finish = finish;
    TokenReply reply = delivery.OnTokens(batch, now);
    Collect();
    return reply;
  }
  absl::StatusOr<PulledInput> Pull(uint64_t number, uint32_t epoch, Stage stage = Stage::kPrefill,
                                   int32_t item = -1, TaskId task = {}) {
    return delivery.OnPull({Id(number), task, stage, OutputEpoch(epoch), item}, now);
  }
  void Collect() {
    for (DeliveryAction& action : delivery.TakeActions()) {
      if (auto* tokens = std::get_if<DeliverTokens>(&action)) {
        CHECK(tokens->start_index == static_cast<int32_t>(text.size()));
        for (const SampledToken& token : tokens->tokens) text.push_back(token.token);
      } else if (auto* end = std::get_if<DeliverEnd>(&action)) {
        ends.push_back(*end);
      } else if (auto* message = std::get_if<SendGatewayMessage>(&action)) {
        sent.push_back(message->message);
      }
    }
  }

  base::TimePoint now{std::chrono::hours(1)};
  Delivery delivery;
  std::vector<int32_t> text;
  std::vector<DeliverEnd> ends;
  std::vector<GatewayToScheduler> sent;
};

TEST_CASE("Delivery: an answer comes in order and ends once", "[scheduler][delivery]") {
  Fixture f;
  f.delivery.OnSchedulerConnected(f.now);
  REQUIRE(f.Accept(1).ok());
  REQUIRE(f.sent.size() == 1);
  CHECK(std::get<SubmitRequest>(f.sent[0]).request == Id(1));
  REQUIRE(f.Pull(1, 0).ok());
  CHECK(f.Tokens(1, 0, 0, {10, 11}).next_index == 2);
  CHECK(f.Tokens(1, 0, 2, {12}, Finish::kStop).next_index == 3);
  CHECK(f.text == std::vector<int32_t>{10, 11, 12});
  REQUIRE(f.ends.size() == 1);
  CHECK(f.ends[0].status.ok());
  CHECK(std::get<RequestEnded>(f.sent.back()).request == Id(1));
  CHECK(f.delivery.num_live() == 0);
}

TEST_CASE("Delivery: a token that the model lacks ends the answer and is kept nowhere",
          "[scheduler][delivery]") {
  Fixture f({.vocab_size = 100});
  REQUIRE(f.Accept(1).ok());
  REQUIRE(f.Pull(1, 0).ok());
  f.Tokens(1, 0, 0, {99});
  CHECK(f.ends.empty());
  SECTION("too large") { f.Tokens(1, 0, 1, {5, 100}); }
  SECTION("negative") { f.Tokens(1, 0, 1, {-1}); }
  REQUIRE(f.ends.size() == 1);
  CHECK(absl::IsInternal(f.ends[0].status));
  CHECK(f.text == std::vector<int32_t>{99});
  CHECK(f.delivery.num_live() == 0);
}

TEST_CASE("Delivery: duplicates bring nothing, gaps are asked for", "[scheduler][delivery]") {
  Fixture f;
  REQUIRE(f.Accept(1).ok());
  REQUIRE(f.Pull(1, 0).ok());
  f.Tokens(1, 0, 0, {10, 11});
  CHECK(f.Tokens(1, 0, 0, {10, 11}).next_index == 2);
  CHECK(f.Tokens(1, 0, 1, {11, 12}).next_index == 3);
  const TokenReply gap = f.Tokens(1, 0, 5, {15});
  CHECK(gap.kind == TokenReply::Kind::kResumeFrom);
  CHECK(gap.next_index == 3);
  CHECK(f.text == std::vector<int32_t>{10, 11, 12});
  CHECK(f.ends.empty());
}

TEST_CASE("Delivery: the finish of a token that is known already still ends the answer",
          "[scheduler][delivery]") {
  Fixture f;
  REQUIRE(f.Accept(1).ok());
  REQUIRE(f.Pull(1, 0).ok());
  f.Tokens(1, 0, 0, {10, 11});
  f.Tokens(1, 0, 1, {11}, Finish::kLength);
  CHECK(f.ends.size() == 1);
  CHECK(f.text == std::vector<int32_t>{10, 11});
}

TEST_CASE("Delivery: the pull is a fence", "[scheduler][delivery]") {
  Fixture f;
  REQUIRE(f.Accept(1).ok());
  REQUIRE(f.Pull(1, 0).ok());
  f.Tokens(1, 0, 0, {10, 11});
  const auto prefill = f.Pull(1, 2);
  REQUIRE(prefill.ok());
  CHECK(prefill->prefix_tokens == std::vector<int32_t>{10, 11});
  CHECK(f.Tokens(1, 0, 2, {99}).kind == TokenReply::Kind::kGone);
  CHECK(f.Pull(1, 1).status().code() == absl::StatusCode::kFailedPrecondition);
  CHECK(f.Tokens(1, 2, 2, {12}).kind == TokenReply::Kind::kAccepted);
  const auto decode = f.Pull(1, 2, Stage::kDecode);
  REQUIRE(decode.ok());
  CHECK(decode->prefix_tokens.size() == 3);
  CHECK(f.text == std::vector<int32_t>{10, 11, 12});
}

TEST_CASE("Delivery: a decode that replaces another under its epoch is heard alone",
          "[scheduler][delivery]") {
  const SchedulerId scheduler{1, Incarnation(2)}, next{2, Incarnation(1)};
  const TaskId prefill{scheduler, 4}, lost{scheduler, 5}, other{scheduler, 6}, last{next, 1};
  Fixture f;
  REQUIRE(f.Accept(1).ok());
  CHECK(f.Tokens(1, 0, 0, {10}, Finish::kNone, prefill).kind == TokenReply::Kind::kGone);
  REQUIRE(f.Pull(1, 0, Stage::kPrefill, -1, prefill).ok());
  REQUIRE(f.Pull(1, 0, Stage::kDecode, -1, lost).ok());
  CHECK(f.Tokens(1, 0, 0, {10}, Finish::kNone, prefill).next_index == 1);
  CHECK(f.Tokens(1, 0, 1, {11}, Finish::kNone, lost).next_index == 2);
  const auto pulled = f.Pull(1, 0, Stage::kDecode, -1, other);
  REQUIRE(pulled.ok());
  CHECK(pulled->prefix_tokens == std::vector<int32_t>{10, 11});
  CHECK(f.Tokens(1, 0, 2, {99}, Finish::kNone, lost).kind == TokenReply::Kind::kGone);
  CHECK(f.Pull(1, 0, Stage::kDecode, -1, lost).status().code() ==
        absl::StatusCode::kFailedPrecondition);
  CHECK(f.Tokens(1, 0, 0, {10}, Finish::kNone, prefill).kind == TokenReply::Kind::kAccepted);
  CHECK(f.Tokens(1, 0, 2, {12}, Finish::kNone, other).next_index == 3);
  REQUIRE(f.Pull(1, 0, Stage::kDecode, -1, last).ok());
  CHECK(f.Tokens(1, 0, 3, {99}, Finish::kNone, other).kind == TokenReply::Kind::kGone);
  CHECK(f.text == std::vector<int32_t>{10, 11, 12});
}

TEST_CASE("Delivery: encode pulls raise no fence and name an item", "[scheduler][delivery]") {
  Fixture f;
  REQUIRE(f.Accept(1).ok());
  REQUIRE(f.Pull(1, 0).ok());
  CHECK(f.Pull(1, 5, Stage::kEncode, 0).ok());
  CHECK(f.Tokens(1, 0, 0, {10}).kind == TokenReply::Kind::kAccepted);
  CHECK(f.Pull(1, 0, Stage::kEncode, 1).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(f.Pull(2, 0).status().code() == absl::StatusCode::kNotFound);
}

TEST_CASE("Delivery: a producer's error ends the request", "[scheduler][delivery]") {
  Fixture f;
  REQUIRE(f.Accept(1).ok());
  REQUIRE(f.Pull(1, 0).ok());
  TokenBatch batch{.request = Id(1)};
  batch.error = absl::InternalError("numerical_error");
  f.delivery.OnTokens(batch, f.now);
  f.Collect();
  REQUIRE(f.ends.size() == 1);
  CHECK(f.ends[0].status.code() == absl::StatusCode::kInternal);
  CHECK(f.delivery.OnTokens(batch, f.now).kind == TokenReply::Kind::kGone);
}

TEST_CASE("Delivery: after the end nothing is delivered", "[scheduler][delivery]") {
  Fixture f;
  f.delivery.OnSchedulerConnected(f.now);
  REQUIRE(f.Accept(1).ok());
  f.delivery.End(Id(1), absl::CancelledError("client left"), f.now);
  f.delivery.End(Id(1), absl::CancelledError("client left"), f.now);
  f.delivery.OnScheduler(RequestFailed{Id(1), absl::InternalError("late")}, f.now);
  f.Collect();
  CHECK(f.Tokens(1, 0, 0, {10}).kind == TokenReply::Kind::kGone);
  CHECK(f.text.empty());
  REQUIRE(f.ends.size() == 1);
  CHECK(f.ends[0].status.code() == absl::StatusCode::kCancelled);
}

TEST_CASE("Delivery: the scheduler's refusal ends the request with its advice",
          "[scheduler][delivery]") {
  Fixture f;
  f.delivery.OnSchedulerConnected(f.now);
  REQUIRE(f.Accept(1).ok());
  f.delivery.OnScheduler(
      RequestFailed{Id(1), absl::ResourceExhaustedError("full"), std::chrono::seconds(1)}, f.now);
  f.Collect();
  REQUIRE(f.ends.size() == 1);
  CHECK(f.ends[0].retry_after == std::chrono::seconds(1));
}

TEST_CASE("Delivery: a deadline ends the request on time", "[scheduler][delivery]") {
  Fixture f;
  f.delivery.OnSchedulerConnected(f.now);
  REQUIRE(f.Accept(1, f.now + std::chrono::seconds(2)).ok());
  CHECK(std::get<SubmitRequest>(f.sent[0]).time_left == std::chrono::seconds(2));
  CHECK(f.delivery.NextDeadline() == f.now + std::chrono::seconds(2));
  f.now += std::chrono::seconds(2);
  f.delivery.OnTime(f.now);
  f.Collect();
  REQUIRE(f.ends.size() == 1);
  CHECK(f.ends[0].status.code() == absl::StatusCode::kDeadlineExceeded);
  CHECK(f.delivery.NextDeadline() == base::kNever);
}

TEST_CASE("Delivery: limits refuse before anything is accepted", "[scheduler][delivery]") {
  Fixture f({.max_requests = 2, .max_waiting = 1});
  REQUIRE(f.Accept(1).ok());
  CHECK(f.Accept(1).code() == absl::StatusCode::kAlreadyExists);
  CHECK(f.Accept(2).code() == absl::StatusCode::kUnavailable);
  f.delivery.OnSchedulerConnected(f.now);
  REQUIRE(f.Accept(2).ok());
  CHECK(f.Accept(3).code() == absl::StatusCode::kResourceExhausted);
  CHECK(f.ends.empty());
}

TEST_CASE("Delivery: the next scheduler hears of every live request, once",
          "[scheduler][delivery]") {
  Fixture f;
  f.delivery.OnSchedulerConnected(f.now);
  REQUIRE(f.Accept(1).ok());
  f.Pull(1, 3).status().IgnoreError();
  f.Tokens(1, 3, 0, {10, 11});
  f.delivery.OnSchedulerLost(f.now);
  REQUIRE(f.Accept(2).ok());
  const auto live = f.delivery.Live(f.now);
  REQUIRE(live.size() == 2);
  CHECK(live[0].epoch == OutputEpoch(3));
  CHECK(live[0].tokens_sent == 2);
  f.sent.clear();
  REQUIRE(f.Accept(3).ok());  // between the hello and the stream
  f.delivery.OnSchedulerConnected(f.now);
  f.Collect();
  REQUIRE(f.sent.size() == 1);
  CHECK(std::get<SubmitRequest>(f.sent[0]).request == Id(3));
}

TEST_CASE("Delivery: a request is given a pool of the model's workers, and keeps it",
          "[scheduler][delivery]") {
  Fixture f({}, "model");
  const auto told = [&](std::vector<ModelRoles> models) {
    f.delivery.OnScheduler(Membership{.models = std::move(models)}, f.now);
    f.Collect();
  };
  const auto last = [&] { return std::get<SubmitRequest>(f.sent.back()).fingerprint; };
  f.delivery.OnSchedulerConnected(f.now);
  REQUIRE(f.Accept(1).ok());
  CHECK(f.sent.empty());  // whom the scheduler knows is not known yet
  told({{"model.1.float", {5}}, {"model.2.float", {7}}, {"models.0.float", {7}}});
  REQUIRE(f.sent.size() == 1);
  CHECK(last() == "model.2.float");
  told({{"model.1.float", {7}}, {"model.2.float", {7}}});
  REQUIRE(f.Accept(2).ok());
  CHECK(last() == "model.2.float");  // as long as it is complete
  told({{"model.1.float", {7}}, {"model.2.float", {3}}});
  REQUIRE(f.Accept(3).ok());
  CHECK(last() == "model.1.float");
  f.delivery.OnSchedulerLost(f.now);
  const auto live = f.delivery.Live(f.now);
  CHECK(live[0].fingerprint == "model.2.float");
  CHECK(live[2].fingerprint == "model.1.float");
}

TEST_CASE("Delivery: a scheduler without workers of the model is asked once it has said so",
          "[scheduler][delivery]") {
  Fixture f({}, "model");
  REQUIRE(f.Accept(1).ok());
  CHECK(f.delivery.Live(f.now).empty());
  f.delivery.OnSchedulerConnected(f.now);
  f.Collect();
  CHECK(f.sent.empty());
  f.delivery.OnScheduler(Membership{.models = {{"other.1.float", {7}}}}, f.now);
  f.Collect();
  REQUIRE(f.sent.size() == 1);
  CHECK(std::get<SubmitRequest>(f.sent[0]).fingerprint == "model");
}

TEST_CASE("Delivery: what ends while a hello is under way is told after the welcome",
          "[scheduler][delivery]") {
  Fixture f;
  f.delivery.OnSchedulerConnected(f.now);
  REQUIRE(f.Accept(1).ok());
  REQUIRE(f.Accept(2).ok());
  f.delivery.OnSchedulerLost(f.now);
  f.delivery.End(Id(2), absl::CancelledError("left"), f.now);
  REQUIRE(f.delivery.Live(f.now).size() == 1);  // the hello names 1 alone
  f.delivery.End(Id(1), absl::CancelledError("left"), f.now);
  f.Collect();
  f.sent.clear();
  f.delivery.OnSchedulerConnected(f.now);
  f.Collect();
  REQUIRE(f.sent.size() == 1);
  CHECK(std::get<RequestEnded>(f.sent[0]).request == Id(1));
}

TEST_CASE("Delivery: a lost scheduler's peers are remembered, its workers not",
          "[scheduler][delivery]") {
  Fixture f;
  CHECK(f.delivery.RolesOf("model") == Roles());
  f.delivery.OnSchedulerConnected(f.now);
  const Membership told{.whole = true,
                        .peers = {Incarnation(3), Incarnation(4)},
                        .models = {{"model", {7}}, {"other", {5}}}};
  f.delivery.OnScheduler(told, f.now);
  f.delivery.OnScheduler(
      Membership{.peers = {Incarnation(5)}, .gone = {Incarnation(4)}, .models = told.models},
      f.now);
  CHECK(f.delivery.RolesOf("model").complete());
  CHECK(f.delivery.RolesOf("other") == Roles{5});
  CHECK(f.delivery.RolesOf("third") == Roles());
  f.delivery.OnSchedulerLost(f.now);
  CHECK(f.delivery.RolesOf("model") == Roles());
  CHECK(f.delivery.known_peers() == std::vector<Incarnation>{Incarnation(3), Incarnation(5)});
}

TEST_CASE("Delivery: any interleaving of producers gives one answer", "[scheduler][delivery]") {
  // Each producer knows the true token of an index; batches come late, twice and with gaps.
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    INFO("seed " << seed);
    base::SeededRandom random(seed);
    Fixture f;
    REQUIRE(f.Accept(1).ok());
    REQUIRE(f.Pull(1, 0).ok());
    uint32_t epoch = 0;
    int steps = 0;
    while (f.ends.empty()) {
      REQUIRE(++steps < 10000);
      if (random.Chance(0.05)) {
        ++epoch;
        const auto pulled = f.Pull(1, epoch);
        REQUIRE(pulled.ok());
        REQUIRE(pulled->prefix_tokens == f.text);
      }
      const auto start = static_cast<int32_t>(random.Below(20));
      const auto count = static_cast<int32_t>(random.Between(1, 4));
      const uint32_t sender = random.Chance(0.2) && epoch > 0 ? epoch - 1 : epoch;
      std::vector<int32_t> ids;
      for (int32_t i = start; i < std::min(start + count, 20); ++i) ids.push_back(100 + i);
      f.Tokens(1, sender, start, ids, start + count >= 20 ? Finish::kLength : Finish::kNone);
    }
    REQUIRE(f.text.size() == 20);
    for (int i = 0; i < 20; ++i) REQUIRE(f.text[static_cast<size_t>(i)] == 100 + i);
    REQUIRE(f.ends.size() == 1);
  }
}

}  // namespace
}  // namespace triptych::scheduler
