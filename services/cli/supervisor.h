#pragma once

// Keeps a set of child processes alive: starts them, reads the addresses that each prints, starts
// those that die again with back-off, and stops them in order. Knows nothing of what they are.
// Thread-safe; one thread of its own, which is the parent of every child.

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "services/cli/child_process.h"

namespace triptych::services {

// What a child says of itself: "listening grpc=127.0.0.1:7000 admin=127.0.0.1:7001".
using Addresses = std::map<std::string, std::string>;

// Nullopt when the line is not of that form.
std::optional<Addresses> ParseListeningLine(absl::string_view line);

// The last line of a log that is not blank, or words that say there is none.
std::string LastLine(const std::string& path);

struct ChildSpec {
  std::string name;  // unique
  std::string roles;
  ChildProcess::Command command;
  int stop_rank = 0;  // children of a lower rank are stopped first
};

enum class ChildState { kStarting, kListening, kWaiting, kFailed, kStopped };
// "starting", "ready", "restarting", "failed", "stopped".
absl::string_view ToString(ChildState state);

struct ChildStatus {
  std::string name;
  std::string roles;
  ChildState state = ChildState::kStarting;
  pid_t pid = 0;  // 0 while it does not run
  int restarts = 0;
  Addresses addresses;
  std::string log_path;
  std::string last_exit;  // how it ended last; empty: never
};

struct SupervisorOptions {
  base::Duration first_backoff = std::chrono::milliseconds(50);
  base::Duration longest_backoff = std::chrono::seconds(2);
  base::Duration backoff_reset = std::chrono::seconds(10);  // of life
  // From the first SIGTERM to SIGKILL. Rank r of n gets its SIGTERM when all lower ranks are gone,
  // at the latest after r / n of it.
  base::Duration stop_grace = std::chrono::seconds(10);
};

class Supervisor {
 public:
  // Called on the supervisor's thread after each change; must not call back. May be empty.
  using OnChange = std::function<void(const std::vector<ChildStatus>&)>;

  // Borrows `clock`.
  Supervisor(const base::Clock& clock, SupervisorOptions options, OnChange on_change);
  // Stop().
  ~Supervisor();

  // Starts a child. A child that ends before it was ever listening has failed for good; one that
  // ends later is started again.
  void Add(ChildSpec spec);

  // What it will be started with next time, so that it gets the same ports.
  void SetCommand(absl::string_view name, std::vector<std::string> argv);

  // Blocks until it listens. UNAVAILABLE when it failed (with its exit, its last words and the path
  // of its log), DEADLINE_EXCEEDED after `timeout`, CANCELLED when stopped.
  absl::StatusOr<Addresses> WaitListening(absl::string_view name, base::Duration timeout);

  // Waits until something changed since the caller's last call, at most `timeout`.
  void WaitForChange(base::Duration timeout);

  std::vector<ChildStatus> Snapshot() const;

  // SIGTERM by rank, SIGKILL to what is left after the grace; blocks until all are gone.
  void Stop();

 private:
  struct Child {
    ChildSpec spec;
    ChildStatus status;
    std::unique_ptr<ChildProcess> process;
    base::TimePoint started;
    base::TimePoint next_start;
    base::Duration backoff{0};
    bool was_listening = false;
    bool told_to_stop = false;
  };

  void Run();
  // Each returns whether something changed.
  bool StartDue(base::TimePoint now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool ReadOutput(Child* child) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool NoticeExit(Child* child, base::TimePoint now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AdvanceStop(base::TimePoint now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Ended(Child* child, std::string how, base::TimePoint now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  base::TimePoint NextDeadline(base::TimePoint now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AllGone() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<ChildStatus> SnapshotLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Child* Find(absl::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake();
  void WaitForEvents(base::TimePoint until);

  const base::Clock& clock_;
  const SupervisorOptions options_;
  const OnChange on_change_;
  const int wake_descriptor_;
  mutable base::Mutex mutex_;
  base::CondVar changed_;
  std::vector<std::unique_ptr<Child>> children_ ABSL_GUARDED_BY(mutex_);
  uint64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t seen_changes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  base::TimePoint stop_started_ ABSL_GUARDED_BY(mutex_);
  base::Mutex join_mutex_;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace triptych::services
