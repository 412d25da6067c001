#pragma once

// Monotonic time, and the only way to read it. Wall-clock time exists in log lines and in what
// people read, never in a decision; clocks of two processes are never compared (messages carry a
// time to live, not a time).

#include <chrono>
#include <cstdint>

namespace triptych::base {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

// No deadline: later than every time point that occurs.
inline constexpr TimePoint kNever = TimePoint::max();

inline double ToSeconds(Duration d) { return std::chrono::duration<double>(d).count(); }
inline Duration FromSeconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;
};

class RealClock final : public Clock {
 public:
  TimePoint Now() const override {
    return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now());
  }
};

// Seconds since 1970 by the wall clock, which may jump: to be shown, never to be waited for.
inline int64_t UnixSeconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Time that moves only when told to. One thread.
class SimulatedClock final : public Clock {
 public:
  TimePoint Now() const override { return now_; }
  void Advance(Duration d) { now_ += d; }
  void Set(TimePoint now) { now_ = now; }

 private:
  // Not zero, so that "an hour ago" is still a valid time point.
  TimePoint now_{std::chrono::hours(1000)};
};

}  // namespace triptych::base
