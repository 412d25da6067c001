// Defends that a client that goes away costs nothing afterwards, wherever it goes away: in the
// middle of its upload, in each queue and stage, in each transfer, at any token. A stage is held by
// stopping the process that would go on with it, so that the moment is certain and not guessed.

#include <signal.h>

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/rpc.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/http_client.h"
#include "tests/integration/load.h"
#include "tests/support/eventually.h"

namespace triptych::testing {
namespace {

constexpr base::Duration kPatience = kSlowdown * std::chrono::seconds(30);
constexpr base::Duration kFreeWithin = kSlowdown * std::chrono::seconds(1);

// A client at either door, which has asked and will leave.
class Leaver {
 public:
  virtual ~Leaver() = default;
  // Until so many tokens have come; false when it ended before.
  virtual bool WaitTokens(int count) = 0;
  virtual void Leave() = 0;
};

class GrpcLeaver final : public Leaver {
 public:
  GrpcLeaver(const std::string& address, const v1::GenerateRequest& request)
      : stub_(v1::Inference::NewStub(base::ConnectAsClient(address))),
        stream_(stub_->Generate(&context_, request)) {}

  bool WaitTokens(int count) override {
    v1::GenerateResponse response;
    while (tokens_ < count) {
      if (!stream_->Read(&response)) return false;
      tokens_ += response.tokens_size();
    }
    return true;
  }
  void Leave() override {
    context_.TryCancel();
    stream_->Finish();
  }

 private:
  std::unique_ptr<v1::Inference::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> stream_;
  int tokens_ = 0;
};

class HttpLeaver final : public Leaver {
 public:
  HttpLeaver(const std::string& address, const v1::GenerateRequest& request) : client_(address) {
    client_.Send(HttpRequest(HttpBody(request)));
  }
  bool WaitTokens(int count) override { return client_.WaitTokens(count, kPatience); }
  void Leave() override { client_.Leave(); }

 private:
  HttpClient client_;
};

enum class Door { kGrpc, kHttp };
constexpr Door kDoors[] = {Door::kGrpc, Door::kHttp};

std::unique_ptr<Leaver> AskAt(Door door, const Cluster& cluster,
                              const v1::GenerateRequest& request) {
  if (door == Door::kGrpc) return std::make_unique<GrpcLeaver>(cluster.grpc(), request);
  return std::make_unique<HttpLeaver>(cluster.http(), request);
}

// All is free in time, at all processes but the one that is stopped, if any.
void CheckFreed(const Cluster& cluster, const std::string& stopped = "") {
  const bool freed = cluster.WaitFreed(kFreeWithin, stopped);
  // Only then: one that is stopped takes a second not to answer.
  if (!freed) UNSCOPED_INFO(cluster.HeldResourcesByName());
  CHECK(freed);
}

// The answer, a whole receipt, has more than 20 tokens.
Question Receipt() {
  for (Question& question : ExampleQuestions()) {
    if (question.name == "receipt") return question;
  }
  FAIL("no receipt among the examples");
  return {};
}
v1::GenerateRequest PictureQuestion() { return Receipt().request; }

// A process that is stopped is waited for: these tests are not about its loss.
constexpr char kPatient[] = "--scheduler-flags=--silent-after=60s";

// A prompt of more than half the KV pool of a worker that was given kSmallPool. A sanitized prefill
// of it ends within kFreeWithin too: a step that has begun is not broken off.
constexpr int kPoolBlocks = 160 / kSlowdown;
const std::string kSmallPool = absl::StrCat("--worker-flags=--kv-blocks=", kPoolBlocks);
v1::GenerateRequest LargePrompt() {
  v1::GenerateRequest request = LongQuestions(1, 1000).front().request;
  std::string text;
  for (int i = 0; i < kPoolBlocks; ++i) absl::StrAppend(&text, "river garden bridge ", i, "\n");
  request.mutable_messages(0)->mutable_content(0)->set_text(text);
  return request;
}

TEST_CASE("Departure: an upload that breaks off holds nothing", "[integration][serial]") {
  Cluster cluster("encode+prefill+decode=1");
  const v1::GenerateRequest request = PictureQuestion();
  const std::string whole = HttpRequest(HttpBody(request));
  const size_t header = whole.find("\r\n\r\n") + 4;
  const auto held = [&] { return cluster.MetricOf("gateway", "triptych_held_payload_bytes"); };
  for (size_t sent :
       {size_t{20}, header, header + 1, (header + whole.size()) / 2, whole.size() - 1}) {
    INFO(sent << " of " << whole.size() << " bytes");
    HttpClient client(cluster.http());
    client.Send(absl::string_view(whole).substr(0, sent));
    // The gateway has seen the body before the client goes.
    if (sent > header) REQUIRE(Eventually(kPatience, [&] { return held() > 0; }));
    client.Leave();
    CheckFreed(cluster);
  }
  const Reply reply =
      Ask(v1::Inference::NewStub(base::ConnectAsClient(cluster.grpc())).get(), request);
  CHECK(reply.text == Receipt().expected);
}

TEST_CASE("Departure: a client that waits in the queue leaves nothing there",
          "[integration][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=1", {kSmallPool, kPatient});
  for (Door door : kDoors) {
    INFO("door " << static_cast<int>(door));
    auto stopped = std::make_unique<Stopped>(cluster, "decode-0");
    // Its KV stays at the prefill worker, whose pool has no room for another such prompt.
    const auto first = AskAt(door, cluster, LargePrompt());
    REQUIRE(first->WaitTokens(1));
    const auto second = AskAt(door, cluster, LargePrompt());
    REQUIRE(Eventually(kPatience, [&] { return cluster.QueuedRequests() == 1; }));
    second->Leave();
    CHECK(Eventually(kFreeWithin, [&] {
      return cluster.QueuedRequests() == 0 &&
             cluster.MetricOf("gateway", "triptych_held_requests") == 1;
    }));
    first->Leave();
    CheckFreed(cluster, "decode-0");
    stopped.reset();
    CheckFreed(cluster);
  }
}

// Asks while `held_by` is stopped, waits until `reached`, leaves, and checks that all others are
// free at once and the stopped one soon after it goes on.
template <typename Reached>
void LeaveWhileStopped(const Cluster& cluster, const std::string& held_by,
                       const v1::GenerateRequest& request, Reached reached) {
  for (Door door : kDoors) {
    INFO("door " << static_cast<int>(door) << ", " << held_by << " stopped");
    auto stopped = std::make_unique<Stopped>(cluster, held_by);
    const auto leaver = AskAt(door, cluster, request);
    REQUIRE(Eventually(kPatience, [&] { return reached(leaver.get()); }));
    leaver->Leave();
    CheckFreed(cluster, held_by);
    stopped.reset();
    CheckFreed(cluster);
  }
}

TEST_CASE("Departure: a stage or transfer under way is given up", "[integration][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=1", {kPatient});
  // Placed, and the encoder does not go on.
  LeaveWhileStopped(cluster, "encode-0", PictureQuestion(),
                    [&](Leaver*) { return cluster.TasksOf("encode-0") == 1; });
  // Encoded, and offered to a prefill worker that does not answer.
  LeaveWhileStopped(cluster, "prefill-0", PictureQuestion(), [&](Leaver*) {
    return cluster.MetricOf("encode-0", "triptych_held_embedding_slots") > 0;
  });
  // Prefill has given the first token and offers its KV to a decode worker that does not answer.
  LeaveWhileStopped(cluster, "decode-0", LargePrompt(),
                    [](Leaver* leaver) { return leaver->WaitTokens(1); });
}

TEST_CASE("Departure: a long prompt is given up in the middle of its prefill",
          "[integration][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=1", {"--worker-flags=--chunk-tokens=16"});
  const auto prefilled = [&] {
    return cluster.MetricOf("prefill-0", "triptych_prefill_tokens_total");
  };
  for (Door door : kDoors) {
    const double before = prefilled();
    const auto leaver = AskAt(door, cluster, LargePrompt());
    REQUIRE(Eventually(kPatience, [&] { return prefilled() > before; }));
    leaver->Leave();
    CheckFreed(cluster);
  }
}

TEST_CASE("Departure: at the first and at any later token", "[integration][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=1");
  for (Door door : kDoors) {
    for (int tokens : {1, 2, 3, 8, 20}) {
      INFO("door " << static_cast<int>(door) << ", token " << tokens);
      const auto leaver = AskAt(door, cluster, PictureQuestion());
      REQUIRE(leaver->WaitTokens(tokens));
      leaver->Leave();
      CheckFreed(cluster);
    }
  }
}

// One that leaves at a moment drawn from `random`: at once, after a while, or at some token.
void AskAndLeave(const Cluster& cluster, const std::vector<Question>& questions,
                 std::mt19937* random) {
  const Question& question = questions[(*random)() % questions.size()];
  const auto leaver = AskAt(kDoors[(*random)() % 2], cluster, question.request);
  switch ((*random)() % 3) {
    case 0:
      WaitAMoment(std::chrono::milliseconds((*random)() % 200));
      break;
    case 1:
      leaver->WaitTokens(static_cast<int>((*random)() % 40));
      break;
    default:
      break;
  }
  leaver->Leave();
}

TEST_CASE("Departure: a burst of leavers holds nothing and disturbs nobody who stays",
          "[integration][serial]") {
  constexpr unsigned kSeed = 11;
  constexpr unsigned kThreads = 8, kEach = 25;
  INFO("seed " << kSeed);
  Cluster cluster("encode=1,prefill=1,decode=1");
  std::vector<Question> questions = ExampleQuestions();
  Load load(cluster.grpc(), questions, 2);
  for (Question& question : LongQuestions(4, 1000)) questions.push_back(std::move(question));
  std::vector<std::thread> leavers;
  for (unsigned i = 0; i < kThreads; ++i) {
    leavers.emplace_back([&, i] {
      std::mt19937 random(kSeed + i);
      for (unsigned request = 0; request < kEach; ++request) {
        AskAndLeave(cluster, questions, &random);
      }
    });
  }
  for (std::thread& leaver : leavers) leaver.join();
  const std::vector<std::string> faults = load.Finish();
  INFO(absl::StrJoin(faults, "\n"));
  CHECK(faults.empty());
  for (const services::ProcessRecord& process : cluster.Record().processes) {
    INFO(process.name);
    CHECK(process.restarts == 0);
  }
  CheckFreed(cluster);
}

}  // namespace
}  // namespace triptych::testing
