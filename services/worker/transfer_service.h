#pragma once

// What a worker serves to workers: handshakes go to its loop, bytes to its transport.

#include "services/worker/grpc_links.h"
#include "services/worker/worker_loop.h"
#include "transport/grpc/grpc_transport.h"
#include "triptych/v1/transfer.grpc.pb.h"

namespace triptych::services {

class TransferService final : public v1::Transfer::CallbackService {
 public:
  // Borrows all; they outlive the server.
  TransferService(scheduler::Incarnation self, transport::GrpcTransport* transport,
                  GrpcLinks* links, WorkerLoop* loop)
      : self_(self), transport_(transport), links_(links), loop_(loop) {}

  // Ends with FAILED_PRECONDITION when the envelope means another incarnation, INVALID_ARGUMENT
  // when a message is malformed.
  grpc::ServerBidiReactor<v1::TransferMessageBatch, v1::HandshakeClosed>* Handshake(
      grpc::CallbackServerContext*) override;
  grpc::ServerBidiReactor<v1::MoveChunk, v1::MoveClosed>* Move(
      grpc::CallbackServerContext*) override {
    return transport_->Move();
  }

 private:
  class HandshakeStream;
  absl::Status Take(const v1::TransferMessageBatch& batch);

  const scheduler::Incarnation self_;
  transport::GrpcTransport* const transport_;
  GrpcLinks* const links_;
  WorkerLoop* const loop_;
};

}  // namespace triptych::services
