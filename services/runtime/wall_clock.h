#pragma once

// The wall clock, which may jump: for what other systems read, never to be waited for.

#include <chrono>
#include <cstdint>

namespace triptych::services {

// Since 1970 in UTC.
inline int64_t UnixNanoseconds() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

}  // namespace triptych::services
