#pragma once

// How many connections there are, in all and of one address. Beyond the bound the one that has been
// silent longest makes way; where none is silent the newcomer is not let in.

#include <algorithm>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace triptych::services {

struct ConnectionLimits {
  int64_t total = 8192;
  int64_t per_address = 2048;
};

// `Connection` has silent_since() (kNever while a request of it is answered) and GiveWay(), both
// callable from any thread. Thread-safe; outlives its places.
template <typename Connection>
class ConnectionTable {
 public:
  explicit ConnectionTable(ConnectionLimits limits) : limits_(limits) {}

  // Given back when it is destroyed.
  using Place = std::shared_ptr<void>;

  // Null: not let in. `connection` is not kept alive.
  Place Enter(const std::shared_ptr<Connection>& connection, const std::string& address) {
    std::shared_ptr<Connection> silent;
    Place place;
    // Beyond the lock: whoever is the last to hold a connection ends it, and so its place here.
    std::vector<std::shared_ptr<Connection>> seen;
    {
      base::MutexLock lock(&mutex_);
      const bool full = Count() >= limits_.total;
      if (full || by_address_[address] >= limits_.per_address) {
        silent = Silent(full ? "" : address, &seen);
        if (silent == nullptr) return Forgotten(address);
      }
      ++by_address_[address];
      entries_.push_back({connection, address, false});
      const auto entry = std::prev(entries_.end());
      place = Place(this, [this, entry](void*) { Leave(entry); });
    }
    if (silent != nullptr) silent->GiveWay();
    return place;
  }

  int64_t size() const {
    base::MutexLock lock(&mutex_);
    return Count();
  }

 private:
  struct Entry {
    std::weak_ptr<Connection> connection;
    std::string address;
    bool told = false;  // to give way: it is as good as gone
  };
  using Entries = std::list<Entry>;

  int64_t Count() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return static_cast<int64_t>(entries_.size()) - num_told_;
  }

  // The longest silent of an address, or of all ("").
  std::shared_ptr<Connection> Silent(const std::string& address,
                                     std::vector<std::shared_ptr<Connection>>* seen)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::shared_ptr<Connection> longest;
    Entry* its = nullptr;
    base::TimePoint since = base::kNever;
    for (Entry& entry : entries_) {
      if (entry.told || (!address.empty() && entry.address != address)) continue;
      std::shared_ptr<Connection> connection = entry.connection.lock();
      if (connection == nullptr) continue;
      seen->push_back(connection);
      if (connection->silent_since() >= since) continue;
      since = connection->silent_since();
      longest = std::move(connection);
      its = &entry;
    }
    if (its != nullptr) {
      its->told = true;
      ++num_told_;
      CountOut(its->address);
    }
    return longest;
  }

  void CountOut(const std::string& address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto count = by_address_.find(address);
    if (--count->second == 0) by_address_.erase(count);
  }
  Place Forgotten(const std::string& address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto count = by_address_.find(address);
    if (count != by_address_.end() && count->second == 0) by_address_.erase(count);
    return nullptr;
  }

  void Leave(typename Entries::iterator entry) {
    base::MutexLock lock(&mutex_);
    if (entry->told) {
      --num_told_;
    } else {
      CountOut(entry->address);
    }
    entries_.erase(entry);
  }

  const ConnectionLimits limits_;
  mutable base::Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  int64_t num_told_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<std::string, int64_t> by_address_ ABSL_GUARDED_BY(mutex_);  // not told
};

}  // namespace triptych::services
