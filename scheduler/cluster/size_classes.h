#pragma once

// What the workers of a pool could hold when empty, one entry a kind of worker. A kind that has
// gone counts for a while: its worker may be back in a moment, and what fits only there waits.
// One thread.

#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "base/clock.h"
#include "scheduler/cluster/cluster_view.h"

namespace triptych::scheduler {

class SizeClasses {
 public:
  using Kinds = decltype(ClusterView::kinds);

  void Add(const WorkerProfile& profile);
  void Remove(const WorkerProfile& profile, base::TimePoint now);
  // Forgets kinds that have been gone for `grace`. True when there were any.
  bool Expire(base::TimePoint now, base::Duration grace);

  // One empty worker of each kind, for the policies: kNever means that no worker is large enough.
  const ClusterView& view() const { return view_; }
  // Those that are there.
  const Kinds& living() const { return living_; }

 private:
  using Kind = std::tuple<uint8_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t>;
  struct Entry {
    std::unique_ptr<WorkerView> empty;
    int living = 0;
    base::TimePoint gone_at{};
  };
  static Kind KindOf(const WorkerProfile& profile);
  void Reindex();

  std::map<Kind, Entry> kinds_;
  ClusterView view_;
  Kinds living_;
};

}  // namespace triptych::scheduler
