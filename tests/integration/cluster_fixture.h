#pragma once

// A cluster of real processes, and questions with the answers that they must have.

#include <string>
#include <vector>

#include "base/rpc_security.h"
#include "services/cli/cluster_record.h"
#include "tests/support/process.h"
#include "triptych/v1/inference.pb.h"

namespace triptych::testing {

struct Question {
  std::string name;
  std::string expected;  // empty: any text
  v1::GenerateRequest request;
};

// The product's command.
std::string TriptychBinary();

// The whole file; requires that it can be read.
std::string ReadFile(const std::string& path);

// The four questions that ship with the product.
std::vector<Question> ExampleQuestions();
// Up to `limit` of the development questions beside the checkout; empty where there are none.
std::vector<Question> DevelopmentQuestions(size_t limit);
// Counts that keep a decoder busy: text questions whose answers are long, at most `tokens` each.
std::vector<Question> LongQuestions(size_t count, int tokens);

class Cluster {
 public:
  // Starts `triptych up` on free ports and requires that it gets ready. Its logs stay where a test
  // has failed.
  explicit Cluster(const std::string& workers, std::vector<std::string> more_flags = {});
  ~Cluster();

  const std::string& http() const { return http_; }
  const std::string& grpc() const { return grpc_; }
  const std::string& scheduler() const { return scheduler_; }
  // Who holds a certificate of this role.
  base::RpcSecurity SecurityAs(base::Role role) const;
  // The supervisor's own view.
  services::ClusterRecord Record() const;
  // Requires that there is such a process and that it runs.
  void Signal(const std::string& name, int signal_number) const;
  // The process runs and has been started again at least so often.
  bool WaitRestarted(const std::string& name, int64_t restarts) const;
  // Tasks of a worker in the eyes of the scheduler, now; -1 when it knows none of that name.
  int TasksOf(const std::string& name) const;
  int64_t QueuedRequests() const;
  // The value of a metric without labels; -1 when the process cannot be asked.
  double MetricOf(const std::string& name, const std::string& metric) const;
  // Sum over all processes, but for the one named `except`, of the metrics whose name begins with
  // triptych_held_.
  double HeldResources(const std::string& except = "") const;
  // Nothing is held from `timeout` after the call on.
  bool WaitFreed(base::Duration timeout, const std::string& except = "") const;
  // What each process holds, for a failed test to show.
  std::string HeldResourcesByName() const;
  bool Stop() { return process_.Terminate(std::chrono::seconds(15)); }

 private:
  std::string log_dir_;
  Process process_;
  std::string http_, grpc_, scheduler_;
};

// The process is stopped as long as this lives. Longer than --silent-after, and the cluster gives
// it up.
class Stopped {
 public:
  Stopped(const Cluster& cluster, std::string name);
  ~Stopped();

 private:
  const Cluster& cluster_;
  const std::string name_;
};

}  // namespace triptych::testing
