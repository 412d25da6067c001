#include "services/gateway/trace/spans.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/version.h"

namespace triptych::services {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kInternal = 1, kServer = 2;  // opentelemetry.proto.trace.v1.Span.SpanKind
constexpr int kError = 2;                  // Status.StatusCode

Json Text(const char* key, const std::string& value) {
  return {{"key", key}, {"value", {{"stringValue", value}}}};
}
// Numbers of 64 bits are strings in protobuf's JSON.
Json Number(const char* key, int64_t value) {
  return {{"key", key}, {"value", {{"intValue", absl::StrCat(value)}}}};
}

Json AttributesOf(const EndedRequest& request) {
  Json attributes = {Text("triptych.request_id", request.request_id),
                     Text("triptych.id", request.client_id),
                     Text("triptych.result", request.result),
                     Number("triptych.picture_tokens", request.usage.picture_tokens),
                     Number("gen_ai.usage.input_tokens", request.usage.prompt_tokens),
                     Number("gen_ai.usage.output_tokens", request.usage.output_tokens)};
  if (!request.tag.empty()) attributes.push_back(Text("triptych.x_request_id", request.tag));
  return attributes;
}

Json ToJson(const Span& span, const EndedRequest& request) {
  const bool own = span.id == request.trace.span;
  Json json = {{"traceId", TraceIdText(request.trace)},
               {"spanId", SpanIdText(span.id)},
               {"name", span.name},
               {"kind", own ? kServer : kInternal},
               {"startTimeUnixNano", absl::StrCat(span.start_ns)},
               {"endTimeUnixNano", absl::StrCat(span.end_ns)}};
  if (span.parent != 0) json["parentSpanId"] = SpanIdText(span.parent);
  if (!own) return json;
  json["attributes"] = AttributesOf(request);
  const bool good = request.result == "stop" || request.result == "length";
  if (!good) json["status"] = {{"code", kError}, {"message", request.result}};
  return json;
}

}  // namespace

std::vector<Span> SpansOf(const EndedRequest& request, int64_t ended_ns,
                          const std::function<uint64_t()>& random) {
  const Timeline& t = request.timeline;
  const int64_t begun_ns = ended_ns - t.total_us * 1000;
  std::vector<Span> spans = {{.name = "request",
                              .id = request.trace.span,
                              .parent = request.trace.parent,
                              .start_ns = begun_ns,
                              .end_ns = ended_ns}};
  // Microseconds since the request came.
  const auto add = [&](const char* name, int64_t from_us, int64_t to_us) {
    from_us = std::clamp<int64_t>(from_us, 0, t.total_us);
    to_us = std::clamp<int64_t>(to_us, 0, t.total_us);
    if (to_us <= from_us) return;
    spans.push_back({.name = name,
                     .id = random(),
                     .parent = request.trace.span,
                     .start_ns = begun_ns + from_us * 1000,
                     .end_ns = begun_ns + to_us * 1000});
  };
  add("queue", 0, t.queue_us);
  int64_t at = t.queue_us;
  const std::pair<const char*, int64_t> items[] = {{"media", t.media_decode_us},
                                                   {"encode", t.encode_us},
                                                   {"embedding transfer", t.embedding_transfer_us}};
  for (const auto& [name, us] : items) {
    add(name, at, at + us);
    at += us;
  }
  if (t.first_token_us == 0) return spans;
  add("prefill", t.first_token_us - t.prefill_us, t.first_token_us);
  add("KV transfer", t.first_token_us, t.first_token_us + t.kv_transfer_us);
  add("decode", t.first_token_us, t.total_us);
  return spans;
}

std::string OtlpJson(absl::Span<const TracedRequest> requests,
                     const std::function<uint64_t()>& random) {
  Json spans = Json::array();
  for (const TracedRequest& traced : requests) {
    for (const Span& span : SpansOf(traced.request, traced.ended_ns, random)) {
      spans.push_back(ToJson(span, traced.request));
    }
  }
  const Json json = {
      {"resourceSpans",
       {{{"resource",
          {{"attributes",
            {Text("service.name", "triptych"), Text("service.version", base::kVersion)}}}},
         {"scopeSpans",
          {{{"scope", {{"name", "triptych-gateway"}, {"version", base::kVersion}}},
            {"spans", std::move(spans)}}}}}}}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace triptych::services
