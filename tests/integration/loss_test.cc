// Defends that nobody notices a death: a process is killed with SIGKILL while it holds work and
// while clients are at a known point of their answers; every request still succeeds, and its text
// is that of an undisturbed run.

#include <signal.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <thread>

#include "absl/strings/str_join.h"
#include "base/rpc.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/load.h"
#include "tests/support/eventually.h"

namespace triptych::testing {
namespace {

constexpr base::Duration kPatience = kSlowdown * std::chrono::minutes(1);
constexpr int kAskers = 8 / kSlowdown;
constexpr Phase kPhases[] = {Phase::kBeforeFirstToken, Phase::kAfterFirstToken,
                             Phase::kAfterManyTokens};

// Long answers keep decode workers busy, the pictures between them the others.
std::vector<Question> Questions() {
  std::vector<Question> questions;
  for (Question& question : LongQuestions(4, 100)) {
    for (Question& picture : ExampleQuestions()) questions.push_back(std::move(picture));
    questions.push_back(std::move(question));
  }
  return questions;
}

// Stops the process, looks, and kills it if it holds a task while some request of the load is in
// `phase`; otherwise lets it go on. So what was seen is what was killed.
bool KillIfBusy(const Cluster& cluster, Load* load, const std::string& victim, Phase phase) {
  cluster.Signal(victim, SIGSTOP);
  const bool busy = cluster.TasksOf(victim) > 0 && load->CountIn(phase) > 0;
  cluster.Signal(victim, busy ? SIGKILL : SIGCONT);
  return busy;
}

void CheckNobodyNoticed(const Cluster& cluster, Load* load) {
  const std::vector<std::string> faults = load->Finish();
  INFO(absl::StrJoin(faults, "\n"));
  CHECK(faults.empty());
  const bool at_rest = cluster.WaitFreed(kSlowdown * std::chrono::seconds(5));
  INFO(cluster.HeldResourcesByName());
  CHECK(at_rest);
}

// Kills twice in each phase. The victims take turns, in an order that is drawn anew each turn. No
// request lives through two kills: one that loses three workers ends, as it should.
void KillWorkers(const std::string& workers, std::vector<std::string> victims, unsigned seed) {
  INFO("seed " << seed);
  std::mt19937 random(seed);
  // Where the only worker of a role dies, a loaded machine may take long to start it again.
  Cluster cluster(workers, {"--scheduler-flags=--role-grace=60s"});
  const std::vector<Question> questions = Questions();
  Load load(cluster.grpc(), questions, kAskers);
  // Each question at least once: the texts of the undisturbed run.
  REQUIRE(load.WaitAnswers(static_cast<int>(questions.size()) + kAskers, kPatience));
  std::map<std::string, int64_t> kills;
  for (size_t i = 0; i < 6; ++i) {
    const size_t turn = i % victims.size();
    if (turn == 0) std::shuffle(victims.begin(), victims.end(), random);
    const std::string& victim = victims[turn];
    const Phase phase = kPhases[i % 3];
    INFO("kill " << victim << " in phase " << static_cast<int>(phase));
    REQUIRE(Eventually(kPatience, [&] { return KillIfBusy(cluster, &load, victim, phase); }));
    REQUIRE(cluster.WaitRestarted(victim, ++kills[victim]));
    REQUIRE(load.WaitOneEach(kPatience));
  }
  CheckNobodyNoticed(cluster, &load);
}

TEST_CASE("Loss: killed encode workers change no answer", "[integration][slow][serial]") {
  KillWorkers("encode=2,prefill=1,decode=1", {"encode-0", "encode-1"}, 1);
}

TEST_CASE("Loss: killed prefill workers change no answer", "[integration][slow][serial]") {
  KillWorkers("encode=1,prefill=2,decode=1", {"prefill-0", "prefill-1"}, 2);
}

TEST_CASE("Loss: killed decode workers change no answer", "[integration][slow][serial]") {
  KillWorkers("encode=1,prefill=1,decode=2", {"decode-0", "decode-1"}, 3);
}

TEST_CASE("Loss: the only worker of a stage may die", "[integration][slow][serial]") {
  KillWorkers("encode=1,prefill=1,decode=1", {"encode-0", "prefill-0", "decode-0"}, 4);
}

TEST_CASE("Loss: killed workers that run every stage change no answer",
          "[integration][slow][serial]") {
  KillWorkers("encode+prefill+decode=2", {"encode+prefill+decode-0", "encode+prefill+decode-1"}, 5);
}

// A request that is sent now, on a thread of its own.
class Newcomer {
 public:
  Newcomer(const std::string& grpc, const v1::GenerateRequest& request)
      : stub_(v1::Inference::NewStub(base::ConnectAsClient(grpc))), thread_([this, request] {
          const Reply reply = Ask(stub_.get(), request, [this](int) { NoteToken(); });
          base::MutexLock lock(&mutex_);
          reply_ = reply;
        }) {}
  ~Newcomer() {
    if (thread_.joinable()) thread_.join();
  }

  bool WaitFirstToken(base::Duration timeout) {
    const base::TimePoint until = base::RealClock().Now() + timeout;
    base::MutexLock lock(&mutex_);
    while (!has_token_ && changed_.WaitUntil(&mutex_, until)) {
    }
    return has_token_;
  }
  Reply Finish() {
    thread_.join();
    base::MutexLock lock(&mutex_);
    return reply_;
  }

 private:
  void NoteToken() {
    base::MutexLock lock(&mutex_);
    has_token_ = true;
    changed_.NotifyAll();
  }

  std::unique_ptr<v1::Inference::Stub> stub_;
  base::Mutex mutex_;
  base::CondVar changed_;
  bool has_token_ ABSL_GUARDED_BY(mutex_) = false;
  Reply reply_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses everything above
};

TEST_CASE("Loss: a killed scheduler changes no answer, and the next serves newcomers within 5 s",
          "[integration][slow][serial]") {
  Cluster cluster("encode=1,prefill=1,decode=1");
  const std::vector<Question> questions = Questions();
  const Question picture = ExampleQuestions().front();
  Load load(cluster.grpc(), questions, kAskers);
  REQUIRE(load.WaitAnswers(static_cast<int>(questions.size()) + kAskers, kPatience));
  int64_t kills = 0;
  for (Phase phase : kPhases) {
    INFO("phase " << static_cast<int>(phase));
    REQUIRE(Eventually(kPatience, [&] { return load.CountIn(phase) > 0; }));
    cluster.Signal("scheduler", SIGKILL);
    // Sent when nobody is there to place it; the bound is what is promised for a new scheduler.
    Newcomer newcomer(cluster.grpc(), picture.request);
    CHECK(newcomer.WaitFirstToken(kSlowdown * std::chrono::seconds(5)));
    const Reply reply = newcomer.Finish();
    INFO(reply.error);
    CHECK(reply.ok);
    CHECK(reply.text == picture.expected);
    REQUIRE(cluster.WaitRestarted("scheduler", ++kills));
    REQUIRE(load.WaitOneEach(kPatience));
  }
  CheckNobodyNoticed(cluster, &load);
}

}  // namespace
}  // namespace triptych::testing
