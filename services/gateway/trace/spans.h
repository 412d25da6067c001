#pragma once

// An ended request as spans, and spans as OTLP/HTTP in JSON (opentelemetry-proto 1.x,
// ExportTraceServiceRequest). Pure.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "services/gateway/core/ended_requests.h"

namespace triptych::services {

struct Span {
  std::string name;
  uint64_t id = 0;
  uint64_t parent = 0;               // 0: none
  int64_t start_ns = 0, end_ns = 0;  // since 1970
};

// The request's own span first, then a span for each part of it that took place: queue, media,
// encode, embedding transfer, prefill, KV transfer, decode. Workers tell how long a part took and
// not when it began, so that is reckoned: media, encode and their transfer follow placement,
// prefill ends with the first token, and the KV is on its way from there on; all lie within the
// request.
// `ended_ns`: when it ended, since 1970.
std::vector<Span> SpansOf(const EndedRequest& request, int64_t ended_ns,
                          const std::function<uint64_t()>& random);

struct TracedRequest {
  EndedRequest request;
  int64_t ended_ns = 0;
};

// The body of one export.
std::string OtlpJson(absl::Span<const TracedRequest> requests,
                     const std::function<uint64_t()>& random);

}  // namespace triptych::services
