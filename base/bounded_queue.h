#pragma once

// A queue between threads with a bound on its length: beyond it TryPush refuses, so that the caller
// can say RESOURCE_EXHAUSTED instead of growing without end.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"

namespace triptych::base {

// kNow: what is queued is to be taken at once; a consumer that lets items gather stops.
enum class Urgency : uint8_t { kGather, kNow };

// Thread-safe: any number of producers and consumers.
template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // False when the queue is full or closed; `value` is then untouched.
  bool TryPush(T&& value, Urgency urgency = Urgency::kGather) {
    {
      MutexLock lock(&mutex_);
      if (closed_ || items_.size() >= capacity_) return false;
      items_.push_back(std::move(value));
      if (urgency == Urgency::kNow) urgent_ = true;
      if (urgent_ || items_.size() == capacity_ / 2) gathered_.NotifyAll();
    }
    ready_.NotifyOne();
    return true;
  }

  // Takes everything that is queued, waiting for the first item until `deadline`. Empty after the
  // deadline, or when the queue is closed and drained. Before `not_before` it lets items gather, as
  // long as none is urgent and the queue is not half full: a bound on the number of rounds of a
  // busy consumer.
  std::deque<T> PopAll(TimePoint deadline, TimePoint not_before = TimePoint::min()) {
    std::deque<T> taken;
    MutexLock lock(&mutex_);
    while (items_.empty() && !closed_) {
      if (deadline == kNever) {
        ready_.Wait(&mutex_);
      } else if (!ready_.WaitUntil(&mutex_, deadline)) {
        break;
      }
    }
    while (!items_.empty() && !urgent_ && items_.size() < capacity_ / 2 && !closed_) {
      if (!gathered_.WaitUntil(&mutex_, not_before)) break;
    }
    taken.swap(items_);
    urgent_ = false;
    return taken;
  }

  // Waits for one item; nullopt when the queue is closed and drained.
  std::optional<T> Pop() {
    MutexLock lock(&mutex_);
    while (items_.empty() && !closed_) ready_.Wait(&mutex_);
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    return item;
  }

  // Refuses pushes from now on; what is queued can still be taken.
  void Close() {
    {
      MutexLock lock(&mutex_);
      closed_ = true;
    }
    ready_.NotifyAll();
    gathered_.NotifyAll();
  }

  bool closed() const {
    MutexLock lock(&mutex_);
    return closed_;
  }

  size_t size() const {
    MutexLock lock(&mutex_);
    return items_.size();
  }

 private:
  const size_t capacity_;
  mutable Mutex mutex_;
  CondVar ready_;
  CondVar gathered_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool urgent_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace triptych::base
