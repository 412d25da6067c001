#pragma once

// Which pairs of workers cannot reach each other just now, as they say themselves. A pair that
// failed is closed for a while, longer each time; what moved between them ends that. One thread.

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "base/clock.h"
#include "scheduler/plan/ids.h"

namespace triptych::scheduler {

class LinkTable {
 public:
  bool IsOpen(Incarnation a, Incarnation b, base::TimePoint now) const {
    if (closed_.empty() || a == b) return true;
    auto it = closed_.find(Pair(a, b));
    return it == closed_.end() || it->second.until <= now;
  }
  // Until when. A pair that is closed already is left alone: many transfers fail by one cause.
  base::TimePoint Close(Incarnation a, Incarnation b, base::TimePoint now) {
    Link& link = closed_[Pair(a, b)];
    if (link.until > now) return link.until;
    const base::Duration wait = kFirst * (int64_t{1} << std::min(link.in_a_row++, 16));
    return link.until = now + std::min<base::Duration>(wait, kLongest);
  }
  void Succeeded(Incarnation a, Incarnation b) {
    if (!closed_.empty()) closed_.erase(Pair(a, b));
  }
  // Forgets all pairs of a peer that is lost: no more than the living ones' are kept.
  void Forget(Incarnation peer) {
    std::erase_if(closed_, [&](const auto& link) {
      return link.first.first == peer || link.first.second == peer;
    });
  }
  bool empty() const { return closed_.empty(); }

 private:
  // The first try through a link that was down costs a transfer's patience, so not too often.
  static constexpr base::Duration kFirst = std::chrono::seconds(2);
  static constexpr base::Duration kLongest = std::chrono::seconds(30);

  struct Link {
    base::TimePoint until{};
    int in_a_row = 0;
  };
  static std::pair<Incarnation, Incarnation> Pair(Incarnation a, Incarnation b) {
    return std::minmax(a, b);
  }
  std::map<std::pair<Incarnation, Incarnation>, Link> closed_;
};

}  // namespace triptych::scheduler
