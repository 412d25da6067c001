#pragma once

// Which worker decodes a request, and when: once all of its items have landed, so that what is left
// of prefill is about the time of a transfer. The prefill worker itself where it can (the blocks
// change owner, nothing moves), else the one with the least work.

#include "base/clock.h"
#include "scheduler/cluster/cluster_view.h"

namespace triptych::scheduler {

struct DecodeNeed {
  int32_t prompt_tokens = 0;
  Incarnation prefill_worker;
  int32_t headroom_blocks = 0;  // of the request
};

// Blocks to leave free when one more sequence comes: every sequence is admitted at its smallest,
// and without room to grow some would have to go. One for each sequence that runs, or will, and
// those of the request; none on a worker that has nothing, or what is large could never go
// anywhere.
int32_t GrowthBlocks(const WorkerView& worker, int32_t headroom_blocks);

Amount DecodeAmount(const WorkerView& worker, const DecodeNeed& need);

Choice ChooseDecodeWorker(const ClusterView& view, const DecodeNeed& need, base::TimePoint now);

}  // namespace triptych::scheduler
