#pragma once

// Bytes that clients' bodies and media may hold in this process, reserved before they are kept. One
// peer has at most its share, so that the others always find room.

#include <cstdint>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/mutex.h"

namespace triptych::services {

// Thread-safe. Outlives its reservations.
class PayloadBudget {
 public:
  // `share` is what one peer may hold of `bytes`.
  PayloadBudget(int64_t bytes, int64_t share) : share_(share), free_(bytes) {}
  explicit PayloadBudget(int64_t bytes) : PayloadBudget(bytes, bytes) {}

  // Bytes that go back when it is destroyed. Move-only.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept { *this = std::move(other); }
    Reservation& operator=(Reservation&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(peer_, other.peer_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Reservation() { ShrinkTo(0); }

    // Reserves until `bytes` are held in all. False, and nothing changes, when the budget or the
    // peer's share of it is spent.
    bool GrowTo(int64_t bytes) {
      if (bytes <= bytes_) return true;
      if (budget_ == nullptr || !budget_->Take(peer_, bytes - bytes_)) return false;
      bytes_ = bytes;
      return true;
    }
    // Gives back what is above `bytes`.
    void ShrinkTo(int64_t bytes) {
      if (bytes >= bytes_) return;
      budget_->Give(peer_, bytes_ - bytes);
      bytes_ = bytes;
    }
    int64_t bytes() const { return bytes_; }

   private:
    friend class PayloadBudget;
    Reservation(PayloadBudget* budget, std::string peer)
        : budget_(budget), peer_(std::move(peer)) {}
    PayloadBudget* budget_ = nullptr;
    std::string peer_;
    int64_t bytes_ = 0;
  };

  // An empty reservation that can grow.
  Reservation Open(std::string peer = "") { return Reservation(this, std::move(peer)); }
  int64_t free_bytes() const {
    base::MutexLock lock(&mutex_);
    return free_;
  }

 private:
  bool Take(const std::string& peer, int64_t bytes) {
    base::MutexLock lock(&mutex_);
    if (bytes > free_) return false;
    int64_t& held = held_[peer];
    const bool fits = bytes <= share_ - held;
    if (fits) held += bytes, free_ -= bytes;
    if (held == 0) held_.erase(peer);
    return fits;
  }
  void Give(const std::string& peer, int64_t bytes) {
    base::MutexLock lock(&mutex_);
    free_ += bytes;
    const auto held = held_.find(peer);
    held->second -= bytes;
    if (held->second == 0) held_.erase(held);
  }

  const int64_t share_;
  mutable base::Mutex mutex_;
  int64_t free_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, int64_t> held_ ABSL_GUARDED_BY(mutex_);  // none of 0
};

}  // namespace triptych::services
