#pragma once

// The scheduler's gRPC face: control streams and the Cluster service. It checks envelopes,
// converts, and posts to the core.

#include "base/log.h"
#include "services/scheduler/scheduler_core.h"
#include "triptych/v1/cluster.grpc.pb.h"
#include "triptych/v1/scheduler.grpc.pb.h"

namespace triptych::services {

class SchedulerService final : public v1::Scheduler::CallbackService {
 public:
  // Borrows both; they outlive the server.
  SchedulerService(SchedulerCore* core, base::Logger* log) : core_(core), log_(log) {}

  grpc::ServerBidiReactor<v1::WorkerToSchedulerBatch, v1::SchedulerToWorkerBatch>* WorkerControl(
      grpc::CallbackServerContext*) override;
  grpc::ServerBidiReactor<v1::GatewayToSchedulerBatch, v1::SchedulerToGatewayBatch>* GatewayControl(
      grpc::CallbackServerContext*) override;

 private:
  absl::Status OnWorkerBatch(SchedulerCore::WorkerStream* stream,
                             const v1::WorkerToSchedulerBatch& batch);
  absl::Status OnGatewayBatch(SchedulerCore::GatewayStream* stream,
                              const v1::GatewayToSchedulerBatch& batch);

  SchedulerCore* const core_;
  base::Logger* const log_;
};

class ClusterService final : public v1::Cluster::CallbackService {
 public:
  struct Self {
    std::string name;
    std::string admin;
    int64_t pid = 0;
  };
  ClusterService(SchedulerCore* core, Self self) : core_(core), self_(std::move(self)) {}
  void set_admin(std::string admin) { self_.admin = std::move(admin); }

  grpc::ServerUnaryReactor* GetSnapshot(grpc::CallbackServerContext* context,
                                        const v1::GetSnapshotRequest* request,
                                        v1::ClusterSnapshot* response) override;
  grpc::ServerWriteReactor<v1::ClusterSnapshot>* Watch(grpc::CallbackServerContext* context,
                                                       const v1::WatchRequest* request) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;

 private:
  class WatchStream;
  SchedulerCore* const core_;
  Self self_;
};

}  // namespace triptych::services
