#pragma once

// Whether a peer is there. A stream is not a life: one whose stream breaks, or that is silent on an
// open stream, is *missing* for a while before it is *lost*. And when most peers go missing at
// once, it is this process that is cut off. One thread.

#include <cstddef>

#include "base/clock.h"
#include "scheduler/cluster/cluster_config.h"

namespace triptych::scheduler {

struct Presence {
  base::TimePoint last_heard;
  base::TimePoint disconnected_at = base::kNever;  // kNever while it has a stream

  bool connected() const { return disconnected_at == base::kNever; }
  void Hear(base::TimePoint now) { last_heard = now; }
  void Connect(base::TimePoint now) {
    last_heard = now;
    disconnected_at = base::kNever;
  }
  // Nothing new is given to it.
  bool IsMissing(const ClusterConfig& config, base::TimePoint now) const {
    return !connected() || now - last_heard >= config.quiet_after;
  }
  // Of one that is missing.
  base::TimePoint missing_since() const { return connected() ? last_heard : disconnected_at; }
  bool IsLost(const ClusterConfig& config, base::TimePoint now) const {
    return connected() ? now - last_heard >= config.silent_after
                       : now - disconnected_at >= config.reconnect_grace;
  }
  // This process itself stood still: what it has not heard is nobody's fault.
  void Forgive(base::TimePoint now) {
    last_heard = now;
    if (!connected()) disconnected_at = now;
  }
};

// Decides whether this process is the one that is cut off: most of at least four known peers went
// missing within one window. It then loses nobody until all are back, or for `recovery_wait`. Each
// disappearance counts once, so that peers which are really dead are held for no longer.
class CutOffGuard {
 public:
  // One look at all peers: Count each, then ask.
  void Begin() { known_ = missing_ = fresh_ = 0; }
  void Count(const Presence& peer, const ClusterConfig& config, base::TimePoint now) {
    ++known_;
    if (!peer.IsMissing(config, now)) return;
    ++missing_;
    const base::TimePoint since = peer.missing_since();
    const base::Duration window = config.silent_after + config.quiet_after;
    if (now - since <= window && since > over_at_) ++fresh_;
  }
  // Whether nobody may be lost now. `someone_due`: somebody would be.
  bool Holds(bool someone_due, const ClusterConfig& config, base::TimePoint now) {
    if (cut_off(now)) {
      if (missing_ == 0) over_at_ = now;
      return true;
    }
    if (!someone_due || known_ < kFewestPeers || 2 * fresh_ <= known_) return false;
    over_at_ = now + config.recovery_wait;
    ++times_;
    return true;
  }
  bool cut_off(base::TimePoint now) const { return now < over_at_; }
  int times() const { return times_; }

 private:
  // Fewer may well die together.
  static constexpr size_t kFewestPeers = 4;

  size_t known_ = 0, missing_ = 0, fresh_ = 0;
  base::TimePoint over_at_{};  // of the last time that it was cut off
  int times_ = 0;
};

}  // namespace triptych::scheduler
