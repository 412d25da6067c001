#pragma once

// The client's end of a long-lived, batched, bidirectional stream. Send from any thread; callbacks
// come from gRPC's threads and must not block.

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_callback.h>

#include <functional>
#include <memory>
#include <utility>

#include "services/runtime/batch_writer.h"

namespace triptych::services {

template <typename Out, typename In>
class ClientStream final : public grpc::ClientBidiReactor<Out, In> {
 public:
  using Message = typename BatchWriter<Out>::Message;
  using OnBatch = std::function<void(In&)>;
  // The last callback. The stream has let go of itself before it.
  using OnClosed = std::function<void(const grpc::Status&)>;
  // Binds the reactor to a method: [&](grpc::ClientContext* c, auto* r) { stub.async()->X(c, r); }.
  using Start = std::function<void(grpc::ClientContext*, grpc::ClientBidiReactor<Out, In>*)>;

  // The stream owns itself until it is closed; the caller's pointer may outlive that.
  static std::shared_ptr<ClientStream> Open(const Start& start, v1::Envelope envelope,
                                            OnBatch on_batch, OnClosed on_closed) {
    auto stream =
        std::shared_ptr<ClientStream>(new ClientStream(std::move(on_batch), std::move(on_closed)));
    stream->writer_.set_envelope(std::move(envelope));
    stream->self_ = stream;
    // A peer that restarts is waited for; gRPC spaces its attempts.
    stream->context_.set_wait_for_ready(true);
    start(&stream->context_, stream.get());
    // Writes start outside of reactions, so the call is held open until reading has ended.
    stream->AddHold();
    stream->StartRead(&stream->in_);
    stream->StartCall();
    return stream;
  }

  // False when the stream is closed or its peer is too slow: then it is being closed.
  bool Send(Message message) {
    const bool taken = Enqueue(std::move(message));
    Flush();
    return taken;
  }

  // As Send, but the message stays until the next Send or Flush: for a burst that should leave as
  // one batch.
  bool Enqueue(Message message) {
    const Added added = writer_.Add(std::move(message));
    if (added == Added::kFull) context_.TryCancel();
    return added == Added::kYes;
  }
  void Flush() { writer_.Flush(); }

  void set_envelope(v1::Envelope envelope) { writer_.set_envelope(std::move(envelope)); }

  // Ends it soon; on_closed still comes.
  void Close() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (ok) {
      on_batch_(in_);
      this->StartRead(&in_);
      return;
    }
    writer_.Close([] {});
    context_.TryCancel();
    this->RemoveHold();
  }

  void OnWriteDone(bool ok) override { writer_.OnWritten(ok); }

  void OnDone(const grpc::Status& status) override {
    const OnClosed on_closed = std::move(on_closed_);
    // Before anyone hears of it: what ends with its owner may be the last of gRPC in this process.
    self_.reset();
    on_closed(status);
  }

 private:
  using Added = typename BatchWriter<Out>::Added;

  ClientStream(OnBatch on_batch, OnClosed on_closed)
      : on_batch_(std::move(on_batch)), on_closed_(std::move(on_closed)) {}

  grpc::ClientContext context_;
  const OnBatch on_batch_;
  OnClosed on_closed_;
  In in_;
  // Shared with gRPC: until OnDone the library holds a raw pointer.
  std::shared_ptr<ClientStream> self_;
  BatchWriter<Out> writer_{[this](const Out* batch) { this->StartWrite(batch); }};
};

}  // namespace triptych::services
