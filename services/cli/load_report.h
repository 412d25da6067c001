#pragma once

// What a load test found: percentiles, rates, errors, goodput. Pure.

#include <map>
#include <string>
#include <vector>

#include "services/cli/load_generator.h"

namespace triptych::services {

struct LoadObjectives {
  double ttft_seconds = 1;    // scheduled arrival to first token
  double tpot_seconds = 0.1;  // mean time of a token after the first
};

// Of a set of samples; all 0 without samples.
struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0, max = 0;
};
// Nearest rank.
Percentiles PercentilesOf(std::vector<double> samples);

// Times in seconds; over requests scheduled in [warm-up, duration).
struct LoadReport {
  double measured_seconds = 0;
  int64_t requests = 0;
  int64_t picture_requests = 0;
  int64_t completed = 0;
  int64_t within_objectives = 0;
  int64_t output_tokens = 0;
  std::map<std::string, int64_t> errors;  // by canonical code
  std::string first_error;                // in the server's words; empty: there was none
  Percentiles ttft, itl, tpot, e2e;
  Percentiles sent_late;  // of the generator itself: its error bar
};

LoadReport Summarise(const std::vector<RequestOutcome>& outcomes, const LoadObjectives& objectives,
                     base::Duration warm_up, base::Duration duration);
std::string ReportTable(const LoadReport& report);
std::string ReportJson(const LoadReport& report);

}  // namespace triptych::services
