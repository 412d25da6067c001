#pragma once

// A worker's transports, put together as its device and its flags say: gRPC alone over host memory;
// or cuda_ipc beside gRPC, which then bounces a device's memory over pinned memory of the host.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rpc_security.h"
#include "engine/executor.h"
#include "services/worker/path_pairing.h"
#include "services/worker/worker_options.h"
#include "transport/grpc/grpc_transport.h"

namespace triptych::services {

class WorkerTransports {
 public:
  struct Parts {
    const base::Clock& clock;
    base::Logger& log;
    base::Registry& registry;
  };
  virtual ~WorkerTransports() = default;

  // What the worker's loop posts to.
  virtual transport::Transport& transport() = 0;
  virtual transport::GrpcTransport& grpc() = 0;
  // Null where gRPC is all there is.
  virtual PathPairing* pairing() = 0;

  // Borrows the parts and `regions`. Errors: what --transfer-path=cuda_ipc asks for cannot be had.
  static absl::StatusOr<std::unique_ptr<WorkerTransports>> Open(
      const WorkerOptions& options, scheduler::Incarnation self, const base::RpcSecurity& security,
      const engine::TransferRegions& regions, Parts parts);
};

}  // namespace triptych::services
