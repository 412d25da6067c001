#include "base/log.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "base/check.h"

namespace triptych::base {
namespace {

// Escaped sizes. The fixed members come to at most 4 * 256 + 1024 + 200 bytes of the 4096.
constexpr size_t kMaxMessageBytes = 1024;
constexpr size_t kMaxContextBytes = 256;
constexpr size_t kMaxValueBytes = 1024;
constexpr absl::string_view kTruncated = ",\"truncated\":true";
constexpr absl::string_view kEnd = "}\n";

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "unknown";
}

// Length of the well-formed UTF-8 character at the front of `text`, or 0. Table 3-7 of the Unicode
// standard: no overlong forms, no surrogates, nothing above U+10FFFF.
size_t CharacterLength(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned low = first == 0xE0 ? 0xA0 : 0x80;
    const unsigned high = first == 0xED ? 0x9F : 0xBF;
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned low = first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = first == 0xF4 ? 0x8F : 0xBF;
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

std::string EscapedAscii(char c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  const auto code = static_cast<unsigned char>(c);
  if (code < 0x20 || code == 0x7F) return absl::StrFormat("\\u%04x", code);
  return std::string(1, c);
}

// Bytes at the front of `text` that stand for themselves in JSON.
size_t PlainLength(absl::string_view text) {
  size_t length = 0;
  while (length < text.size()) {
    const auto c = static_cast<unsigned char>(text[length]);
    if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\') break;
    ++length;
  }
  return length;
}

// A JSON string with its quotes. At most `max_bytes` between them; whole characters only.
std::string Quoted(absl::string_view text, size_t max_bytes) {
  std::string out = "\"";
  while (!text.empty()) {
    // Most of what is logged needs no look at each character.
    const size_t plain = std::min(PlainLength(text), max_bytes + 1 - out.size());
    out.append(text.data(), plain);
    text.remove_prefix(plain);
    if (text.empty()) break;
    const size_t length = CharacterLength(text);
    std::string next = "\\ufffd";
    if (length == 1) next = EscapedAscii(text[0]);
    if (length > 1) next = std::string(text.substr(0, length));
    if (out.size() - 1 + next.size() > max_bytes) break;
    out += next;
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out + "\"";
}

// JSON has no NaN and no infinity: those become strings.
std::string Number(double value) {
  if (!std::isfinite(value)) return absl::StrCat("\"", value, "\"");
  return absl::StrFormat("%.9g", value);
}

std::string ValueText(const LogField& field) {
  if (const auto* text = std::get_if<absl::string_view>(&field.value)) {
    return Quoted(*text, kMaxValueBytes);
  }
  if (const auto* integer = std::get_if<int64_t>(&field.value)) return absl::StrCat(*integer);
  return Number(std::get<double>(field.value));
}

void AppendContext(const LogContext& context, std::string* line) {
  const auto append = [line](absl::string_view key, const std::string& value) {
    if (!value.empty()) absl::StrAppend(line, ",\"", key, "\":", Quoted(value, kMaxContextBytes));
  };
  append("process", context.process);
  append("stage", context.stage);
  append("request_id", context.request_id);
  if (!context.request_id.empty()) absl::StrAppend(line, ",\"epoch\":", context.epoch);
}

}  // namespace

std::string FormatLogLine(const LogRecord& record, const std::vector<LogField>& fields) {
  const absl::Time wall = absl::FromUnixMicros(record.wall_us);
  std::string line =
      absl::StrFormat("{\"ts\":\"%s\",\"level\":\"%s\",\"monotonic_ns\":%d",
                      absl::FormatTime("%E4Y-%m-%dT%H:%M:%E6SZ", wall, absl::UTCTimeZone()),
                      LevelName(record.level), record.monotonic.time_since_epoch().count());
  AppendContext(*record.context, &line);
  absl::StrAppend(&line, ",\"message\":", Quoted(record.message, kMaxMessageBytes));
  const size_t room = kMaxLogLineBytes - kTruncated.size() - kEnd.size();
  for (const LogField& field : fields) {
    const std::string member =
        absl::StrCat(",", Quoted(field.key, kMaxContextBytes), ":", ValueText(field));
    if (line.size() + member.size() > room) {
      absl::StrAppend(&line, kTruncated);
      break;
    }
    line += member;
  }
  absl::StrAppend(&line, kEnd);
  return line;
}

std::vector<std::string> LogLevelNames() { return {"info", "debug", "warning", "error"}; }

LogLevel LogLevelOf(absl::string_view name) {
  for (LogLevel level : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning}) {
    if (name == LevelName(level)) return level;
  }
  CHECK_TRUE(name == LevelName(LogLevel::kError));
  return LogLevel::kError;
}

void Logger::Log(LogLevel level, absl::string_view message, const LogContext& context,
                 const std::vector<LogField>& fields) {
  if (level < minimum_) return;
  LogContext filled = context;
  if (filled.process.empty()) filled.process = process_;
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  const LogRecord record{
      .level = level,
      .message = message,
      .context = &filled,
      .monotonic = clock_.Now(),
      .wall_us = std::chrono::duration_cast<std::chrono::microseconds>(wall).count()};
  Write(FormatLogLine(record, fields));
}

void StreamLogger::Write(absl::string_view line) {
  MutexLock lock(&mutex_);
  // A pipe with room for PIPE_BUF bytes polls as writable, so the write below does not block.
  pollfd ready{.fd = descriptor_, .events = POLLOUT, .revents = 0};
  // One whose reader is gone polls with an error too, and a write would raise SIGPIPE.
  if (poll(&ready, 1, 0) != 1 || ready.revents != POLLOUT ||
      write(descriptor_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    ++dropped_;
  }
}

uint64_t StreamLogger::dropped_lines() const {
  MutexLock lock(&mutex_);
  return dropped_;
}

void CapturingLogger::Write(absl::string_view line) {
  MutexLock lock(&mutex_);
  lines_.emplace_back(line.substr(0, line.size() - 1));
}

std::vector<std::string> CapturingLogger::lines() const {
  MutexLock lock(&mutex_);
  return lines_;
}

}  // namespace triptych::base
