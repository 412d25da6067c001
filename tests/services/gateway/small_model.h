#pragma once

#include "services/gateway/request/served_model.h"

namespace triptych::services::testing {

// The shipped model, loaded once: reading the weights for the fingerprint takes a while. Null where
// it is not.
inline const ServedModel* SmallModel() {
  static const ServedModel* const model = []() -> const ServedModel* {
    absl::StatusOr<std::unique_ptr<ServedModel>> loaded = ServedModel::Load("assets/triptych-16m");
    return loaded.ok() ? loaded->release() : nullptr;
  }();
  return model;
}

}  // namespace triptych::services::testing
