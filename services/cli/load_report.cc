#include "services/cli/load_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace triptych::services {
namespace {

using Json = nlohmann::ordered_json;

struct Samples {
  std::vector<double> ttft, itl, tpot, e2e, sent_late;
};

void Count(const RequestOutcome& outcome, const LoadObjectives& objectives, LoadReport* report,
           Samples* samples) {
  ++report->requests;
  if (outcome.with_picture) ++report->picture_requests;
  samples->sent_late.push_back(outcome.sent);
  if (!outcome.status.ok()) {
    ++report->errors[absl::StatusCodeToString(outcome.status.code())];
    if (report->first_error.empty()) report->first_error = outcome.status.ToString();
    return;
  }
  ++report->completed;
  report->output_tokens += outcome.tokens;
  const double tpot =
      outcome.tokens > 1 ? (outcome.last_token - outcome.first_token) / (outcome.tokens - 1) : 0;
  samples->ttft.push_back(outcome.first_token);
  samples->e2e.push_back(outcome.end);
  if (outcome.tokens > 1) samples->tpot.push_back(tpot);
  samples->itl.insert(samples->itl.end(), outcome.gaps.begin(), outcome.gaps.end());
  if (outcome.first_token <= objectives.ttft_seconds && tpot <= objectives.tpot_seconds) {
    ++report->within_objectives;
  }
}

Json ToJson(const Percentiles& p) {
  return {{"p50_ms", p.p50 * 1e3},
          {"p90_ms", p.p90 * 1e3},
          {"p99_ms", p.p99 * 1e3},
          {"max_ms", p.max * 1e3}};
}

double PerSecond(const LoadReport& report, int64_t count) {
  return report.measured_seconds > 0 ? static_cast<double>(count) / report.measured_seconds : 0;
}

}  // namespace

Percentiles PercentilesOf(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  const auto rank = [&samples](double fraction) {
    const double position = std::ceil(fraction * static_cast<double>(samples.size()));
    return samples[static_cast<size_t>(std::max(position, 1.0)) - 1];
  };
  return {rank(0.5), rank(0.9), rank(0.99), samples.back()};
}

LoadReport Summarise(const std::vector<RequestOutcome>& outcomes, const LoadObjectives& objectives,
                     base::Duration warm_up, base::Duration duration) {
  LoadReport report;
  report.measured_seconds = base::ToSeconds(duration - warm_up);
  Samples samples;
  for (const RequestOutcome& outcome : outcomes) {
    if (outcome.scheduled >= warm_up) Count(outcome, objectives, &report, &samples);
  }
  report.ttft = PercentilesOf(std::move(samples.ttft));
  report.itl = PercentilesOf(std::move(samples.itl));
  report.tpot = PercentilesOf(std::move(samples.tpot));
  report.e2e = PercentilesOf(std::move(samples.e2e));
  report.sent_late = PercentilesOf(std::move(samples.sent_late));
  return report;
}

std::string ReportTable(const LoadReport& report) {
  std::string out = absl::StrFormat(
      "%d requests (%d with pictures) in %.1f s: %d completed, %.1f requests/s, %.1f tokens/s\n"
      "goodput %.1f requests/s (%d within the objectives)\n",
      report.requests, report.picture_requests, report.measured_seconds, report.completed,
      PerSecond(report, report.completed), PerSecond(report, report.output_tokens),
      PerSecond(report, report.within_objectives), report.within_objectives);
  for (const auto& [code, count] : report.errors) {
    absl::StrAppendFormat(&out, "error %s: %d\n", code, count);
  }
  if (!report.first_error.empty()) absl::StrAppend(&out, "the first: ", report.first_error, "\n");
  absl::StrAppendFormat(&out, "%-10s %10s %10s %10s %10s\n", "ms", "p50", "p90", "p99", "max");
  const std::pair<const char*, const Percentiles*> lines[] = {{"TTFT", &report.ttft},
                                                              {"ITL", &report.itl},
                                                              {"TPOT", &report.tpot},
                                                              {"E2E", &report.e2e},
                                                              {"sent late", &report.sent_late}};
  for (const auto& [name, p] : lines) {
    absl::StrAppendFormat(&out, "%-10s %10.2f %10.2f %10.2f %10.2f\n", name, p->p50 * 1e3,
                          p->p90 * 1e3, p->p99 * 1e3, p->max * 1e3);
  }
  return out;
}

std::string ReportJson(const LoadReport& report) {
  const Json json = {{"measured_seconds", report.measured_seconds},
                     {"requests", report.requests},
                     {"picture_requests", report.picture_requests},
                     {"completed", report.completed},
                     {"within_objectives", report.within_objectives},
                     {"errors", report.errors},
                     {"first_error", report.first_error},
                     {"requests_per_second", PerSecond(report, report.completed)},
                     {"goodput_per_second", PerSecond(report, report.within_objectives)},
                     {"tokens_per_second", PerSecond(report, report.output_tokens)},
                     {"ttft", ToJson(report.ttft)},
                     {"itl", ToJson(report.itl)},
                     {"tpot", ToJson(report.tpot)},
                     {"e2e", ToJson(report.e2e)},
                     {"sent_late", ToJson(report.sent_late)}};
  return json.dump(1);
}

}  // namespace triptych::services
