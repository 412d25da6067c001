#pragma once

// Whether a request may wait at all: the queues are bounded in every cost that a request has.

#include <cstdint>

#include "absl/status/status.h"
#include "scheduler/cluster/cluster_config.h"
#include "scheduler/cluster/cluster_view.h"
#include "scheduler/plan/gateway_messages.h"

namespace triptych::scheduler {

// What a request, or a queue of them, costs.
struct QueueCost {
  int64_t requests = 0;
  int64_t media_bytes = 0;
  int64_t pixels = 0;
  int64_t patches = 0;
  int64_t prefill_tokens = 0;
  QueueCost& operator+=(const QueueCost& other);
  QueueCost& operator-=(const QueueCost& other);
  friend bool operator==(const QueueCost&, const QueueCost&) = default;
};

QueueCost CostOf(const SubmitRequest& submit);

// RESOURCE_EXHAUSTED when `queued` and `cost` together are beyond a limit; a request that is alone
// is measured by the same limits. INVALID_ARGUMENT when a number of the request makes no sense.
absl::Status CheckAdmission(const QueueCost& queued, const SubmitRequest& submit,
                            const QueueLimits& limits);

// INVALID_ARGUMENT when no worker of the view could ever hold an item, or the prompt with the
// longest answer; OK where a needed role has no worker (yet).
absl::Status CheckSize(const ClusterView& view, const SubmitRequest& submit,
                       const ClusterConfig& config);

}  // namespace triptych::scheduler
