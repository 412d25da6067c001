#include "transport/path_router.h"

#include <memory>

namespace triptych::transport {

using scheduler::Incarnation;

const char* PathName(Path path) {
  switch (path) {
    case Path::kUnsettled:
      return "unsettled";
    case Path::kGrpc:
      return "grpc";
    case Path::kCudaIpc:
      return "cuda_ipc";
    case Path::kNone:
      return "none";
  }
  return "none";
}

PathRouter::~PathRouter() {
  Directions incoming, outgoing;
  {
    base::MutexLock lock(&mutex_);
    incoming.swap(incoming_);
    outgoing.swap(outgoing_);
  }
  for (const Directions* directions : {&incoming, &outgoing}) {
    for (const auto& [peer, direction] : *directions) {
      for (const Held& held : direction.held) held.on_done(absl::AbortedError("transfer aborted"));
    }
  }
}

Transport* PathRouter::Of(Path path) const {
  if (path == Path::kGrpc) return &grpc_;
  return path == Path::kCudaIpc ? cuda_ipc_ : nullptr;
}

void PathRouter::SettleIncoming(Incarnation peer, Path path) { Settle(&incoming_, peer, path); }
void PathRouter::SettleOutgoing(Incarnation peer, Path path) { Settle(&outgoing_, peer, path); }

void PathRouter::Settle(Directions* directions, Incarnation peer, Path path) {
  // What is posted meanwhile stays behind what was held: until none is, nothing is settled.
  while (true) {
    std::deque<Held> held;
    {
      base::MutexLock lock(&mutex_);
      if (aborted_.contains(peer)) return;
      Direction& direction = (*directions)[peer];
      if (path != Path::kUnsettled) held.swap(direction.held);
      if (held.empty()) {
        direction.path = path;
        return;
      }
    }
    for (const Held& each : held) each.post(Of(path));
  }
}

void PathRouter::Route(Directions* directions, Incarnation peer, Held held) {
  Transport* to = nullptr;
  absl::Status over;
  {
    base::MutexLock lock(&mutex_);
    if (aborted_.contains(peer)) {
      over = absl::AbortedError("transfer aborted");
    } else {
      Direction& direction = (*directions)[peer];
      if (direction.path == Path::kUnsettled) {
        direction.held.push_back(std::move(held));
        return;
      }
      to = Of(direction.path);
    }
  }
  if (!over.ok()) return held.on_done(over);
  held.post(to);
}

void PathRouter::Send(Incarnation peer, const std::string& address, uint64_t sequence,
                      base::MemoryRef bytes, OnDone on_done) {
  const auto post = [peer, address, sequence, bytes, on_done](Transport* to) {
    if (to != nullptr) return to->Send(peer, address, sequence, bytes, on_done);
    on_done(absl::FailedPreconditionError("no path that is allowed leads to the peer"));
  };
  Route(&outgoing_, peer, {post, std::move(on_done)});
}

void PathRouter::Receive(Incarnation peer, uint64_t sequence, base::MemoryRef landing,
                         OnDone on_done) {
  const auto post = [peer, sequence, landing, on_done](Transport* from) {
    if (from != nullptr) return from->Receive(peer, sequence, landing, on_done);
    on_done(absl::FailedPreconditionError("no path that is allowed leads from the peer"));
  };
  Route(&incoming_, peer, {post, std::move(on_done)});
}

void PathRouter::Abort(Incarnation peer) {
  std::deque<Held> held;
  {
    base::MutexLock lock(&mutex_);
    aborted_.insert(peer);
    for (Directions* directions : {&incoming_, &outgoing_}) {
      const auto it = directions->find(peer);
      if (it == directions->end()) continue;
      for (Held& each : it->second.held) held.push_back(std::move(each));
      directions->erase(it);
    }
  }
  grpc_.Abort(peer);
  if (cuda_ipc_ != nullptr) cuda_ipc_->Abort(peer);
  for (const Held& each : held) each.on_done(absl::AbortedError("transfer aborted"));
}

}  // namespace triptych::transport
