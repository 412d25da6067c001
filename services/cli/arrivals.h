#pragma once

// When the requests of a load test arrive: an open loop, fixed before the first answer. Pure.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"

namespace triptych::services {

struct Arrival {
  base::Duration at{0};      // after the start
  int context_tokens = 0;    // 0: as the mix says
  int generated_tokens = 0;  // 0: as the mix says
};

// A Poisson process of `rate` a second (> 0) for `duration`; the same seed gives the same times.
std::vector<Arrival> PoissonArrivals(double rate, base::Duration duration, uint64_t seed);

// Rows of a trace, TIMESTAMP,ContextTokens,GeneratedTokens with a header line, in order of time;
// times are taken from the first row and multiplied so that their mean rate is `rate` a second
// (0: as they are). Rows after `duration` are left out. INVALID_ARGUMENT names the line.
absl::StatusOr<std::vector<Arrival>> TraceArrivals(absl::string_view csv, double rate,
                                                   base::Duration duration);

}  // namespace triptych::services
