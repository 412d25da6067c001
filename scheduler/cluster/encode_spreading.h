#pragma once

// Which worker encodes an item: the one that would be done first, of those whose small backlog has
// room. As each assignment adds to its worker's work, the items of one request spread by
// themselves.

#include "base/clock.h"
#include "scheduler/cluster/cluster_config.h"
#include "scheduler/cluster/cluster_view.h"

namespace triptych::scheduler {

struct EncodeNeed {
  int64_t patches = 0;
  int32_t num_tokens = 0;
  // The consumer, where the output needs no second place; zero while it is not chosen.
  Incarnation consumer;
};

Amount EncodeAmount(const WorkerView& worker, const EncodeNeed& need);

// Whether the consumer itself, in `worker`, can encode it now, in place: that takes room from
// nobody.
bool FitsInPlace(const WorkerView& worker, const EncodeNeed& need, const ClusterConfig& config);

Choice ChooseEncoder(const ClusterView& view, const EncodeNeed& need, const ClusterConfig& config,
                     base::TimePoint now);

}  // namespace triptych::scheduler
