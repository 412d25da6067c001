#include "transport/grpc/grpc_transport.h"

#include <utility>

#include "base/rpc.h"

namespace triptych::transport {
namespace {

absl::Status NotHostMemory() {
  return absl::FailedPreconditionError("gRPC moves host memory only");
}

}  // namespace

// An incoming stream. Its first chunk says whose it is. Owns itself until gRPC is done with it.
class GrpcTransport::MoveStream final
    : public grpc::ServerBidiReactor<v1::MoveChunk, v1::MoveClosed>,
      public MoveReceiver::Source,
      public std::enable_shared_from_this<MoveStream> {
 public:
  static MoveStream* Open(GrpcTransport* transport) {
    auto stream = std::make_shared<MoveStream>();
    stream->transport_ = transport;
    stream->self_ = stream;
    stream->StartRead(&stream->chunk_);
    return stream.get();
  }

  const v1::MoveChunk& chunk() const override { return chunk_; }
  void ReadNext() override {
    base::MutexLock lock(&mutex_);
    if (!finished_) StartRead(&chunk_);
  }
  void Cancel() override { FinishOnce(grpc::Status::CANCELLED); }

  void OnReadDone(bool ok) override {
    if (ok && receiver_ == nullptr && !Introduce()) {
      FinishOnce(grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "not to be served here"));
      return;
    }
    if (ok) {
      receiver_->OnChunk(shared_from_this());
      return;
    }
    FinishOnce(grpc::Status::OK);
  }

  void OnCancel() override { FinishOnce(grpc::Status::CANCELLED); }

  // The last reaction, and the only one that comes when the stream was stalled.
  void OnDone() override {
    if (receiver_ != nullptr) receiver_->OnClosed(shared_from_this());
    self_.reset();
  }

 private:
  bool Introduce() {
    if (chunk_.receiver_incarnation() != transport_->self_.value()) return false;
    receiver_ = transport_->Receiver(scheduler::Incarnation(chunk_.sender_incarnation()));
    return receiver_ != nullptr;
  }

  void FinishOnce(grpc::Status status) {
    base::MutexLock lock(&mutex_);
    if (finished_) return;
    finished_ = true;
    Finish(std::move(status));
  }

  GrpcTransport* transport_ = nullptr;
  std::shared_ptr<MoveStream> self_;
  std::shared_ptr<MoveReceiver> receiver_;
  v1::MoveChunk chunk_;
  base::Mutex mutex_;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

GrpcTransport::~GrpcTransport() {
  std::map<scheduler::Incarnation, std::shared_ptr<MoveSender>> senders;
  std::map<scheduler::Incarnation, std::shared_ptr<MoveReceiver>> receivers;
  {
    base::MutexLock lock(&mutex_);
    senders.swap(senders_);
    receivers.swap(receivers_);
  }
  for (auto& [peer, sender] : senders) sender->Abort();
  for (auto& [peer, receiver] : receivers) receiver->Abort();
  for (auto& [peer, sender] : senders) sender->WaitUntilClosed();
  for (const auto& sender : closing_) sender->WaitUntilClosed();
}

std::shared_ptr<MoveSender> GrpcTransport::Sender(scheduler::Incarnation peer,
                                                  const std::string& address) {
  base::MutexLock lock(&mutex_);
  if (aborted_.contains(peer)) return nullptr;
  std::shared_ptr<MoveSender>& sender = senders_[peer];
  if (sender == nullptr)
    sender = std::make_shared<MoveSender>(self_, peer,
                                          base::Connect(address, security_, base::Role::kWorker));
  return sender;
}

std::shared_ptr<MoveReceiver> GrpcTransport::Receiver(scheduler::Incarnation peer) {
  base::MutexLock lock(&mutex_);
  if (aborted_.contains(peer)) return nullptr;
  std::shared_ptr<MoveReceiver>& receiver = receivers_[peer];
  if (receiver == nullptr) receiver = std::make_shared<MoveReceiver>();
  return receiver;
}

void GrpcTransport::Send(scheduler::Incarnation peer, const std::string& address, uint64_t sequence,
                         base::MemoryRef bytes, OnDone on_done) {
  if (bytes.space != base::MemorySpace::kHost) return on_done(NotHostMemory());
  const std::shared_ptr<MoveSender> sender = Sender(peer, address);
  if (sender == nullptr) return on_done(absl::AbortedError("transfer aborted"));
  sender->Send({sequence, bytes, std::move(on_done)});
}

void GrpcTransport::Receive(scheduler::Incarnation peer, uint64_t sequence, base::MemoryRef landing,
                            OnDone on_done) {
  if (landing.space != base::MemorySpace::kHost) return on_done(NotHostMemory());
  const std::shared_ptr<MoveReceiver> receiver = Receiver(peer);
  if (receiver == nullptr) return on_done(absl::AbortedError("transfer aborted"));
  receiver->Receive(sequence, {landing, std::move(on_done)});
}

void GrpcTransport::Abort(scheduler::Incarnation peer) {
  std::shared_ptr<MoveSender> sender;
  std::shared_ptr<MoveReceiver> receiver;
  {
    base::MutexLock lock(&mutex_);
    aborted_.insert(peer);
    std::erase_if(closing_, [](const std::shared_ptr<MoveSender>& closing) {
      return closing.use_count() == 1 && closing->IsClosed();
    });
    if (auto it = senders_.find(peer); it != senders_.end()) {
      sender = closing_.emplace_back(std::move(it->second));
      senders_.erase(it);
    }
    if (auto it = receivers_.find(peer); it != receivers_.end()) {
      receiver = std::move(it->second);
      receivers_.erase(it);
    }
  }
  if (sender != nullptr) sender->Abort();
  if (receiver != nullptr) receiver->Abort();
}

grpc::ServerBidiReactor<v1::MoveChunk, v1::MoveClosed>* GrpcTransport::Move() {
  return MoveStream::Open(this);
}

}  // namespace triptych::transport
