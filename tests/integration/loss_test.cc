// Defends that nobody notices a death: under load a process is killed with SIGKILL, every request
// still succeeds, and its text is that of an undisturbed run.

#include <catch2/catch.hpp>

#include "absl/strings/str_join.h"
#include "tests/integration/cluster_fixture.h"

namespace triptych::testing {
namespace {

constexpr base::Duration kPatience = std::chrono::minutes(1);

// Kills `victim` three times while the example questions and long answers are under way.
void KillUnderLoad(const std::string& workers, const std::string& victim) {
  Cluster cluster(workers);
  std::vector<Question> questions = ExampleQuestions();
  for (Question& question : LongQuestions(4, 200)) questions.push_back(std::move(question));
  Load load(cluster.grpc(), questions, 4);
  // All questions once: the texts of the undisturbed run.
  REQUIRE(load.WaitAnswers(static_cast<int>(2 * questions.size()), kPatience));
  for (int kills = 1; kills <= 3; ++kills) {
    cluster.Kill(victim);
    REQUIRE(cluster.WaitRestarted(victim, kills));
    REQUIRE(load.WaitAnswers(static_cast<int>((2 + kills) * questions.size()), kPatience));
  }
  const std::vector<std::string> faults = load.Finish();
  INFO(absl::StrJoin(faults, "\n"));
  CHECK(faults.empty());
  const bool at_rest =
      Eventually(std::chrono::seconds(5), [&] { return cluster.HeldResources() == 0; });
  INFO(cluster.HeldResourcesByName());
  CHECK(at_rest);
}

TEST_CASE("Loss: killed encode workers change no answer", "[integration][slow][serial]") {
  KillUnderLoad("encode=2,prefill=1,decode=1", "encode-0");
}

TEST_CASE("Loss: killed prefill workers change no answer", "[integration][slow][serial]") {
  KillUnderLoad("encode=1,prefill=2,decode=1", "prefill-0");
}

TEST_CASE("Loss: killed decode workers change no answer", "[integration][slow][serial]") {
  KillUnderLoad("encode=1,prefill=1,decode=2", "decode-0");
}

TEST_CASE("Loss: the only worker of a stage may die", "[integration][slow][serial]") {
  KillUnderLoad("encode=1,prefill=1,decode=1", "decode-0");
}

TEST_CASE("Loss: a killed scheduler changes no answer", "[integration][slow][serial]") {
  KillUnderLoad("encode=1,prefill=1,decode=1", "scheduler");
}

}  // namespace
}  // namespace triptych::testing
