#pragma once

// What a request's target asks for: the path alone decides, whatever query stands behind it.

#include <string>

#include "absl/strings/string_view.h"

namespace triptych::services {

enum class Route {
  kNone,
  kChat,
  kCompletions,
  kTokenize,
  kDetokenize,
  kModels,
  kModel,
  kHealth,  // the process lives
  kReady,   // it takes requests
  kVersion,
  kMetrics,
  kOpenApi,
};

struct Target {
  Route route = Route::kNone;
  std::string path;        // for logs; decoded
  std::string model;       // kModel: which
  const char* allow = "";  // the methods, as the header Allow names them
  bool posted = false;     // takes POST, and its body
};

// Origin form (`/v1/models?limit=2`), absolute form (`http://host/v1/models`, as proxies send it)
// and `*`. Percent-encoding is undone; what is no path gives kNone.
Target TargetOf(absl::string_view target);

}  // namespace triptych::services
