#pragma once

// Which worker prefills a request: the one that would be done first, of those with room for the
// whole prompt and all of its embeddings.

#include "absl/types/span.h"
#include "base/clock.h"
#include "scheduler/cluster/cluster_config.h"
#include "scheduler/cluster/cluster_view.h"
#include "scheduler/plan/gateway_messages.h"

namespace triptych::scheduler {

struct PrefillNeed {
  int32_t prompt_tokens = 0;
  absl::Span<const ItemCost> items;
  int32_t headroom_blocks = 0;  // of the request, where the worker decodes too
};

// What the ledger reserves for it on `worker`.
Amount PrefillAmount(const WorkerView& worker, const PrefillNeed& need);

Choice ChoosePrefillWorker(const ClusterView& view, const PrefillNeed& need,
                           const ClusterConfig& config, base::TimePoint now);

}  // namespace triptych::scheduler
