#pragma once

// Waiting for what announces itself by no event.

#include <poll.h>

#include "base/clock.h"

namespace triptych::testing {

// How much longer than promised things may take in this build.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kSlowdown = 4;
#else
inline constexpr int kSlowdown = 1;
#endif

// Blocks for a moment without looking at anything.
inline void WaitAMoment(base::Duration duration) {
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(duration).count();
  poll(nullptr, 0, static_cast<int>(ms));
}

// Looks 100 times a second until it is true; false when `timeout` passed first.
template <typename Condition>
bool Eventually(base::Duration timeout, Condition condition) {
  const base::RealClock clock;
  const base::TimePoint until = clock.Now() + timeout;
  while (!condition()) {
    if (clock.Now() >= until) return false;
    WaitAMoment(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace triptych::testing
