#include "services/gateway/trace/trace_context.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace triptych::services {
namespace {

constexpr size_t kVersionAt = 0, kTraceAt = 3, kSpanAt = 36, kFlagsAt = 53, kLength = 55;
constexpr uint64_t kSampled = 1;

// Lower case alone, as the recommendation has it.
std::optional<uint64_t> Hex(absl::string_view header, size_t at, size_t digits) {
  uint64_t value = 0;
  for (const char c : header.substr(at, digits)) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'a' || c > 'f')) return std::nullopt;
    value = value << 4 | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return value;
}

}  // namespace

std::string SpanIdText(uint64_t span) { return absl::StrFormat("%016x", span); }

std::string TraceIdText(const TraceContext& trace) {
  return absl::StrFormat("%016x%016x", trace.trace_high, trace.trace_low);
}

std::string TraceParent(const TraceContext& trace) {
  return absl::StrCat("00-", TraceIdText(trace), "-", SpanIdText(trace.span),
                      trace.sampled ? "-01" : "-00");
}

std::optional<TraceContext> ParseTraceParent(absl::string_view header) {
  if (header.size() < kLength || header[kTraceAt - 1] != '-' || header[kSpanAt - 1] != '-' ||
      header[kFlagsAt - 1] != '-') {
    return std::nullopt;
  }
  const auto version = Hex(header, kVersionAt, 2);
  const auto high = Hex(header, kTraceAt, 16), low = Hex(header, kTraceAt + 16, 16);
  const auto parent = Hex(header, kSpanAt, 16), flags = Hex(header, kFlagsAt, 2);
  if (!version || !high || !low || !parent || !flags || *version == 0xff) return std::nullopt;
  if (header.size() > kLength && (*version == 0 || header[kLength] != '-')) return std::nullopt;
  TraceContext trace{.trace_high = *high,
                     .trace_low = *low,
                     .parent = *parent,
                     .sampled = (*flags & kSampled) != 0};
  if (!trace.exists() || trace.parent == 0) return std::nullopt;
  return trace;
}

TraceContext Tracer::Beside(TraceContext trace) const {
  if (trace.exists()) trace.span = random_();
  return trace;
}

TraceContext Tracer::Join(absl::string_view header) const {
  if (!header.empty()) {
    if (std::optional<TraceContext> trace = ParseTraceParent(header)) {
      trace->span = random_();
      return *trace;
    }
  }
  if (share_ <= 0) return {};
  TraceContext trace{.trace_high = random_(), .trace_low = random_(), .span = random_()};
  // 53 bits of it as a number below 1.
  trace.sampled = static_cast<double>(trace.trace_low >> 11) * 0x1p-53 < share_;
  return trace;
}

}  // namespace triptych::services
