#pragma once

// A transport inside one process, for host memory: a hub joins any number of endpoints, one a
// worker. Nothing happens until RunPending(), so that one thread has every interleaving in its
// hands; with threads, any of them may run it. Faults are chosen by a hook, operation by operation.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "transport/transport.h"

namespace triptych::transport {

enum class LoopbackFault : uint8_t {
  kNone,
  kDelay,      // held back until the hook says otherwise; asked again by each RunPending
  kDrop,       // the connection breaks: both sides complete with UNAVAILABLE
  kDuplicate,  // the bytes arrive twice; the second time changes nothing
  kCorrupt,    // one bit of the landing memory is flipped
  kAbort,      // as if the receiver had called Abort for the sender
};

struct LoopbackOperation {
  scheduler::Incarnation from, to;
  uint64_t sequence = 0;
  int64_t bytes = 0;
};

class LoopbackEndpoint;

// Thread-safe. Must outlive its endpoints.
class LoopbackHub {
 public:
  // Asked for each operation that both sides have posted; called without a lock held.
  using FaultHook = std::function<LoopbackFault(const LoopbackOperation&)>;

  explicit LoopbackHub(FaultHook hook = nullptr) : hook_(std::move(hook)) {}

  // The endpoint of one worker. Destroying it is its death: peers complete with UNAVAILABLE, its
  // own operations with ABORTED.
  std::unique_ptr<LoopbackEndpoint> Connect(scheduler::Incarnation self);

  // The byte stream breaks: what is posted for it, by one side or by both, fails with UNAVAILABLE.
  void Break(scheduler::Incarnation from, scheduler::Incarnation to);

  // Moves what both sides have posted, in the order of sequence for each pair, and calls what is
  // due. Returns the number of callbacks; call again until it is 0 to settle.
  int RunPending();

 private:
  friend class LoopbackEndpoint;
  using Pair = std::pair<scheduler::Incarnation, scheduler::Incarnation>;  // from, to
  struct Operation {
    base::MemoryRef memory;  // a send's bytes, a receive's landing
    Transport::OnDone on_done;
  };
  // One direction of one pair of workers.
  struct Stream {
    std::map<uint64_t, Operation> sends, receives;
    uint64_t completed = 0;  // receives up to here are done
    bool sender_aborted = false, receiver_aborted = false;
  };

  void Send(Pair pair, uint64_t sequence, Operation operation);
  void Receive(Pair pair, uint64_t sequence, Operation operation);
  void Abort(scheduler::Incarnation self, scheduler::Incarnation peer);
  void Disconnect(scheduler::Incarnation self);

  bool MoveOne() ABSL_LOCKS_EXCLUDED(mutex_);
  void Complete(const Pair& pair, uint64_t sequence, LoopbackFault fault)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FailSends(Stream* stream, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FailReceives(Stream* stream, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(Operation operation, absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const FaultHook hook_;
  base::Mutex mutex_;
  std::set<scheduler::Incarnation> connected_ ABSL_GUARDED_BY(mutex_);
  std::map<Pair, Stream> streams_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::pair<Transport::OnDone, absl::Status>> due_ ABSL_GUARDED_BY(mutex_);
};

class LoopbackEndpoint final : public Transport {
 public:
  LoopbackEndpoint(LoopbackHub* hub, scheduler::Incarnation self) : hub_(hub), self_(self) {}
  ~LoopbackEndpoint() override { hub_->Disconnect(self_); }

  void Send(scheduler::Incarnation peer, const std::string& address, uint64_t sequence,
            base::MemoryRef bytes, OnDone on_done) override;
  void Receive(scheduler::Incarnation peer, uint64_t sequence, base::MemoryRef landing,
               OnDone on_done) override;
  void Abort(scheduler::Incarnation peer) override { hub_->Abort(self_, peer); }

 private:
  LoopbackHub* const hub_;
  const scheduler::Incarnation self_;
};

}  // namespace triptych::transport
