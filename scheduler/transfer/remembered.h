#pragma once

// A set that forgets its oldest members: bounded memory of what is over.

#include <deque>
#include <set>

namespace triptych::scheduler {

template <typename Id>
class Remembered {
 public:
  explicit Remembered(size_t limit) : limit_(limit) {}
  void Insert(const Id& id) {
    if (!members_.insert(id).second) return;
    order_.push_back(id);
    if (order_.size() <= limit_) return;
    members_.erase(order_.front());
    order_.pop_front();
  }
  bool Contains(const Id& id) const { return members_.count(id) > 0; }

 private:
  const size_t limit_;
  std::set<Id> members_;
  std::deque<Id> order_;
};

}  // namespace triptych::scheduler
