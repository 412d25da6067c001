#pragma once

// The metric that says what runs here.

#include <string>

#include "base/metrics.h"
#include "base/version.h"

namespace triptych::services {

// triptych_build_info{version, process, model} = 1. The model is a name or a directory; empty for a
// process that serves every model.
inline void DescribeBuild(const std::string& process, const std::string& model,
                          base::Registry* registry) {
  registry
      ->GetGauge({"triptych_build_info", "Always 1; what runs here."},
                 {{"version", base::kVersion}, {"process", process}, {"model", model}})
      .Set(1);
}

}  // namespace triptych::services
