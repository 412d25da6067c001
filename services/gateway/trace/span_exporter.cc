#include "services/gateway/trace/span_exporter.h"

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "services/runtime/http_call.h"

namespace triptych::services {
namespace {

// Between two exports, so that each carries many.
constexpr base::Duration kGather = std::chrono::seconds(1);
constexpr base::Duration kTimeout = std::chrono::seconds(2);

}  // namespace

SpanExporter::Counters SpanExporter::CountersIn(base::Registry* registry) {
  return {registry->GetCounter({"triptych_traces_sent_total", "Requests whose spans were taken."}),
          registry->GetCounter({"triptych_traces_lost_total", "Requests whose spans were lost."})};
}

absl::StatusOr<std::unique_ptr<SpanExporter>> SpanExporter::Start(absl::string_view endpoint,
                                                                  const base::Clock& clock,
                                                                  std::function<uint64_t()> random,
                                                                  Counters counters) {
  if (!absl::ConsumePrefix(&endpoint, "http://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--otlp-endpoint: want http://host:port, not ", endpoint));
  }
  const size_t slash = std::min(endpoint.find('/'), endpoint.size());
  Target target{std::string(endpoint.substr(0, slash)), std::string(endpoint.substr(slash))};
  if (target.path.size() <= 1) target.path = "/v1/traces";
  RETURN_IF_ERROR(SplitAddress(target.address).status());
  return std::unique_ptr<SpanExporter>(
      new SpanExporter(std::move(target), clock, std::move(random), counters));
}

SpanExporter::SpanExporter(Target target, const base::Clock& clock,
                           std::function<uint64_t()> random, Counters counters)
    : target_(std::move(target)),
      clock_(clock),
      random_(std::move(random)),
      counters_(counters),
      thread_([this] { Run(); }) {}

SpanExporter::~SpanExporter() {
  queue_.Close();
  thread_.join();
}

void SpanExporter::Put(TracedRequest request) {
  if (!queue_.TryPush(std::move(request))) counters_.lost.Increment();
}

void SpanExporter::Run() {
  base::TimePoint next = clock_.Now();
  while (true) {
    std::deque<TracedRequest> taken = queue_.PopAll(base::kNever, next);
    next = clock_.Now() + kGather;
    if (taken.empty()) return;
    const std::vector<TracedRequest> requests(std::make_move_iterator(taken.begin()),
                                              std::make_move_iterator(taken.end()));
    absl::Span<const TracedRequest> left = requests;
    while (!left.empty()) {
      Send(left.subspan(0, kMostAtOnce));
      left.remove_prefix(std::min(left.size(), kMostAtOnce));
      // At the end one try is all.
      if (queue_.closed()) {
        const size_t lost = left.size() + queue_.PopAll(clock_.Now()).size();
        return counters_.lost.Increment(static_cast<double>(lost));
      }
    }
  }
}

void SpanExporter::Send(absl::Span<const TracedRequest> requests) {
  const absl::StatusOr<HttpReply> reply =
      HttpPostJson(target_.address, target_.path, OtlpJson(requests, random_), kTimeout);
  const bool taken = reply.ok() && reply->status / 100 == 2;
  (taken ? counters_.sent : counters_.lost).Increment(static_cast<double>(requests.size()));
}

}  // namespace triptych::services
