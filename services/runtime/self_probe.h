#pragma once

// Asks the process's own gRPC ports once a second, each time by a new connection, whether they
// still answer: a server that accepts no more looks healthy from within. One thread of its own.

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/rpc.h"

namespace triptych::services {

// For a port of this process itself: whatever certificate it shows.
std::shared_ptr<grpc::ChannelCredentials> BelieveAnybody();

class SelfProbe {
 public:
  // A server of this process, as a client would reach it.
  struct Port {
    std::string address;
    std::shared_ptr<grpc::ChannelCredentials> credentials;
  };
  // Borrows `clock`.
  explicit SelfProbe(const base::Clock& clock) : clock_(clock) {}
  ~SelfProbe();
  // Once. The ports count as answering until they have failed three times in a row.
  void Start(std::vector<Port> ports);

  bool answers() const { return answers_.load(); }

 private:
  static constexpr base::Duration kEvery = std::chrono::seconds(1);
  static constexpr base::Duration kTimeout = std::chrono::seconds(1);
  static constexpr int kFailures = 3;

  void Run();

  std::vector<Port> ports_;  // of the thread, once it runs
  const base::Clock& clock_;
  std::atomic<bool> answers_{true};
  base::Mutex mutex_;
  base::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace triptych::services
