#include "services/scheduler/scheduler_service.h"

#include <utility>
#include <vector>

#include "base/rpc.h"
#include "base/status.h"
#include "services/convert/gateway_messages.h"
#include "services/convert/worker_messages.h"

namespace triptych::services {
namespace {

// Whatever a peer sends under another incarnation than its hello's is not its own.
absl::Status CheckSender(uint64_t known, const v1::Envelope& envelope) {
  if (envelope.sender_incarnation() == 0) {
    return absl::InvalidArgumentError("sender incarnation is missing");
  }
  if (known != 0 && known != envelope.sender_incarnation()) {
    return absl::FailedPreconditionError("sender incarnation has changed");
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ServerBidiReactor<v1::WorkerToSchedulerBatch, v1::SchedulerToWorkerBatch>*
SchedulerService::WorkerControl(grpc::CallbackServerContext*) {
  return SchedulerCore::WorkerStream::Open(
             [this](SchedulerCore::WorkerStream* stream, v1::WorkerToSchedulerBatch& batch) {
               const absl::Status status = OnWorkerBatch(stream, batch);
               if (status.ok()) return;
               log_->Error("worker refused", {}, {{"status", status.ToString()}});
               stream->Close(base::ToGrpc(status));
             },
             [this](SchedulerCore::WorkerStream* stream) { core_->PostClosed(stream); })
      .get();
}

grpc::ServerBidiReactor<v1::GatewayToSchedulerBatch, v1::SchedulerToGatewayBatch>*
SchedulerService::GatewayControl(grpc::CallbackServerContext*) {
  return SchedulerCore::GatewayStream::Open(
             [this](SchedulerCore::GatewayStream* stream, v1::GatewayToSchedulerBatch& batch) {
               const absl::Status status = OnGatewayBatch(stream, batch);
               if (status.ok()) return;
               log_->Error("gateway refused", {}, {{"status", status.ToString()}});
               stream->Close(base::ToGrpc(status));
             },
             [this](SchedulerCore::GatewayStream* stream) { core_->PostClosed(stream); })
      .get();
}

absl::Status SchedulerService::OnWorkerBatch(SchedulerCore::WorkerStream* stream,
                                             const v1::WorkerToSchedulerBatch& batch) {
  RETURN_IF_ERROR(CheckSender(stream->peer(), batch.envelope()));
  const scheduler::Incarnation peer(batch.envelope().sender_incarnation());
  std::vector<scheduler::WorkerToScheduler> messages;
  for (const v1::WorkerToScheduler& message : batch.messages()) {
    if (message.has_hello()) {
      ASSIGN_OR_RETURN(scheduler::WorkerHello hello, FromProto(message.hello()));
      hello.profile.incarnation = peer;
      if (stream->peer() == 0) stream->set_peer(peer.value());
      core_->PostWorkerHello(stream->shared(), std::move(hello));
      continue;
    }
    if (stream->peer() == 0) return absl::UnauthenticatedError("no hello");
    ASSIGN_OR_RETURN(scheduler::WorkerToScheduler plain, FromProto(message));
    messages.push_back(std::move(plain));
  }
  if (!messages.empty()) core_->PostWorkerMessages(stream->shared(), std::move(messages));
  return absl::OkStatus();
}

absl::Status SchedulerService::OnGatewayBatch(SchedulerCore::GatewayStream* stream,
                                              const v1::GatewayToSchedulerBatch& batch) {
  RETURN_IF_ERROR(CheckSender(stream->peer(), batch.envelope()));
  const scheduler::Incarnation peer(batch.envelope().sender_incarnation());
  std::vector<scheduler::GatewayToScheduler> messages;
  for (const v1::GatewayToScheduler& message : batch.messages()) {
    if (message.has_hello()) {
      ASSIGN_OR_RETURN(scheduler::GatewayHello hello, FromProto(message.hello(), peer));
      if (stream->peer() == 0) stream->set_peer(peer.value());
      core_->PostGatewayHello(stream->shared(), std::move(hello));
      continue;
    }
    if (stream->peer() == 0) return absl::UnauthenticatedError("no hello");
    ASSIGN_OR_RETURN(scheduler::GatewayToScheduler plain, FromProto(message));
    messages.push_back(std::move(plain));
  }
  if (!messages.empty()) core_->PostGatewayMessages(stream->shared(), std::move(messages));
  return absl::OkStatus();
}

}  // namespace triptych::services
