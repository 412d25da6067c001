#pragma once

// The one order of a request's work, everywhere: set once at admission, carried by every assignment
// and by a resubmission to the next scheduler. What comes before never waits for what comes after:
// whoever holds what it needs can be made to give it.

#include <compare>
#include <cstdint>

#include "scheduler/plan/ids.h"

namespace triptych::scheduler {

struct Rank {
  int32_t priority = 0;  // higher first
  uint64_t age = 0;      // place in the tenants' fair order; lower first
  RequestId request;     // no two are equal
  friend std::strong_ordering operator<=>(const Rank& a, const Rank& b) {
    if (const auto by = b.priority <=> a.priority; by != 0) return by;
    if (const auto by = a.age <=> b.age; by != 0) return by;
    return a.request <=> b.request;
  }
  friend bool operator==(const Rank&, const Rank&) = default;
};

}  // namespace triptych::scheduler
