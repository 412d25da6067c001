#pragma once

// The scheduler's word to a gateway that a task was given to a worker, carried by that worker: a
// keyed hash under a key that only those two know. The gateway draws it and tells it in its hello.
// So it needs no list of tasks that would be late, or lost with a scheduler.

#include <cstdint>

#include "scheduler/plan/ids.h"
#include "scheduler/plan/worker_messages.h"
#include "scheduler/request/sip_hash.h"

namespace triptych::scheduler {

// Everything that a worker may use with its pass.
struct Errand {
  RequestId request;
  TaskId task;
  Incarnation worker;
  Stage stage = Stage::kEncode;
  OutputEpoch epoch;  // prefill, decode: the fence that it may raise
};

// Guessing one takes 2^63 tries at a gateway that ends the stream after each.
inline uint64_t PassOf(const PassKey& key, const Errand& errand) {
  SipHash hash(key.a, key.b);
  hash.Add(errand.request.gateway.value());
  hash.Add(errand.request.number);
  hash.Add(errand.task.scheduler.term);
  hash.Add(errand.task.scheduler.incarnation.value());
  hash.Add(errand.task.number);
  hash.Add(errand.worker.value());
  hash.Add(static_cast<uint64_t>(errand.stage) << 32 | errand.epoch.value());
  return hash.Digest();
}

}  // namespace triptych::scheduler
