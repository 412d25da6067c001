#pragma once

// A cluster of real processes, and questions with the answers that they must have.

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "services/cli/cluster_record.h"
#include "tests/support/process.h"
#include "triptych/v1/inference.grpc.pb.h"

namespace triptych::testing {

struct Question {
  std::string name;
  std::string expected;  // empty: any text
  v1::GenerateRequest request;
};

// The whole file; requires that it can be read.
std::string ReadFile(const std::string& path);

// The four questions that ship with the product.
std::vector<Question> ExampleQuestions();
// Up to `limit` of the development questions beside the checkout; empty where there are none.
std::vector<Question> DevelopmentQuestions(size_t limit);
// Counts that keep a decoder busy: text questions whose answers are long, at most `tokens` each.
std::vector<Question> LongQuestions(size_t count, int tokens);

struct Reply {
  bool ok = false;
  std::string error;
  std::string text;
  std::vector<int32_t> tokens;
  v1::Finish finish = v1::FINISH_NONE;
  v1::Usage usage;
};

class Cluster {
 public:
  // Starts `triptych up` on free ports and requires that it gets ready.
  explicit Cluster(const std::string& workers, std::vector<std::string> more_flags = {});
  ~Cluster();

  const std::string& grpc() const { return grpc_; }
  const std::string& scheduler() const { return scheduler_; }
  // The supervisor's own view.
  services::ClusterRecord Record() const;
  // SIGKILL; requires that there is such a process and that it runs.
  void Kill(const std::string& name) const;
  // The process runs and has been started again at least so often.
  bool WaitRestarted(const std::string& name, int64_t restarts) const;
  // Sum over all processes of the metrics whose name begins with triptych_held_.
  double HeldResources() const;
  // What each process holds, for a failed test to show.
  std::string HeldResourcesByName() const;
  bool Stop() { return process_.Terminate(std::chrono::seconds(15)); }

 private:
  std::string log_dir_;
  Process process_;
  std::string grpc_, scheduler_;
};

// Blocks until the answer has ended.
Reply Ask(v1::Inference::Stub* stub, const v1::GenerateRequest& request);

// Asks `questions` over and over, `concurrency` at a time, on threads of its own.
class Load {
 public:
  Load(const std::string& grpc, std::vector<Question> questions, int concurrency);
  ~Load() { Finish(); }
  // Blocks until so many answers came in all; false after `timeout`.
  bool WaitAnswers(int count, base::Duration timeout) const;
  // Lets what runs end. Returns what went wrong, one line each; empty: nothing.
  std::vector<std::string> Finish();

 private:
  void Run();

  const std::vector<Question> questions_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> next_{0};
  std::atomic<int> answers_{0};
  base::Mutex mutex_;
  std::vector<std::string> faults_ ABSL_GUARDED_BY(mutex_);
  // The first text of each question without an expected answer: later ones must equal it.
  std::map<std::string, std::string> first_text_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;  // last: they use everything above
};

}  // namespace triptych::testing
