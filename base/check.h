#pragma once

// CHECK ends the process with a line on stderr when something that cannot happen has happened. It
// is on in release builds. What can happen (bad input, a lost peer) is an absl::Status instead.

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace triptych::base {

[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, condition);
  std::fflush(stderr);
  std::abort();
}

inline const absl::Status& StatusIn(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusIn(const absl::StatusOr<T>& result) {
  return result.status();
}

// Takes a Status or a StatusOr by reference: a temporary lives until the call has ended.
template <typename Result>
void CheckOk(const Result& result, const char* expression, const char* file, int line) {
  if (__builtin_expect(result.ok(), 1)) return;
  CheckFailed((std::string(expression) + " is " + StatusIn(result).ToString()).c_str(), file, line);
}

}  // namespace triptych::base

#define TRIPTYCH_CHECK(condition)     \
  (__builtin_expect(!!(condition), 1) \
       ? static_cast<void>(0)         \
       : ::triptych::base::CheckFailed(#condition, __FILE__, __LINE__))
#define CHECK_TRUE(condition) TRIPTYCH_CHECK(condition)
#define CHECK_EQ(a, b) TRIPTYCH_CHECK((a) == (b))
#define CHECK_NE(a, b) TRIPTYCH_CHECK((a) != (b))
#define CHECK_LT(a, b) TRIPTYCH_CHECK((a) < (b))
#define CHECK_LE(a, b) TRIPTYCH_CHECK((a) <= (b))
#define CHECK_GT(a, b) TRIPTYCH_CHECK((a) > (b))
#define CHECK_GE(a, b) TRIPTYCH_CHECK((a) >= (b))
// Prints the status too.
#define CHECK_OK(status_expression) \
  ::triptych::base::CheckOk((status_expression), #status_expression, __FILE__, __LINE__)
