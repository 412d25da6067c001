#pragma once

// Bounds how often a busy loop wakes: a token bucket over rounds. A loop with little to do answers
// each event at once; a busy one lets events gather, and what they cause leaves in fewer, fuller
// messages: a message costs its receiver a wake-up, which is dearer than its contents. One thread.

#include <algorithm>

#include "base/clock.h"

namespace triptych::base {

class RoundPacer {
 public:
  // At most one round an `interval` in the long run, `burst` at once after a rest.
  RoundPacer(Duration interval, int burst) : interval_(interval), burst_(burst * interval) {}

  // A round begins at `now`.
  void OnRound(TimePoint now) { empty_at_ = std::max(empty_at_, now) + interval_; }
  // The next one should not begin before.
  TimePoint NotBefore() const { return empty_at_ - burst_; }

 private:
  const Duration interval_;
  const Duration burst_;
  TimePoint empty_at_{};  // when the rounds so far are paid for
};

}  // namespace triptych::base
