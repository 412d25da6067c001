#pragma once

// The device that a worker was told to use, behind the Executor interface.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/executor.h"
#include "models/config/model_config.h"
#include "models/weights/weight_source.h"
#include "services/worker/worker_options.h"

namespace triptych::services {

// The weights that the worker was told to serve, with their digest.
struct ServedWeights {
  std::unique_ptr<models::WeightSource> source;
  std::string digest;
};

// Opens the checkpoint, or draws weights. Errors as models::Checkpoint::Open.
absl::StatusOr<ServedWeights> OpenWeights(const WorkerOptions& options);

// Loads the weights where the device needs them; they may be closed afterwards. Borrows `clock`.
// Errors as the loaders of models; RESOURCE_EXHAUSTED when the pools do not fit into memory.
absl::StatusOr<std::unique_ptr<engine::Executor>> MakeExecutor(const WorkerOptions& options,
                                                               const models::ModelConfig& config,
                                                               const models::WeightSource& weights,
                                                               const base::Clock& clock,
                                                               engine::ExecutorEvents events);

}  // namespace triptych::services
