#pragma once

// The order in which tenants are served, as one number a request: start-time fair queueing (Goyal,
// Vin, Cheng 1996). A tenant's requests are spaced by their cost; one that was idle starts at the
// age of what is being served now. So a request waits for what is older, and ages only grow: nobody
// waits for ever. One thread.

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

namespace triptych::scheduler {

class FairOrder {
 public:
  // The age of a new request; positive. `cost` in tokens.
  uint64_t Admit(const std::string& tenant, int64_t cost) {
    uint64_t& next = next_[tenant];
    const uint64_t age = std::max(next, now_);
    next = age + static_cast<uint64_t>(std::max<int64_t>(cost, 1));
    if (next_.size() > kMostTenants) Forget();
    return age;
  }
  // A request of that age is served, or has come from an earlier scheduler.
  void Reach(uint64_t age) { now_ = std::max(now_, age); }

 private:
  // Whoever is behind the present starts at it anyway. If all are ahead, the latest lose their
  // debt.
  void Forget() {
    std::erase_if(next_, [this](const auto& tenant) { return tenant.second <= now_; });
    while (next_.size() > kMostTenants) next_.erase(next_.begin());
  }
  static constexpr size_t kMostTenants = 1 << 16;

  uint64_t now_ = 1;
  std::map<std::string, uint64_t> next_;  // of a tenant's next request at least
};

}  // namespace triptych::scheduler
