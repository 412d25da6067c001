#include "scheduler/cluster/waiting_queue.h"

namespace triptych::scheduler {

void WaitingQueue::Push(const Entry& entry) {
  classes_[entry.priority].tenants[entry.tenant][entry.arrival] = entry.request;
}

void WaitingQueue::Remove(const Entry& entry) {
  auto in_class = classes_.find(entry.priority);
  if (in_class == classes_.end()) return;
  auto& tenants = in_class->second.tenants;
  auto tenant = tenants.find(entry.tenant);
  if (tenant == tenants.end()) return;
  tenant->second.erase(entry.arrival);
  if (tenant->second.empty()) tenants.erase(tenant);
  if (tenants.empty()) classes_.erase(in_class);
}

std::optional<WaitingQueue::Entry> WaitingQueue::Front() const {
  if (classes_.empty()) return std::nullopt;
  const auto& [priority, in_class] = *classes_.begin();
  auto tenant = in_class.tenants.upper_bound(in_class.last_served);
  if (tenant == in_class.tenants.end()) tenant = in_class.tenants.begin();
  const auto& [arrival, request] = *tenant->second.begin();
  return Entry{priority, tenant->first, arrival, request};
}

void WaitingQueue::Take() {
  const std::optional<Entry> front = Front();
  if (!front.has_value()) return;
  classes_.begin()->second.last_served = front->tenant;
  Remove(*front);
}

void WaitingQueue::ForEach(const std::function<void(RequestId)>& visit) const {
  for (const auto& [priority, in_class] : classes_) {
    for (const auto& [tenant, requests] : in_class.tenants) {
      for (const auto& [arrival, request] : requests) visit(request);
    }
  }
}

}  // namespace triptych::scheduler
