#pragma once

namespace triptych::services {

// The text of docs/openapi.yaml, which is JSON; the build writes it into a source file.
extern const char kOpenApiJson[];

}  // namespace triptych::services
