#pragma once

// The gateway's control stream to the scheduler: hello, what the core sends, what it hears.

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/types/span.h"
#include "base/clock.h"
#include "scheduler/plan/gateway_messages.h"
#include "services/gateway/core/gateway_core.h"

namespace triptych::services {

// What a hello says of this process.
struct GatewayIdentity {
  std::string name;
  std::string address;  // of the services for workers
  std::string admin;
  scheduler::PassKey pass_key;  // of the tasks of its requests
};

// Thread-safe. Connects, and connects again, for as long as it lives.
class SchedulerLink {
 public:
  // `scheduler` is the channel to it. `core` and `clock` are borrowed; the core must be running,
  // and must have stopped when this ends. `changed` is called on the core's thread when ready() may
  // have changed; it must not block.
  SchedulerLink(std::shared_ptr<grpc::Channel> scheduler, GatewayIdentity identity,
                GatewayCore* core, const base::Clock& clock, std::function<void()> changed);
  ~SchedulerLink();

  // Lost when no scheduler is connected.
  void Send(absl::Span<const scheduler::GatewayToScheduler> messages);
  // A scheduler is connected and has workers for every stage of the model.
  bool ready() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace triptych::services
