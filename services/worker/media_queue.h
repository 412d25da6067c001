#pragma once

// Items that wait for a decoder, fair in cost: first by tenant, then by request, then in order. Who
// has had least goes first; who comes back after a rest starts where the others are. Heavy items
// leave a decoder free for the rest. Not thread-safe, knows no time.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "scheduler/plan/ids.h"

namespace triptych::services {

template <typename Work>
class MediaQueue {
 public:
  struct Key {
    uint64_t tenant = 0;
    scheduler::RequestId request;
    scheduler::TaskId task;
    int64_t cost = 0;
  };
  struct Entry {
    Key key;
    Work work;
  };
  enum class Take { kAny, kLight };
  // About a photograph of 12 megapixels; what is above takes half a second or more.
  static constexpr int64_t kHeavyCost = int64_t{24} << 20;
  static bool IsHeavy(const Key& key) { return key.cost > kHeavyCost; }

  void Push(Key key, Work work) {
    Tenant& tenant = tenants_[key.tenant];
    if (tenant.requests.empty()) tenant.served = std::max(tenant.served, served_);
    Request& request = tenant.requests[key.request];
    if (request.entries.empty()) request.served = std::max(request.served, tenant.least);
    request.entries.push_back({std::move(key), std::move(work)});
    ++size_;
  }

  // The next; nullopt when there is none of that kind.
  std::optional<Entry> Pop(Take take) {
    Tenant* tenant = nullptr;
    Request* request = nullptr;
    for (auto& [id, candidate] : tenants_) {
      if (candidate.requests.empty()) continue;
      if (tenant != nullptr && candidate.served >= tenant->served) continue;
      Request* const its = Next(&candidate, take);
      if (its == nullptr) continue;
      tenant = &candidate;
      request = its;
    }
    if (tenant == nullptr) return std::nullopt;
    Entry entry = std::move(request->entries.front());
    request->entries.pop_front();
    served_ = tenant->served;
    tenant->least = request->served;
    tenant->served += entry.key.cost;
    request->served += entry.key.cost;
    Forget(entry.key);
    return entry;
  }

  // What waits of this task, if it still does.
  std::optional<Entry> Remove(scheduler::TaskId task) {
    for (auto& [tenant_id, tenant] : tenants_) {
      for (auto& [request_id, request] : tenant.requests) {
        auto it = std::find_if(request.entries.begin(), request.entries.end(),
                               [&](const Entry& entry) { return entry.key.task == task; });
        if (it == request.entries.end()) continue;
        Entry entry = std::move(*it);
        request.entries.erase(it);
        Forget(entry.key);
        return entry;
      }
    }
    return std::nullopt;
  }

  size_t size() const { return size_; }

 private:
  struct Request {
    int64_t served = 0;
    std::deque<Entry> entries;
  };
  struct Tenant {
    int64_t served = 0;
    int64_t least = 0;  // of the request that was served last
    std::map<scheduler::RequestId, Request> requests;
  };

  static Request* Next(Tenant* tenant, Take take) {
    Request* next = nullptr;
    for (auto& [id, request] : tenant->requests) {
      if (take == Take::kLight && IsHeavy(request.entries.front().key)) continue;
      if (next == nullptr || request.served < next->served) next = &request;
    }
    return next;
  }

  void Forget(const Key& key) {
    --size_;
    Tenant& tenant = tenants_.at(key.tenant);
    auto request = tenant.requests.find(key.request);
    if (request->second.entries.empty()) tenant.requests.erase(request);
    // Who rests keeps its debt only while somebody waits: alone, everybody starts anew.
    if (size_ > 0) return;
    tenants_.clear();
    served_ = 0;
  }

  std::map<uint64_t, Tenant> tenants_;
  int64_t served_ = 0;  // of the tenant that was served last, before that
  size_t size_ = 0;
};

}  // namespace triptych::services
