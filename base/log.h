#pragma once

// Structured log lines: one JSON object a line, one write(2) a line, on stderr. A logger is built
// by main and injected; there is no global one. Every line that concerns a request carries its id,
// output epoch and stage. Not a metrics channel, and never on a per-token path. Thread-safe.

#include <cstdint>
#include <initializer_list>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace triptych::base {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// For a flag's choices, the default first; and what each stands for. Requires one of them.
std::vector<std::string> LogLevelNames();
LogLevel LogLevelOf(absl::string_view name);

// Whom a line concerns. Empty strings are left out of the line; the epoch is written whenever there
// is a request id. An empty `process` means the name that the logger was built with.
struct LogContext {
  std::string process;
  std::string stage;
  std::string request_id;
  uint64_t epoch = 0;
};

// One more member of the line's object. Borrowed: keys and string values must outlive the call.
struct LogField {
  absl::string_view key;
  std::variant<absl::string_view, int64_t, double> value;

  LogField(absl::string_view k, absl::string_view v) : key(k), value(v) {}
  LogField(absl::string_view k, const char* v) : key(k), value(absl::string_view(v)) {}
  LogField(absl::string_view k, const std::string& v) : key(k), value(absl::string_view(v)) {}
  LogField(absl::string_view k, double v) : key(k), value(v) {}
  template <typename Integer>
  requires std::is_integral_v<Integer> LogField(absl::string_view k, Integer v)
      : key(k), value(static_cast<int64_t>(v)) {}
};

// Everything that a line says; FormatLogLine is a pure function of it.
struct LogRecord {
  LogLevel level = LogLevel::kInfo;
  absl::string_view message;
  const LogContext* context = nullptr;  // Borrowed, never null.
  TimePoint monotonic;
  int64_t wall_us = 0;  // Microseconds since 1970 in UTC; for people only.
};

// PIPE_BUF on Linux: a write of at most this many bytes to a pipe is never mixed with another's.
inline constexpr size_t kMaxLogLineBytes = 4096;

// One JSON object and a newline, at most kMaxLogLineBytes. Long messages and values are cut at a
// character's boundary, bytes that are not UTF-8 become U+FFFD, and fields for which no room is
// left are replaced by `"truncated":true`.
std::string FormatLogLine(const LogRecord& record, const std::vector<LogField>& fields);

class Logger {
 public:
  // Borrows `clock`. Lines below `minimum` cost nothing.
  Logger(const Clock& clock, std::string process, LogLevel minimum)
      : clock_(clock), process_(std::move(process)), minimum_(minimum) {}
  virtual ~Logger() = default;
  // For callers whose arguments cost something.
  bool Writes(LogLevel level) const { return level >= minimum_; }
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  void Log(LogLevel level, absl::string_view message, const LogContext& context = {},
           const std::vector<LogField>& fields = {});

  void Info(absl::string_view message, const LogContext& context = {},
            const std::vector<LogField>& fields = {}) {
    Log(LogLevel::kInfo, message, context, fields);
  }
  void Warning(absl::string_view message, const LogContext& context = {},
               const std::vector<LogField>& fields = {}) {
    Log(LogLevel::kWarning, message, context, fields);
  }
  void Error(absl::string_view message, const LogContext& context = {},
             const std::vector<LogField>& fields = {}) {
    Log(LogLevel::kError, message, context, fields);
  }

 private:
  // `line` is complete, with its newline. Called from any thread.
  virtual void Write(absl::string_view line) = 0;

  const Clock& clock_;
  const std::string process_;
  const LogLevel minimum_;
};

// Writes to a file descriptor, stderr unless told otherwise, which it borrows. Never waits for the
// reader of a pipe: a line that would block is dropped and counted.
class StreamLogger final : public Logger {
 public:
  StreamLogger(const Clock& clock, std::string process, LogLevel minimum = LogLevel::kInfo,
               int descriptor = 2)
      : Logger(clock, std::move(process), minimum), descriptor_(descriptor) {}
  uint64_t dropped_lines() const;

 private:
  void Write(absl::string_view line) override;

  const int descriptor_;
  mutable Mutex mutex_;
  uint64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Keeps the lines, without their newlines, for a test to look at.
class CapturingLogger final : public Logger {
 public:
  explicit CapturingLogger(const Clock& clock, LogLevel minimum = LogLevel::kDebug)
      : Logger(clock, "test", minimum) {}
  std::vector<std::string> lines() const;

 private:
  void Write(absl::string_view line) override;
  mutable Mutex mutex_;
  std::vector<std::string> lines_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::base
