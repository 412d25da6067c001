#pragma once

// CHECK ends the process with a line on stderr when something that cannot happen has happened. It
// is on in release builds. What can happen (bad input, a lost peer) is an absl::Status instead.

#include <cstdio>
#include <cstdlib>

namespace triptych::base {

[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, condition);
  std::fflush(stderr);
  std::abort();
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
#define CHECK_OK(status_expression) TRIPTYCH_CHECK((status_expression).ok())
