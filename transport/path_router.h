#pragma once

// One transport made of several: each direction of each pair takes the path that was settled when
// the two were paired. What is posted before that is held back, in order; the handshake bounds it.
// Thread-safe; callbacks as those of the paths.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "transport/transport.h"

namespace triptych::transport {

enum class Path : uint8_t {
  kUnsettled,
  kGrpc,
  kCudaIpc,
  kNone,  // no path that is allowed reaches the peer
};

// "grpc" and the like.
const char* PathName(Path path);

class PathRouter final : public Transport {
 public:
  // Borrows both; `cuda_ipc` may be null.
  PathRouter(Transport* grpc, Transport* cuda_ipc) : grpc_(*grpc), cuda_ipc_(cuda_ipc) {}
  ~PathRouter() override;

  // How bytes from a peer come, and how bytes to it leave, from now on.
  void SettleIncoming(scheduler::Incarnation peer, Path path);
  void SettleOutgoing(scheduler::Incarnation peer, Path path);

  // FAILED_PRECONDITION where the path is kNone.
  void Send(scheduler::Incarnation peer, const std::string& address, uint64_t sequence,
            base::MemoryRef bytes, OnDone on_done) override;
  void Receive(scheduler::Incarnation peer, uint64_t sequence, base::MemoryRef landing,
               OnDone on_done) override;
  void Abort(scheduler::Incarnation peer) override;

 private:
  // Null: none is allowed.
  using Post = std::function<void(Transport*)>;
  struct Held {
    Post post;
    OnDone on_done;
  };
  struct Direction {
    Path path = Path::kUnsettled;
    std::deque<Held> held;
  };
  using Directions = std::map<scheduler::Incarnation, Direction>;

  Transport* Of(Path path) const;
  void Settle(Directions* directions, scheduler::Incarnation peer, Path path);
  void Route(Directions* directions, scheduler::Incarnation peer, Held held);

  Transport& grpc_;
  Transport* const cuda_ipc_;
  base::Mutex mutex_;
  // Incarnations never come back.
  std::set<scheduler::Incarnation> aborted_ ABSL_GUARDED_BY(mutex_);
  Directions incoming_ ABSL_GUARDED_BY(mutex_), outgoing_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::transport
