#pragma once

// A control service on a real server whose answers a test writes, and a log of events that tests
// wait on.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "services/runtime/client_stream.h"
#include "services/runtime/rpc_server.h"
#include "services/runtime/server_stream.h"
#include "triptych/v1/scheduler.grpc.pb.h"

namespace triptych::services::testing {

using ClientEnd = ClientStream<v1::WorkerToSchedulerBatch, v1::SchedulerToWorkerBatch>;
using ServerEnd = ServerStream<v1::WorkerToSchedulerBatch, v1::SchedulerToWorkerBatch>;

// Values that other threads add, and that a test waits for.
template <typename T>
class Inbox {
 public:
  void Add(T value) {
    std::lock_guard<std::mutex> lock(mutex_);
    values_.push_back(std::move(value));
    changed_.notify_all();
  }
  // False after ten seconds.
  bool WaitForCount(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_until(lock, base::RealClock().Now() + std::chrono::seconds(10),
                               [&] { return values_.size() >= count; });
  }
  std::vector<T> values() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return values_;
  }
  // Requires that there are more than `index`.
  T At(size_t index) const {
    std::lock_guard<std::mutex> lock(mutex_);
    return values_.at(index);
  }
  size_t size() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return values_.size();
  }
  T last() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return values_.back();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<T> values_;
};

class ScriptedScheduler final : public v1::Scheduler::CallbackService {
 public:
  using OnBatch = std::function<void(ServerEnd*, v1::WorkerToSchedulerBatch&)>;
  // Called from gRPC's threads.
  explicit ScriptedScheduler(OnBatch on_batch) : on_batch_(std::move(on_batch)) {}

  grpc::ServerBidiReactor<v1::WorkerToSchedulerBatch, v1::SchedulerToWorkerBatch>* WorkerControl(
      grpc::CallbackServerContext*) override {
    auto stream = ServerEnd::Open(on_batch_, [this](ServerEnd*) { closed.Add(1); });
    opened.Add(1);
    return stream.get();
  }

  Inbox<int> opened, closed;

 private:
  const OnBatch on_batch_;
};

// The service on its server.
class SchedulerServer {
 public:
  explicit SchedulerServer(ScriptedScheduler::OnBatch on_batch,
                           const std::string& address = "127.0.0.1:0")
      : service(std::move(on_batch)),
        server(*RpcServer::Start(address, base::RpcAudience::kInternal,
                                 grpc::InsecureServerCredentials(), {&service})) {}

  std::string address() const { return server->address(); }

  ScriptedScheduler service;
  std::unique_ptr<RpcServer> server;
};

inline v1::WorkerToScheduler Accepted(uint64_t number) {
  v1::WorkerToScheduler message;
  message.mutable_accepted()->mutable_task()->set_number(number);
  return message;
}
inline v1::SchedulerToWorker Release(uint64_t number) {
  v1::SchedulerToWorker message;
  message.mutable_release_task()->mutable_task()->set_number(number);
  return message;
}

}  // namespace triptych::services::testing
