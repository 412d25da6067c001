#pragma once

// Clients that stay: they ask, read to the end, and compare every answer.

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "tests/integration/cluster_fixture.h"
#include "triptych/v1/inference.grpc.pb.h"

namespace triptych::testing {

struct Reply {
  bool ok = false;
  std::string error;
  std::string text;
  std::vector<int32_t> tokens;
  v1::Finish finish = v1::FINISH_NONE;
  v1::Usage usage;
};

// Blocks until the answer has ended. `on_tokens` gets the number of tokens that have come, each
// time that it has grown; may be empty.
Reply Ask(v1::Inference::Stub* stub, const v1::GenerateRequest& request,
          const std::function<void(int)>& on_tokens = {});

// Where a request is, as its client sees it.
enum class Phase { kBeforeFirstToken, kAfterFirstToken, kAfterManyTokens };
constexpr int kManyTokens = 20;

// Asks `questions` over and over, `concurrency` at a time, on threads of its own.
class Load {
 public:
  Load(const std::string& grpc, std::vector<Question> questions, int concurrency);
  ~Load() { Finish(); }
  int answers() const { return answers_.load(); }
  // Blocks until so many answers came in all; false after `timeout`.
  bool WaitAnswers(int count, base::Duration timeout) const;
  // Blocks until everybody's request of this moment has ended; false after `timeout`.
  bool WaitOneEach(base::Duration timeout);
  // Requests that are in this phase now.
  int CountIn(Phase phase);
  // Lets what runs end. Returns what went wrong, one line each; empty: nothing.
  std::vector<std::string> Finish();

 private:
  void Run(size_t asker);
  void Note(size_t asker, int tokens);
  void Judge(const Question& question, const Reply& reply);

  const std::vector<Question> questions_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> next_{0};
  std::atomic<int> answers_{0};
  base::Mutex mutex_;
  // By asker: tokens that its request has brought; -1 between two requests.
  std::vector<int> tokens_ ABSL_GUARDED_BY(mutex_);
  std::vector<int> ended_ ABSL_GUARDED_BY(mutex_);  // by asker: its requests so far
  std::vector<std::string> faults_ ABSL_GUARDED_BY(mutex_);
  // The first text of each question without an expected answer: later ones must equal it.
  std::map<std::string, std::string> first_text_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;  // last: they use everything above
};

}  // namespace triptych::testing
