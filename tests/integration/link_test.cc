// Defends that a link between two living workers may be cut for good: what was to go over it goes
// on elsewhere within 3 s, nobody is given up, nobody else notices, and nothing stays held for it.

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/certificates.h"
#include "base/rpc.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/load.h"
#include "tests/support/eventually.h"
#include "tests/support/process.h"
#include "tests/support/tcp_proxy.h"

namespace triptych::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr base::Duration kPatience = kSlowdown * std::chrono::minutes(1);

// A decode worker beside the supervised cluster, which other workers reach through the proxy alone.
std::vector<std::string> FarWorker(const Cluster& cluster, int port, const std::string& address) {
  const base::TlsFiles tls = base::TlsFilesIn(cluster.Record().tls, base::Role::kWorker);
  const std::string binary = TriptychBinary();
  return {absl::StrCat(binary.substr(0, binary.rfind('/')), "/triptych-worker"),
          "--name=far",
          "--roles=decode",
          "--model=assets/triptych-16m",
          "--threads=1",
          absl::StrCat("--scheduler=", cluster.scheduler()),
          absl::StrCat("--listen=127.0.0.1:", port),
          absl::StrCat("--advertise=", address),
          absl::StrCat("--tls-ca=", tls.ca),
          absl::StrCat("--tls-cert=", tls.cert),
          absl::StrCat("--tls-key=", tls.key)};
}

// Clients that note the longest time that one of them has waited for its next token.
class Waiters {
 public:
  Waiters(const std::string& grpc, const std::vector<Question>& questions, int count)
      : stub_(v1::Inference::NewStub(base::ConnectAsClient(grpc))) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this, question = questions[i % questions.size()]] { Run(question); });
    }
  }
  ~Waiters() { Stop(); }
  void Stop() {
    stopping_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  // Since the last call.
  base::Duration Longest() { return base::Duration(longest_.exchange(0)); }
  int answers() const { return answers_; }
  int faults() const { return faults_; }

 private:
  void Run(const Question& question) {
    std::string first;
    while (!stopping_) {
      base::TimePoint last = clock_.Now();
      const Reply reply = Ask(stub_.get(), question.request, [&](int) {
        const base::TimePoint now = clock_.Now();
        int64_t longest = longest_;
        while (longest < (now - last).count() &&
               !longest_.compare_exchange_weak(longest, (now - last).count())) {
        }
        last = now;
      });
      if (first.empty()) first = reply.text;
      if (!reply.ok || reply.text != first) ++faults_;
      ++answers_;
    }
  }

  const base::RealClock clock_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> answers_{0}, faults_{0};
  std::atomic<int64_t> longest_{0};
  std::vector<std::thread> threads_;
};

TEST_CASE("Link: cut for good between two living workers, work goes on elsewhere within 3 s",
          "[integration][slow][serial]") {
  const bool both = GENERATE(false, true);
  CAPTURE(both);
  const int port = FreePort();
  TcpProxy proxy(port);
  Cluster cluster("encode=1,prefill=1,decode=1");
  Process far(FarWorker(cluster, port, proxy.address()), "/dev/null");
  REQUIRE(Eventually(kPatience, [&] { return cluster.TasksOf("far") == 0; }));
  Waiters waiters(cluster.grpc(), LongQuestions(6, 60), 6);
  REQUIRE(Eventually(kPatience, [&] { return waiters.answers() >= 12; }));
  REQUIRE(Eventually(kPatience, [&] { return cluster.TasksOf("far") > 0; }));
  waiters.Longest();
  const int before = waiters.answers();
  REQUIRE(Eventually(kPatience, [&] { return waiters.answers() >= before + 12; }));
  const base::Duration undisturbed = waiters.Longest();

  proxy.Hold(TcpProxy::Direction::kToTarget, true);
  if (both) proxy.Hold(TcpProxy::Direction::kFromTarget, true);
  const int cut = waiters.answers();
  WaitAMoment(seconds(10));  // the pair is tried again after 2 s, and 4 later
  CHECK(waiters.answers() >= cut + 24);
  waiters.Stop();
  const base::Duration longest = waiters.Longest();
  WARN("longest wait for a token: " << longest / milliseconds(1) << " ms, undisturbed "
                                    << undisturbed / milliseconds(1) << " ms");
  CHECK(longest > seconds(1));  // somebody was on the way
  CHECK(longest < kSlowdown * seconds(3) + undisturbed);
  CHECK(waiters.faults() == 0);
  CHECK(cluster.MetricOf("scheduler", "triptych_request_restarts_total") == 0);
  CHECK(cluster.MetricOf("scheduler", "triptych_workers_lost_total") == 0);
  // What the transport still reads goes with its connection, which keepalives end in 10 s.
  const bool at_rest = cluster.WaitFreed(kSlowdown * seconds(20));
  INFO(cluster.HeldResourcesByName());
  CHECK(at_rest);
  CHECK(far.Terminate(seconds(15)));
}

}  // namespace
}  // namespace triptych::testing
