#pragma once

// When a request would be answered, so that one whose deadline would pass before is refused at
// once: started in vain, it would take the time of those that can still make theirs.

#include <cstdint>
#include <optional>

#include "scheduler/cluster/admission.h"
#include "scheduler/cluster/cluster_view.h"
#include "scheduler/plan/gateway_messages.h"

namespace triptych::scheduler {

struct Forecast {
  double seconds = 0;  // to its last token, behind all that is ahead of it
  double alone = 0;    // if it had the cluster for itself
};

// By the learned time of a step: the work of each stage that is ahead (central, `ahead`, and at the
// workers) spread over all workers of the stage, then the request's own; then `answer_tokens` steps
// of decode as they are now, with what is ahead among them. nullopt while a stage that it needs has
// no learned speed. Looks at a bounded number of workers.
std::optional<Forecast> ForecastOf(const ClusterView& view, const SubmitRequest& submit,
                                   int32_t answer_tokens, const QueueCost& ahead);

}  // namespace triptych::scheduler
