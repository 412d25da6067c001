#pragma once

// Every limit and every wait of the cluster scheduler, in one place.

#include <cstdint>

#include "base/clock.h"

namespace triptych::scheduler {

// Bounds of what waits in the central queues, summed over all models. A request beyond any of them
// is refused with RESOURCE_EXHAUSTED.
struct QueueLimits {
  int64_t requests = 2048;
  int64_t media_bytes = int64_t{4} << 30;
  int64_t pixels = int64_t{4} << 30;
  int64_t patches = 16 << 20;
  int64_t prefill_tokens = 4 << 20;
};

struct ClusterConfig {
  QueueLimits queue;

  // Late binding: a worker gets no more work than keeps it busy until the next report, so that what
  // waits does so centrally, where it can still go elsewhere. One task always fits. Patches bound
  // the work of an encoder to about two steps; the number of its tasks only bounds small pictures,
  // and must cover those that are being pulled, decoded and delivered while others are encoded: at
  // 500 pictures a second and 20 ms each from assignment to report, ten.
  int32_t encoder_backlog_tasks = 64;
  int64_t encoder_backlog_patches = 32 << 10;
  int64_t prefill_backlog_tokens = 16 << 10;

  // A peer whose stream breaks may come back with its work for so long; one whose stream is open
  // but silent, for the longer time. Then it is lost. Nothing new is placed on one that is missing:
  // it has no stream, or has missed ten reports.
  base::Duration reconnect_grace = std::chrono::milliseconds(700);
  base::Duration silent_after = std::chrono::milliseconds(2500);
  base::Duration quiet_after = std::chrono::milliseconds(1000);
  base::Duration tick = std::chrono::milliseconds(100);  // how often silence and graces are checked
  base::Duration recovery_wait = std::chrono::seconds(3);
  // Recovery of a cluster in which nobody has ever obeyed a scheduler: peers of an earlier one dial
  // twice a second at least, and would have come by then.
  base::Duration fresh_wait = std::chrono::seconds(1);
  // Requests wait this long for a role that no worker has: for a worker that was killed to be
  // started again, even after a back-off.
  base::Duration role_grace = std::chrono::seconds(5);
  // A task in an inventory that nobody claims is released after this.
  base::Duration unclaimed_grace = std::chrono::seconds(2);
  base::Duration retry_after = std::chrono::seconds(1);  // told to refused clients
  // A request whose forecast, so much longer, is beyond its deadline is refused; the client hears
  // when it would be worth a try, at most so late.
  double deadline_margin = 1.2;
  base::Duration longest_retry_after = std::chrono::seconds(30);

  // A worker that refused or failed a task gets nothing of that stage for first * 2^n, up to the
  // longest; n counts its refusals in a row (until one is accepted) or its failures (until one
  // succeeds).
  base::Duration first_back_off = std::chrono::milliseconds(5);
  base::Duration longest_back_off = std::chrono::milliseconds(320);

  int max_refusals = 256;         // of one request, by all workers
  int max_lost_workers = 3;       // the request may be what kills them
  int max_internal_failures = 2;  // likewise
  int max_retries = 16;           // after UNAVAILABLE or ABORTED (preempted)
};

}  // namespace triptych::scheduler
