#pragma once

// Carries memory of a device over a transport of host memory: each region has a twin on the host,
// of the same size, and a piece passes through the same place of it. Thread rule as transport.h.

#include <cstdint>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "transport/cuda_ipc/peer_copier.h"
#include "transport/transport.h"

namespace triptych::transport {

// One region and its twin in host memory.
struct TwinRegion {
  base::MemoryRef device, host;
};

class BouncedTransport final : public Transport {
 public:
  // Borrows both, which outlive this.
  BouncedTransport(Transport* inner, PeerCopier* copier, TwinRegion staging, TwinRegion landing)
      : inner_(*inner), copier_(*copier), staging_(staging), landing_(landing) {}
  // Waits for copies under way. What the inner transport completes later ends with ABORTED.
  ~BouncedTransport() override;

  // FAILED_PRECONDITION: not of the region. What is only declared is left to the inner transport.
  void Send(scheduler::Incarnation peer, const std::string& address, uint64_t sequence,
            base::MemoryRef bytes, OnDone on_done) override;
  void Receive(scheduler::Incarnation peer, uint64_t sequence, base::MemoryRef landing,
               OnDone on_done) override;
  void Abort(scheduler::Incarnation peer) override { inner_.Abort(peer); }

 private:
  // Shared with operations under way.
  struct State {
    base::Mutex mutex;
    base::CondVar copied;
    int copies ABSL_GUARDED_BY(mutex) = 0;  // under way
    bool closed ABSL_GUARDED_BY(mutex) = false;
  };
  // Copies, then goes on with `next`, or ends with `on_done`.
  static void Copy(const std::shared_ptr<State>& state, PeerCopier& copier,
                   const base::MemoryRef& to, const base::MemoryRef& from, OnDone next,
                   const OnDone& on_done);

  const std::shared_ptr<State> state_ = std::make_shared<State>();
  Transport& inner_;
  PeerCopier& copier_;
  const TwinRegion staging_, landing_;
};

}  // namespace triptych::transport
