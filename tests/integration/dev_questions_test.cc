// Defends that real processes answer as the reference does, whatever the topology: each stage
// alone, joined in pairs, all in one, and a mixture.

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include "base/rpc.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/load.h"
#include "tests/support/skip.h"

namespace triptych::testing {
namespace {

void CheckAnswers(const Cluster& cluster, const std::vector<Question>& questions) {
  const auto stub = v1::Inference::NewStub(base::ConnectAsClient(cluster.grpc()));
  for (const Question& question : questions) {
    const Reply reply = Ask(stub.get(), question.request);
    INFO(question.name << ": " << reply.error);
    REQUIRE(reply.ok);
    CHECK(reply.text == question.expected);
  }
}

TEST_CASE("Cluster: stages apart answer the example questions", "[integration][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=1");
  CheckAnswers(cluster, ExampleQuestions());
  CHECK(cluster.Stop());
}

TEST_CASE("Cluster: every topology gives the same text", "[integration][slow][serial]") {
  std::vector<Question> questions = ExampleQuestions();
  for (Question& question : DevelopmentQuestions(12)) questions.push_back(std::move(question));
  for (const char* workers :
       {"encode+prefill=1,decode=1", "encode=1,prefill+decode=1", "encode+prefill+decode=1",
        "encode=2,prefill=1,decode=1,"
        "encode+prefill+decode=1"}) {
    INFO(workers);
    Cluster cluster(workers);
    CheckAnswers(cluster, questions);
  }
}

// Asks all, `at_once` at a time, and counts the answers that are the reference's. Catch2's
// assertions are for one thread, so the threads only collect.
int CountIdentical(const Cluster& cluster, const std::vector<Question>& questions, int at_once) {
  const auto stub = v1::Inference::NewStub(base::ConnectAsClient(cluster.grpc()));
  std::atomic<size_t> next{0};
  std::atomic<int> identical{0};
  std::vector<std::thread> askers;
  for (int i = 0; i < at_once; ++i) {
    askers.emplace_back([&] {
      for (size_t at = next++; at < questions.size(); at = next++) {
        const Reply reply = Ask(stub.get(), questions[at].request);
        if (reply.ok && reply.text == questions[at].expected) ++identical;
      }
    });
  }
  for (std::thread& asker : askers) asker.join();
  return identical;
}

// A tenth of them where an answer takes seconds: memory errors show as well.
#if defined(__SANITIZE_ADDRESS__)
constexpr int kDevelopmentQuestions = 24;
#else
constexpr int kDevelopmentQuestions = 240;
#endif

TEST_CASE("Cluster: all development questions, any topology, one or 32 at once, as the reference",
          "[integration][slow][serial]") {
  const std::vector<Question> questions = DevelopmentQuestions(kDevelopmentQuestions);
  if (questions.empty()) {
    SkipTest("the development questions are not beside this checkout");
    return;
  }
  for (const char* workers : {"encode=1,prefill=1,decode=1", "encode+prefill=1,decode=1",
                              "encode=1,prefill+decode=1", "encode+prefill+decode=1"}) {
    Cluster cluster(workers);
    for (int at_once : {1, 32}) {
      INFO(workers << ", " << at_once << " at once");
      CHECK(CountIdentical(cluster, questions, at_once) == static_cast<int>(questions.size()));
    }
  }
}

}  // namespace
}  // namespace triptych::testing
