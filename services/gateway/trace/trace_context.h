#pragma once

// Whose trace a request is part of: W3C Trace Context, level 1, its header traceparent. Pure but
// for the numbers that a new trace draws.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace triptych::services {

struct TraceContext {
  uint64_t trace_high = 0, trace_low = 0;  // the 128 bits of the trace's id; 0: of no trace
  uint64_t parent = 0;                     // the caller's span; 0: it has none
  uint64_t span = 0;                       // of this request
  bool sampled = false;                    // its spans are wanted

  bool exists() const { return trace_high != 0 || trace_low != 0; }
};

// 32 hexadecimal digits.
std::string TraceIdText(const TraceContext& trace);
// 16 hexadecimal digits.
std::string SpanIdText(uint64_t span);
// The header for who is called on this request's behalf, or wants to look it up.
std::string TraceParent(const TraceContext& trace);
// The trace and the caller's span in such a header, without a span of its own. Nothing when the
// header is not one; a version to come is read by what it has in common with this one.
std::optional<TraceContext> ParseTraceParent(absl::string_view header);

// Gives requests their place in a trace. Thread-safe if `random` is.
class Tracer {
 public:
  // `share`, 0 to 1, of the requests that come without a trace begin one whose spans are wanted.
  // `random` draws numbers that are not 0.
  Tracer(double share, std::function<uint64_t()> random)
      : share_(share), random_(std::move(random)) {}

  // `header`: as it came, or empty.
  TraceContext Join(absl::string_view header) const;
  // Another span for the same caller.
  TraceContext Beside(TraceContext trace) const;

 private:
  const double share_;
  const std::function<uint64_t()> random_;
};

}  // namespace triptych::services
