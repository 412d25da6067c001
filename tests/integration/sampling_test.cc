// Defends that what a client says about sampling reaches the draw through every process, and that a
// redone draw is the same: counts of tokens are rebuilt from the prompt and from what was sent.

#include <signal.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "base/rpc.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/load.h"

namespace triptych::testing {
namespace {

// A picture's description, greedy, and the same question with more said about it.
class Asker {
 public:
  explicit Asker(const Cluster& cluster)
      : stub_(v1::Inference::NewStub(base::ConnectAsClient(cluster.grpc()))) {}

  v1::GenerateRequest request() const { return ExampleQuestions().front().request; }
  // `on_tokens` as of Ask.
  Reply Take(const v1::GenerateRequest& request, const std::function<void(int)>& on_tokens = {}) {
    const Reply reply = Ask(stub_.get(), request, on_tokens);
    INFO(reply.error);
    REQUIRE(reply.ok);
    return reply;
  }
  template <typename Change>
  Reply With(Change change) {
    v1::GenerateRequest changed = request();
    change(&changed);
    return Take(changed);
  }

 private:
  std::unique_ptr<v1::Inference::Stub> stub_;
};

size_t Distinct(const std::vector<int32_t>& tokens) {
  return std::set<int32_t>(tokens.begin(), tokens.end()).size();
}

void AddBias(v1::GenerateRequest* request, int32_t token, float bias) {
  v1::TokenBias* added = request->mutable_sampling()->add_biases();
  added->set_token(token);
  added->set_bias(bias);
}

void GoOnFor(v1::GenerateRequest* request, int tokens) {
  request->set_ignore_eos(true);
  request->set_max_tokens(tokens);
}

TEST_CASE("Sampling: each number and list of a request is seen in its answer",
          "[integration][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=1");
  Asker asker(cluster);
  const Reply plain = asker.With([](auto*) {});
  REQUIRE(plain.finish == v1::FINISH_STOP);
  REQUIRE(plain.tokens.size() > 4);
  const int32_t first = plain.tokens[0], second = plain.tokens[1], end = plain.tokens.back();

  CHECK(asker.With([&](auto* r) { AddBias(r, first, -100); }).tokens[0] != first);
  const Reply forced = asker.With([&](auto* r) {
    AddBias(r, second, 100);
    GoOnFor(r, 4);
  });
  CHECK(forced.tokens == std::vector<int32_t>(4, second));

  const std::string word = plain.text.substr(0, plain.text.find(' '));
  CHECK(asker.With([&](auto* r) { r->add_bad_words(word); }).text.find(word) == std::string::npos);

  const auto fewest = static_cast<int32_t>(plain.tokens.size()) + 10;
  const Reply longer = asker.With([&](auto* r) { r->set_min_tokens(fewest); });
  REQUIRE(longer.tokens.size() >= static_cast<size_t>(fewest));
  CHECK(std::count(longer.tokens.begin(), longer.tokens.begin() + fewest, end) == 0);

  const auto hot = [](v1::GenerateRequest* request) {
    request->mutable_sampling()->set_temperature(3);
    request->mutable_sampling()->set_seed(5);
  };
  CHECK(asker.With(hot).tokens != plain.tokens);
  const Reply likeliest = asker.With([&](auto* r) {
    hot(r);
    r->mutable_sampling()->set_min_p(1);
  });
  CHECK(likeliest.tokens == plain.tokens);

  const Reply repeating = asker.With([](auto* r) { GoOnFor(r, 60); });
  const Reply present = asker.With([](auto* r) {
    GoOnFor(r, 60);
    r->mutable_sampling()->set_presence_penalty(2);
  });
  const Reply frequent = asker.With([](auto* r) {
    GoOnFor(r, 60);
    r->mutable_sampling()->set_frequency_penalty(2);
  });
  const Reply fresh = asker.With([](auto* r) {
    GoOnFor(r, 60);
    r->mutable_sampling()->set_repetition_penalty(100);
  });
  CAPTURE(Distinct(repeating.tokens), Distinct(present.tokens), Distinct(frequent.tokens));
  CHECK(Distinct(present.tokens) > Distinct(repeating.tokens));
  CHECK(Distinct(frequent.tokens) > Distinct(repeating.tokens));
  CHECK(Distinct(fresh.tokens) > 2 * Distinct(repeating.tokens));
}

TEST_CASE("Sampling: an answer whose length nobody named ends where memory ends",
          "[integration][serial]") {
  // 30 blocks of 16 tokens.
  Cluster cluster("encode=1,prefill=1,decode=1", {"--worker-flags=--kv-blocks=30"});
  Asker asker(cluster);
  const Reply reply = asker.With([](auto* r) { r->set_ignore_eos(true); });
  CHECK(reply.finish == v1::FINISH_LENGTH);
  CHECK(reply.usage.prompt_tokens() + reply.usage.output_tokens() == 30 * 16 + 1);
}

TEST_CASE("Sampling: a killed decode worker changes no draw, whatever counts the answer's tokens",
          "[integration][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=2");
  Asker asker(cluster);
  v1::GenerateRequest request = asker.request();
  GoOnFor(&request, 80);
  request.set_min_tokens(80);
  request.add_bad_words("the");
  v1::SamplingParams* sampling = request.mutable_sampling();
  sampling->set_temperature(1);
  sampling->set_seed(11);
  sampling->set_min_p(0.01f);
  sampling->set_repetition_penalty(1.2f);
  sampling->set_presence_penalty(0.5f);
  sampling->set_frequency_penalty(0.5f);
  const Reply undisturbed = asker.Take(request);
  REQUIRE(undisturbed.tokens.size() == 80);
  bool killed = false;
  const Reply disturbed = asker.Take(request, [&](int tokens) {
    if (killed || tokens < 20 || tokens > 60) return;
    killed = true;
    for (const char* worker : {"decode-0", "decode-1"}) {
      if (cluster.TasksOf(worker) > 0) cluster.Signal(worker, SIGKILL);
    }
  });
  CHECK(killed);
  CHECK(disturbed.tokens == undisturbed.tokens);
}

}  // namespace
}  // namespace triptych::testing
