#pragma once

// Who and what: the identities that every internal message about a request carries.

#include <compare>
#include <cstdint>
#include <string>
#include <utility>

#include "base/strong_id.h"

namespace triptych::scheduler {

// One life of one process, drawn at random at its start. A restarted process is another peer.
using Incarnation = base::StrongId<struct IncarnationTag>;
// Rises only when a lost or preempted producer of tokens is replaced.
using OutputEpoch = base::StrongId<struct OutputEpochTag, uint32_t>;
// One step of one lane of a worker's engine, counted from 1.
using StepId = base::StrongId<struct StepTag>;
// A buffer of one region of transfer memory of one worker, never used twice.
using BufferId = base::StrongId<struct BufferTag>;
// A block of a worker's KV pool, or a page of its embedding pool, from 0.
using BlockId = int32_t;

// A scheduler: peers obey only the highest pair that they have seen.
struct SchedulerId {
  uint64_t term = 0;
  Incarnation incarnation;
  friend auto operator<=>(const SchedulerId&, const SchedulerId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const SchedulerId& id) {
    return H::combine(std::move(h), id.term, id.incarnation);
  }
};

// A client's request: unique for ever, because its gateway's incarnation is.
struct RequestId {
  Incarnation gateway;
  uint64_t number = 0;
  friend auto operator<=>(const RequestId&, const RequestId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const RequestId& id) {
    return H::combine(std::move(h), id.gateway, id.number);
  }
};

// One assignment (encode item 3, prefill, decode) by one scheduler: unique for ever.
struct TaskId {
  SchedulerId scheduler;
  uint64_t number = 0;
  friend auto operator<=>(const TaskId&, const TaskId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const TaskId& id) {
    return H::combine(std::move(h), id.scheduler, id.number);
  }
};

// Between a gateway and its schedulers, see task_pass.h. A secret: never logged.
struct PassKey {
  uint64_t a = 0, b = 0;
};

// "gateway-number" in hexadecimal and decimal, for log lines.
std::string ToString(const RequestId& id);
std::string ToString(const TaskId& id);

}  // namespace triptych::scheduler
