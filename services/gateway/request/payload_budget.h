#pragma once

// Bytes that clients' bodies and media may hold in this process, reserved before they are read.

#include <atomic>
#include <cstdint>
#include <utility>

namespace triptych::services {

// Thread-safe. Outlives its reservations.
class PayloadBudget {
 public:
  explicit PayloadBudget(int64_t bytes) : free_(bytes) {}

  // Bytes that go back when it is destroyed. Move-only.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Reservation& operator=(Reservation&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Reservation() { ShrinkTo(0); }

    // Reserves until `bytes` are held in all. False, and nothing changes, when the budget is spent.
    bool GrowTo(int64_t bytes) {
      if (bytes <= bytes_) return true;
      if (budget_ == nullptr || !budget_->Take(bytes - bytes_)) return false;
      bytes_ = bytes;
      return true;
    }
    // Gives back what is above `bytes`.
    void ShrinkTo(int64_t bytes) {
      if (bytes >= bytes_) return;
      budget_->free_.fetch_add(bytes_ - bytes, std::memory_order_relaxed);
      bytes_ = bytes;
    }
    int64_t bytes() const { return bytes_; }

   private:
    friend class PayloadBudget;
    explicit Reservation(PayloadBudget* budget) : budget_(budget) {}
    PayloadBudget* budget_ = nullptr;
    int64_t bytes_ = 0;
  };

  // An empty reservation that can grow.
  Reservation Open() { return Reservation(this); }
  int64_t free_bytes() const { return free_.load(std::memory_order_relaxed); }

 private:
  bool Take(int64_t bytes) {
    int64_t free = free_.load(std::memory_order_relaxed);
    while (free >= bytes) {
      if (free_.compare_exchange_weak(free, free - bytes, std::memory_order_relaxed)) return true;
    }
    return false;
  }

  std::atomic<int64_t> free_;
};

}  // namespace triptych::services
