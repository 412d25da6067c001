#pragma once

// The device that a worker was told to use, behind the Executor interface.

#include <memory>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/executor.h"
#include "models/config/model_config.h"
#include "services/worker/worker_options.h"

namespace triptych::services {

// Loads the weights where the device needs them. Borrows `clock`. Errors as the readers of
// models/weights; RESOURCE_EXHAUSTED when the pools do not fit into memory.
absl::StatusOr<std::unique_ptr<engine::Executor>> MakeExecutor(const WorkerOptions& options,
                                                               const models::ModelConfig& config,
                                                               const base::Clock& clock,
                                                               engine::ExecutorEvents events);

}  // namespace triptych::services
