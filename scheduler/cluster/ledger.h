#pragma once

// What the scheduler has promised of one worker. The worker's own ledger is the truth: the last
// report, less the assignments that the report cannot know yet. One thread.

#include <array>
#include <cstdint>
#include <map>

#include "scheduler/plan/worker_messages.h"

namespace triptych::scheduler {

// Memory and places of a worker.
struct Amount {
  int32_t kv_blocks = 0;
  int32_t embedding_slots = 0;
  int32_t sequences = 0;
  friend bool operator==(const Amount&, const Amount&) = default;
  Amount& operator+=(const Amount& other);
  Amount& operator-=(const Amount& other);
  // True where `need` is not above this in any part.
  bool Covers(const Amount& need) const;
};

class Ledger;

// One task's share of a worker: given back when it is destroyed. Must not outlive its ledger.
class Credit {
 public:
  Credit() = default;
  Credit(Credit&& other) noexcept { *this = std::move(other); }
  Credit& operator=(Credit&& other) noexcept;
  ~Credit() { Return(); }

  // Its input is not there yet: it holds memory, but keeps nobody waiting. To be said once, at
  // first.
  void AwaitInput();
  // All of it has come.
  void BecomeReady();
  // The work is done but the memory is still held (a prefill whose KV waits for its decode).
  void FinishWork();
  void Return();

 private:
  friend class Ledger;
  Ledger* ledger_ = nullptr;  // borrowed; null: nothing is held
  Stage stage_ = Stage::kEncode;
  int64_t cost_ = 0;
  int64_t waiting_ = 0;  // cost that awaits its input
  uint64_t sequence_ = 0;
  uint64_t life_ = 0;
};

class Ledger {
 public:
  class Watcher {
   public:
    virtual void Changed() = 0;

   protected:
    ~Watcher() = default;
  };

  // `watcher` is borrowed, may be null, and hears of every change.
  explicit Ledger(const Amount& free, Watcher* watcher = nullptr)
      : watcher_(watcher), reported_(free) {}
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;
  ~Ledger();

  // `cost` in the stage's unit (patches, tokens, sequences). `sequence` numbers the message that
  // assigns the task; 0 for a task that the worker already holds.
  Credit Reserve(Stage stage, const Amount& need, int64_t cost, uint64_t sequence);

  // The worker has `free` after it handled all messages up to `handled_sequence`.
  void Report(const Amount& free, uint64_t handled_sequence);

  // A new stream: messages are numbered from 1 again, and all that was sent before has been handled
  // or is lost.
  void Restart(const Amount& free);

  Amount free() const;
  // Work that could be done now; that which awaits its input.
  int64_t cost(Stage stage) const { return cost_[static_cast<int>(stage)]; }
  int64_t waiting(Stage stage) const { return waiting_[static_cast<int>(stage)]; }
  // What new work would find before it: what waits may be ready by then, or not.
  int64_t load(Stage stage) const { return cost(stage) + waiting(stage) / 2; }
  int32_t tasks(Stage stage) const { return tasks_[static_cast<int>(stage)]; }
  int32_t tasks() const { return tasks_[0] + tasks_[1] + tasks_[2]; }

 private:
  friend class Credit;
  void Tell() {
    if (watcher_ != nullptr) watcher_->Changed();
  }
  Watcher* const watcher_;
  Amount reported_;
  Amount unreflected_total_;
  std::map<uint64_t, Amount> unreflected_;  // by sequence
  std::array<int64_t, kNumStages> cost_{}, waiting_{};
  std::array<int32_t, kNumStages> tasks_{};
  uint64_t life_ = 0;  // counts restarts
};

}  // namespace triptych::scheduler
