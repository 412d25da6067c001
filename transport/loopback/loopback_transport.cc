#include "transport/loopback/loopback_transport.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace triptych::transport {

using scheduler::Incarnation;

namespace {

absl::Status NotHostMemory() {
  return absl::FailedPreconditionError("the loopback moves host memory only");
}

}  // namespace

std::unique_ptr<LoopbackEndpoint> LoopbackHub::Connect(Incarnation self) {
  base::MutexLock lock(&mutex_);
  connected_.insert(self);
  return std::make_unique<LoopbackEndpoint>(this, self);
}

void LoopbackEndpoint::Send(Incarnation peer, const std::string& /*address*/, uint64_t sequence,
                            base::MemoryRef bytes, OnDone on_done) {
  hub_->Send({self_, peer}, sequence, {.memory = bytes, .on_done = std::move(on_done)});
}

void LoopbackEndpoint::Receive(Incarnation peer, uint64_t sequence, base::MemoryRef landing,
                               OnDone on_done) {
  hub_->Receive({peer, self_}, sequence, {.memory = landing, .on_done = std::move(on_done)});
}

void LoopbackHub::Send(Pair pair, uint64_t sequence, Operation operation) {
  base::MutexLock lock(&mutex_);
  if (operation.memory.space != base::MemorySpace::kHost) {
    return Finish(std::move(operation), NotHostMemory());
  }
  Stream& stream = streams_[pair];
  if (stream.sender_aborted) return Finish(std::move(operation), absl::AbortedError("aborted"));
  if (stream.receiver_aborted || connected_.count(pair.second) == 0) {
    return Finish(std::move(operation), absl::UnavailableError("the peer is gone"));
  }
  // A piece that was received before is dropped on arrival.
  if (sequence <= stream.completed) return Finish(std::move(operation), absl::OkStatus());
  stream.sends[sequence] = std::move(operation);
}

void LoopbackHub::Receive(Pair pair, uint64_t sequence, Operation operation) {
  base::MutexLock lock(&mutex_);
  if (operation.memory.space != base::MemorySpace::kHost) {
    return Finish(std::move(operation), NotHostMemory());
  }
  Stream& stream = streams_[pair];
  if (stream.receiver_aborted) return Finish(std::move(operation), absl::AbortedError("aborted"));
  if (connected_.count(pair.first) == 0) {
    return Finish(std::move(operation), absl::UnavailableError("the peer is gone"));
  }
  stream.receives[sequence] = std::move(operation);
}

void LoopbackHub::Abort(Incarnation self, Incarnation peer) {
  base::MutexLock lock(&mutex_);
  Stream& outgoing = streams_[{self, peer}];
  outgoing.sender_aborted = true;
  FailSends(&outgoing, absl::AbortedError("aborted"));
  FailReceives(&outgoing, absl::UnavailableError("the stream broke"));
  Stream& incoming = streams_[{peer, self}];
  incoming.receiver_aborted = true;
  FailReceives(&incoming, absl::AbortedError("aborted"));
  FailSends(&incoming, absl::UnavailableError("the stream broke"));
}

void LoopbackHub::Break(Incarnation from, Incarnation to) {
  base::MutexLock lock(&mutex_);
  Stream& stream = streams_[{from, to}];
  FailSends(&stream, absl::UnavailableError("the stream broke"));
  FailReceives(&stream, absl::UnavailableError("the stream broke"));
}

void LoopbackHub::Disconnect(Incarnation self) {
  base::MutexLock lock(&mutex_);
  connected_.erase(self);
  for (auto& [pair, stream] : streams_) {
    if (pair.first != self && pair.second != self) continue;
    const absl::Status own = absl::AbortedError("the endpoint is closed");
    const absl::Status other = absl::UnavailableError("the peer is gone");
    FailSends(&stream, pair.first == self ? own : other);
    FailReceives(&stream, pair.first == self ? other : own);
  }
}

int LoopbackHub::RunPending() {
  while (MoveOne()) {
  }
  std::deque<std::pair<Transport::OnDone, absl::Status>> due;
  {
    base::MutexLock lock(&mutex_);
    due.swap(due_);
  }
  for (auto& [on_done, status] : due) on_done(std::move(status));
  return static_cast<int>(due.size());
}

// Moves the first operation of any pair that may move; false when there is none.
bool LoopbackHub::MoveOne() {
  std::vector<std::pair<Pair, LoopbackOperation>> ready;
  {
    base::MutexLock lock(&mutex_);
    for (const auto& [pair, stream] : streams_) {
      if (stream.receives.empty()) continue;
      const auto& [sequence, receive] = *stream.receives.begin();
      auto send = stream.sends.find(sequence);
      if (send == stream.sends.end()) continue;
      ready.push_back({pair, {pair.first, pair.second, sequence, send->second.memory.bytes}});
    }
  }
  for (const auto& [pair, operation] : ready) {
    const LoopbackFault fault = hook_ ? hook_(operation) : LoopbackFault::kNone;
    if (fault == LoopbackFault::kDelay) continue;
    if (fault == LoopbackFault::kAbort) {
      Abort(pair.second, pair.first);
      return true;
    }
    base::MutexLock lock(&mutex_);
    Complete(pair, operation.sequence, fault);
    return true;
  }
  return false;
}

void LoopbackHub::Complete(const Pair& pair, uint64_t sequence, LoopbackFault fault) {
  Stream& stream = streams_[pair];
  auto send = stream.sends.find(sequence);
  auto receive = stream.receives.find(sequence);
  // Another thread may have ended either meanwhile.
  if (send == stream.sends.end() || receive == stream.receives.end()) return;
  Operation from = std::move(send->second);
  Operation to = std::move(receive->second);
  stream.sends.erase(send);
  stream.receives.erase(receive);
  stream.completed = std::max(stream.completed, sequence);
  if (fault == LoopbackFault::kDrop) {
    Finish(std::move(from), absl::UnavailableError("the stream broke"));
    Finish(std::move(to), absl::UnavailableError("the stream broke"));
    return;
  }
  due_.emplace_back(std::move(from.on_done), absl::OkStatus());
  const absl::Span<const uint8_t> bytes = from.memory.HostBytes();
  const absl::Span<uint8_t> landing = to.memory.HostBytes();
  if (from.memory.bytes != to.memory.bytes || bytes.size() != landing.size()) {
    return Finish(std::move(to), absl::DataLossError("sizes differ"));
  }
  const int copies = fault == LoopbackFault::kDuplicate ? 2 : 1;
  for (int i = 0; i < copies && !bytes.empty(); ++i) {
    std::memcpy(landing.data(), bytes.data(), bytes.size());
  }
  if (fault == LoopbackFault::kCorrupt && !landing.empty()) landing[landing.size() / 2] ^= 0x10;
  Finish(std::move(to), absl::OkStatus());
}

void LoopbackHub::FailSends(Stream* stream, const absl::Status& status) {
  auto sends = std::exchange(stream->sends, {});
  for (auto& [sequence, operation] : sends) {
    Finish(std::move(operation), status);
  }
}

void LoopbackHub::FailReceives(Stream* stream, const absl::Status& status) {
  auto receives = std::exchange(stream->receives, {});
  for (auto& [sequence, operation] : receives) {
    stream->completed = std::max(stream->completed, sequence);
    Finish(std::move(operation), status);
  }
}

void LoopbackHub::Finish(Operation operation, absl::Status status) {
  due_.emplace_back(std::move(operation.on_done), std::move(status));
}

}  // namespace triptych::transport
