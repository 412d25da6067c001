// Defended: whatever is lost, repeated, delayed, broken or cancelled, each input that both sides
// keep wanting is received exactly once, and all memory comes back. How: random schedules from a
// seed that is printed; the channel keeps the order of one connection and loses all that is on it
// when it breaks.

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>

#include "base/random.h"
#include "tests/scheduler/transfer/pair.h"

namespace triptych::scheduler::testing {
namespace {

struct Job {
  TransferKey key;
  int32_t tokens = 0;
  int32_t staged = 0;
  int32_t pieces = 0;
  bool cancelled = false;
  bool forgotten = false;
};

class RandomTransfers {
 public:
  explicit RandomTransfers(uint64_t seed) : random_(seed), pair_(400, 300) {}

  void Run() {
    for (int step = 0; step < 1500; ++step) Step(/*faults=*/true);
    // The faults are over: everything ends within a bound.
    for (int step = 0; step < 200; ++step) {
      for (size_t i = 0; i < jobs_.size(); ++i) StageSome(jobs_[i]);
      FinishExports();
      pair_.Settle();
      pair_.Wait(std::chrono::milliseconds(200));
    }
    for (const Job& job : jobs_) Check(job);
    REQUIRE(pair_.aborts == 0);
    INFO("staged " << pair_.sender.staged_bytes() << " landing " << pair_.receiver.landing_bytes()
                   << " transfers " << pair_.sender.num_transfers() << " sends "
                   << pair_.sends.size() << " receives " << pair_.receives.size());
    REQUIRE(pair_.AtRest());
    REQUIRE(pair_.sender.num_transfers() == 0);
  }

 private:
  struct Export {
    TransferKey key;
    int32_t index = 0, begin = 0, end = 0;
    bool last = false;
    PieceBuffer buffer;
  };

  void Step(bool faults) {
    switch (random_.Below(12)) {
      case 0:
        if (jobs_.size() < 30) Begin();
        break;
      case 1:
      case 2:
        if (!jobs_.empty()) StageSome(jobs_[random_.Below(jobs_.size())]);
        break;
      case 3:
        FinishExports();
        break;
      case 4:
      case 5:
        pair_.CarryToReceiver();
        break;
      case 6:
      case 7:
        pair_.CarryToSender();
        break;
      case 8:
        pair_.MovePiece();
        break;
      case 9:
        pair_.ImportAll();
        break;
      case 10:
        pair_.Wait(std::chrono::milliseconds(random_.Between(1, 300)));
        break;
      case 11:
        if (faults) Fault();
        break;
    }
  }

  void Begin() {
    const uint64_t n = 10 + 2 * jobs_.size();
    Job job{.key = Key(n, n + 1, random_.Chance(0.5) ? 0 : -1),
            .tokens = static_cast<int32_t>(random_.Between(1, 40))};
    if (random_.Chance(0.5)) {
      pair_.Expect(job.key, job.tokens);
      pair_.Offer(job.key, job.tokens);
    } else {
      pair_.Offer(job.key, job.tokens);
      pair_.Expect(job.key, job.tokens);
    }
    jobs_.push_back(job);
  }

  void StageSome(Job& job) {
    const bool granted = std::count(pair_.granted.begin(), pair_.granted.end(), job.key) > 0;
    if (!granted || job.cancelled || job.staged == job.tokens) return;
    const auto count = static_cast<int32_t>(random_.Between(1, job.tokens - job.staged));
    PieceBuffer buffer;
    if (!pair_.Reserve(job.key, count, &buffer)) return;
    const int32_t end = job.staged + count;
    exports_.push_back({job.key, job.pieces++, job.staged, end, end == job.tokens, buffer});
    job.staged = end;
  }

  void FinishExports() {
    for (const Export& e : std::exchange(exports_, {})) {
      pair_.Staged(e.key, e.index, e.begin, e.end, e.last, e.buffer);
    }
  }

  void Fault() {
    switch (random_.Below(7)) {
      case 0:
        pair_.to_receiver.clear();
        break;  // the producer's stream breaks
      case 1:
        pair_.to_sender.clear();
        break;
      case 2:
        if (!pair_.to_receiver.empty()) pair_.to_receiver.push_front(pair_.to_receiver.front());
        break;
      case 3:
        if (!pair_.to_sender.empty()) pair_.to_sender.push_front(pair_.to_sender.front());
        break;
      case 4:
        if (random_.Chance(0.5)) {
          pair_.MovePiece(absl::OkStatus(), 1);
        } else {
          pair_.MovePiece(absl::UnavailableError("reset"));
        }
        break;
      case 5:
        CancelOne();
        break;
      case 6:
        ForgetOne();
        break;
    }
  }
  void CancelOne() {
    if (jobs_.empty() || !random_.Chance(0.3)) return;
    Job& job = jobs_[random_.Below(jobs_.size())];
    job.cancelled = true;
    pair_.sender.Cancel(job.key, pair_.clock.Now());
    pair_.Collect();
  }
  void ForgetOne() {
    if (jobs_.empty() || !random_.Chance(0.3)) return;
    Job& job = jobs_[random_.Below(jobs_.size())];
    job.forgotten = true;
    pair_.receiver.Forget(job.key.consumer, pair_.clock.Now());
    pair_.Collect();
  }

  void Check(const Job& job) {
    const auto received =
        std::count_if(pair_.received.begin(), pair_.received.end(),
                      [&](const auto& r) { return r.consumer == job.key.consumer; });
    const auto failed = std::count_if(pair_.failed.begin(), pair_.failed.end(),
                                      [&](const auto& f) { return f.key == job.key; });
    const auto delivered = std::count(pair_.delivered.begin(), pair_.delivered.end(), job.key);
    INFO("producer " << job.key.producer.number);
    REQUIRE(received <= 1);
    REQUIRE(failed + delivered <= 1);
    if (job.cancelled || job.forgotten || failed > 0) return;
    REQUIRE(received == 1);
    REQUIRE(delivered == 1);
  }

  base::SeededRandom random_;
  Pair pair_;
  std::vector<Job> jobs_;
  std::vector<Export> exports_;
};

TEST_CASE("Transfer: random faults lose nothing, repeat nothing and leak nothing",
          "[scheduler][transfer]") {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    INFO("seed " << seed);
    RandomTransfers(seed).Run();
  }
}

}  // namespace
}  // namespace triptych::scheduler::testing
