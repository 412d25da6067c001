#pragma once

// The server's end of a long-lived, batched, bidirectional stream. Send from any thread; callbacks
// come from gRPC's threads and must not block.

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <utility>

#include "services/runtime/batch_writer.h"

namespace triptych::services {

template <typename In, typename Out>
class ServerStream final : public grpc::ServerBidiReactor<In, Out> {
 public:
  using Message = typename BatchWriter<Out>::Message;
  using OnBatch = std::function<void(ServerStream*, In&)>;
  // The last callback. The stream frees itself after it.
  using OnClosed = std::function<void(ServerStream*)>;

  // The stream owns itself until it is closed; return its raw pointer to gRPC.
  static std::shared_ptr<ServerStream> Open(OnBatch on_batch, OnClosed on_closed) {
    auto stream =
        std::shared_ptr<ServerStream>(new ServerStream(std::move(on_batch), std::move(on_closed)));
    stream->self_ = stream;
    stream->StartRead(&stream->in_);
    return stream;
  }

  // False when the stream is over or its peer is too slow: then it is being closed.
  bool Send(Message message) {
    const bool taken = Enqueue(std::move(message));
    Flush();
    return taken;
  }

  // As Send, but the message stays until the next Send or Flush: for a burst that should leave as
  // one batch.
  bool Enqueue(Message message) {
    const Added added = writer_.Add(std::move(message));
    if (added == Added::kFull) {
      Close(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "peer reads too slowly"));
    }
    return added == Added::kYes;
  }
  void Flush() { writer_.Flush(); }

  void set_envelope(v1::Envelope envelope) { writer_.set_envelope(std::move(envelope)); }

  // Ends the stream with `status`; on_closed still comes. Later calls change nothing.
  void Close(grpc::Status status) {
    writer_.Close([&] { this->Finish(std::move(status)); });
  }

  // For the owner's free use from on_batch: the peer's incarnation, once it has said hello.
  uint64_t peer() const { return peer_; }
  void set_peer(uint64_t peer) { peer_ = peer; }
  std::shared_ptr<ServerStream> shared() { return self_; }

  void OnReadDone(bool ok) override {
    if (ok) {
      on_batch_(this, in_);
      this->StartRead(&in_);
      return;
    }
    Close(grpc::Status::OK);
  }

  void OnWriteDone(bool ok) override { writer_.OnWritten(ok); }

  void OnCancel() override { Close(grpc::Status::CANCELLED); }

  void OnDone() override {
    on_closed_(this);
    self_.reset();
  }

 private:
  using Added = typename BatchWriter<Out>::Added;

  ServerStream(OnBatch on_batch, OnClosed on_closed)
      : on_batch_(std::move(on_batch)), on_closed_(std::move(on_closed)) {}

  const OnBatch on_batch_;
  const OnClosed on_closed_;
  In in_;
  uint64_t peer_ = 0;
  // Shared with gRPC: until OnDone the library holds a raw pointer.
  std::shared_ptr<ServerStream> self_;
  BatchWriter<Out> writer_{[this](const Out* batch) { this->StartWrite(batch); }};
};

}  // namespace triptych::services
