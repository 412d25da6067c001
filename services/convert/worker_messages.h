#pragma once

// The control stream of workers, between the wire and the machines.

#include "absl/status/statusor.h"
#include "scheduler/plan/worker_messages.h"
#include "triptych/v1/scheduler.pb.h"

namespace triptych::services {

v1::SchedulerToWorker ToProto(const scheduler::SchedulerToWorker& message);
v1::WorkerToScheduler ToProto(const scheduler::WorkerToScheduler& message);
v1::WorkerHello ToProto(const scheduler::WorkerHello& hello);

// INVALID_ARGUMENT: no such message, or a value out of range. `welcome` and `peer_gone` are not
// messages of the machines: their receiver looks at them first.
absl::StatusOr<scheduler::SchedulerToWorker> FromProto(const v1::SchedulerToWorker& message);
absl::StatusOr<scheduler::WorkerToScheduler> FromProto(const v1::WorkerToScheduler& message);
absl::StatusOr<scheduler::WorkerHello> FromProto(const v1::WorkerHello& hello);

}  // namespace triptych::services
