// Defends that real processes answer as the reference does, whatever the topology: each stage
// alone, joined in pairs, all in one, and a mixture.

#include <catch2/catch.hpp>

#include "base/rpc.h"
#include "tests/integration/cluster_fixture.h"
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

TEST_CASE("Cluster: all development questions are answered as by the reference",
          "[integration][slow][serial]") {
  const std::vector<Question> questions = DevelopmentQuestions(240);
  if (questions.empty()) {
    SkipTest("the development questions are not beside this checkout");
    return;
  }
  Cluster cluster("encode=1,prefill=1,decode=1");
  CheckAnswers(cluster, questions);
}

}  // namespace
}  // namespace triptych::testing
