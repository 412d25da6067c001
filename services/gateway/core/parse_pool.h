#pragma once

// Threads that read what may take long to read: large bodies, long texts. The threads of the ports
// stay free for everybody else. Fair by tenant: they take turns, and one never has all threads.

#include <cstdint>
#include <deque>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "base/mutex.h"

namespace triptych::services {

// Thread-safe.
class ParsePool {
 public:
  // Bodies up to this size are read at once, where they have come: it takes a millisecond or two.
  static constexpr int64_t kAtOnceBytes = 16 << 10;
  // What waits of one tenant, and of all.
  static constexpr size_t kMaxOfTenant = 64;
  static constexpr size_t kMaxWaiting = 1024;

  enum class Turn { kRun, kStopping };  // stopping: there is no time for it any more
  using Work = absl::AnyInvocable<void(Turn turn)>;

  explicit ParsePool(int num_threads) : num_threads_(num_threads) {
    for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Run(); });
  }
  ~ParsePool() { Stop(); }

  // False when too much waits: the work is dropped. Otherwise it runs once, on a thread of the
  // pool.
  bool Post(const std::string& tenant, Work work) {
    base::MutexLock lock(&mutex_);
    if (stopping_ || waiting_ >= kMaxWaiting) return false;
    Tenant& its = tenants_[tenant];
    if (its.work.size() >= kMaxOfTenant) return false;
    if (its.work.empty()) turns_.push_back(tenant);
    its.work.push_back(std::move(work));
    ++waiting_;
    changed_.NotifyOne();
    return true;
  }

  // Returns when what runs is done and what waits has been told. Idempotent.
  void Stop() {
    {
      base::MutexLock lock(&mutex_);
      stopping_ = true;
      changed_.NotifyAll();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  struct Tenant {
    std::deque<Work> work;
    int running = 0;
  };

  void Run() {
    base::MutexLock lock(&mutex_);
    while (true) {
      const auto turn = NextTurn();
      if (turn == turns_.end()) {
        if (stopping_ && waiting_ == 0) return;
        changed_.Wait(&mutex_);
        continue;
      }
      const std::string tenant = *turn;
      turns_.erase(turn);
      Tenant& its = tenants_.at(tenant);
      Work work = std::move(its.work.front());
      its.work.pop_front();
      --waiting_;
      ++its.running;
      if (!its.work.empty()) turns_.push_back(tenant);
      const Turn what = stopping_ ? Turn::kStopping : Turn::kRun;
      mutex_.Unlock();
      work(what);
      work = nullptr;
      mutex_.Lock();
      const auto after = tenants_.find(tenant);
      if (--after->second.running == 0 && after->second.work.empty()) tenants_.erase(after);
      changed_.NotifyAll();
    }
  }

  // The tenant that has waited longest for a turn and may have one more thread.
  std::deque<std::string>::iterator NextTurn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const int most = stopping_ || num_threads_ == 1 ? num_threads_ : num_threads_ - 1;
    auto turn = turns_.begin();
    while (turn != turns_.end() && tenants_.at(*turn).running >= most) ++turn;
    return turn;
  }

  const int num_threads_;
  base::Mutex mutex_;
  base::CondVar changed_;
  absl::flat_hash_map<std::string, Tenant> tenants_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::string> turns_ ABSL_GUARDED_BY(mutex_);  // tenants with work, each once
  size_t waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // last: they use everything above
};

}  // namespace triptych::services
