#pragma once

// What waits for a prefill worker: higher priority first, then tenants in turn, each tenant's
// requests in the order of their arrival (so what comes back is in front again). Every operation is
// logarithmic. One thread.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "scheduler/plan/ids.h"

namespace triptych::scheduler {

class WaitingQueue {
 public:
  struct Entry {
    int32_t priority = 0;
    std::string tenant;
    uint64_t arrival = 0;
    RequestId request;
  };

  void Push(const Entry& entry);
  // Removes what Push added; nothing when it is not there.
  void Remove(const Entry& entry);
  // The next in turn, if any. It stays until Take or Remove.
  std::optional<Entry> Front() const;
  // Removes the front, and gives the turn to the next tenant.
  void Take();
  bool empty() const { return classes_.empty(); }
  // Calls `visit` for each, in no order that means anything but always the same.
  void ForEach(const std::function<void(RequestId)>& visit) const;

 private:
  struct Class {
    std::map<std::string, std::map<uint64_t, RequestId>> tenants;
    std::string last_served;
  };
  std::map<int32_t, Class, std::greater<>> classes_;  // by priority
};

}  // namespace triptych::scheduler
