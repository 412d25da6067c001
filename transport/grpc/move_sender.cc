#include "transport/grpc/move_sender.h"

#include <algorithm>
#include <utility>

namespace triptych::transport {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;

}  // namespace

// One connection to the peer. Owns itself until gRPC is done with it; the sender outlives it.
class MoveSender::Stream final : public grpc::ClientBidiReactor<v1::MoveChunk, v1::MoveClosed> {
 public:
  static std::shared_ptr<Stream> Open(MoveSender* owner) {
    auto stream = std::make_shared<Stream>();
    stream->self_ = stream;
    stream->owner_ = owner;
    owner->stub_->async()->Move(&stream->context_, stream.get());
    // Writes start outside of reactions, so the call is held open until reading has ended.
    stream->AddHold();
    stream->StartRead(&stream->closed_);
    stream->StartCall();
    return stream;
  }

  void OnWriteDone(bool ok) override { owner_->OnWritten(this, ok); }
  void OnReadDone(bool) override {
    owner_->OnClosed(this);
    context_.TryCancel();
    RemoveHold();
  }
  void OnDone(const grpc::Status&) override {
    MoveSender* const owner = owner_;
    self_.reset();
    owner->OnFreed();
  }

  void Cancel() { context_.TryCancel(); }
  v1::MoveChunk* chunk() { return &chunk_; }
  void Write() { StartWrite(&chunk_); }

 private:
  MoveSender* owner_ = nullptr;
  std::shared_ptr<Stream> self_;
  grpc::ClientContext context_;
  v1::MoveClosed closed_;
  v1::MoveChunk chunk_;
};

MoveSender::MoveSender(scheduler::Incarnation self, scheduler::Incarnation peer,
                       const std::shared_ptr<grpc::Channel>& channel)
    : self_(self), peer_(peer), stub_(v1::Transfer::NewStub(channel)) {}

void MoveSender::Send(Operation operation) {
  {
    base::MutexLock lock(&mutex_);
    if (!aborted_) {
      operations_.push_back(std::move(operation));
      if (!writing_) WriteNext();
      return;
    }
  }
  operation.on_done(absl::AbortedError("transfer aborted"));
}

void MoveSender::Abort() {
  std::deque<Operation> failed;
  {
    base::MutexLock lock(&mutex_);
    aborted_ = true;
    if (stream_ != nullptr) stream_->Cancel();
    failed = TakeAll();
  }
  Fail(std::move(failed), absl::AbortedError("transfer aborted"));
}

void MoveSender::WriteNext() {
  if (operations_.empty() || aborted_) return;
  const bool fresh = stream_ == nullptr;
  if (fresh) {
    stream_ = Stream::Open(this);
    ++open_streams_;
  }
  const Operation& operation = operations_.front();
  v1::MoveChunk* chunk = stream_->chunk();
  chunk->Clear();
  if (fresh) {
    chunk->set_sender_incarnation(self_.value());
    chunk->set_receiver_incarnation(peer_.value());
  }
  chunk->set_sequence(operation.sequence);
  chunk->set_total_bytes(operation.bytes.bytes);
  chunk->set_offset(offset_);
  if (operation.bytes.declared_only()) {
    chunk->set_declared_only(true);
    offset_ = operation.bytes.bytes;
  } else {
    const int64_t size = std::min(kChunkBytes, operation.bytes.bytes - offset_);
    chunk->set_payload(operation.bytes.Sub(offset_, size).HostBytes().data(), size);
    offset_ += size;
  }
  writing_ = true;
  stream_->Write();
}

void MoveSender::OnWritten(Stream* stream, bool ok) {
  std::function<void(absl::Status)> done;
  {
    base::MutexLock lock(&mutex_);
    if (stream != stream_.get()) return;
    writing_ = false;
    if (!ok) return;  // OnClosed follows
    if (!operations_.empty() && offset_ >= operations_.front().bytes.bytes) {
      done = std::move(operations_.front().on_done);
      operations_.pop_front();
      offset_ = 0;
    }
    WriteNext();
  }
  if (done) done(absl::OkStatus());
}

void MoveSender::OnClosed(Stream* stream) {
  std::deque<Operation> failed;
  {
    base::MutexLock lock(&mutex_);
    if (stream != stream_.get()) return;
    stream_ = nullptr;
    writing_ = false;
    // In the same step: what is sent from now on belongs to the next stream.
    failed = TakeAll();
  }
  Fail(std::move(failed), absl::UnavailableError("peer is gone"));
}

void MoveSender::OnFreed() {
  base::MutexLock lock(&mutex_);
  --open_streams_;
  freed_.NotifyAll();  // within the lock: who waits may destroy this at once
}

bool MoveSender::IsClosed() {
  base::MutexLock lock(&mutex_);
  return open_streams_ == 0;
}

void MoveSender::WaitUntilClosed() {
  base::MutexLock lock(&mutex_);
  while (open_streams_ > 0) freed_.Wait(&mutex_);
}

std::deque<MoveSender::Operation> MoveSender::TakeAll() {
  offset_ = 0;
  return std::exchange(operations_, {});
}

void MoveSender::Fail(std::deque<Operation> failed, const absl::Status& status) {
  for (Operation& operation : failed) operation.on_done(status);
}

}  // namespace triptych::transport
