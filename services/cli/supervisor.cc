#include "services/cli/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/check.h"

namespace triptych::services {

std::string LastLine(const std::string& path) {
  constexpr std::streamoff kMostBytes = 4096;
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return "it wrote nothing";
  const std::streamoff size = in.tellg();
  in.seekg(std::max<std::streamoff>(0, size - kMostBytes));
  std::string last = "it wrote nothing";
  for (std::string line; std::getline(in, line);) {
    if (!absl::StripAsciiWhitespace(line).empty()) last = line;
  }
  return last;
}

std::optional<Addresses> ParseListeningLine(absl::string_view line) {
  if (!absl::ConsumePrefix(&line, "listening ")) return std::nullopt;
  Addresses addresses;
  for (absl::string_view word : absl::StrSplit(line, ' ', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> item = absl::StrSplit(word, absl::MaxSplits('=', 1));
    addresses.insert(item);
  }
  return addresses;
}

absl::string_view ToString(ChildState state) {
  switch (state) {
    case ChildState::kStarting:
      return "starting";
    case ChildState::kListening:
      return "ready";
    case ChildState::kWaiting:
      return "restarting";
    case ChildState::kFailed:
      return "failed";
    case ChildState::kStopped:
      return "stopped";
  }
  return "unknown";
}

Supervisor::Supervisor(const base::Clock& clock, SupervisorOptions options, OnChange on_change)
    : clock_(clock),
      options_(options),
      on_change_(std::move(on_change)),
      wake_descriptor_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      thread_([this] { Run(); }) {
  CHECK_GE(wake_descriptor_, 0);
}

Supervisor::~Supervisor() {
  Stop();
  close(wake_descriptor_);
}

void Supervisor::Add(ChildSpec spec) {
  {
    base::MutexLock lock(&mutex_);
    auto child = std::make_unique<Child>();
    child->status.name = spec.name;
    child->status.roles = spec.roles;
    child->status.log_path = spec.command.log_path;
    child->next_start = clock_.Now();
    child->backoff = options_.first_backoff;
    child->spec = std::move(spec);
    children_.push_back(std::move(child));
  }
  Wake();
}

void Supervisor::SetCommand(absl::string_view name, std::vector<std::string> argv) {
  base::MutexLock lock(&mutex_);
  if (Child* child = Find(name); child != nullptr) child->spec.command.argv = std::move(argv);
}

absl::StatusOr<Addresses> Supervisor::WaitListening(absl::string_view name,
                                                    base::Duration timeout) {
  const base::TimePoint until = clock_.Now() + timeout;
  base::MutexLock lock(&mutex_);
  while (true) {
    const Child* child = Find(name);
    CHECK_TRUE(child != nullptr);
    if (stopping_) return absl::CancelledError("stopped");
    if (child->status.state == ChildState::kListening) return child->status.addresses;
    if (child->status.state == ChildState::kFailed) {
      return absl::UnavailableError(absl::StrCat(
          name, " ended at its start (", child->status.last_exit,
          "): ", LastLine(child->status.log_path), "\nits log is ", child->status.log_path));
    }
    if (!changed_.WaitUntil(&mutex_, until)) {
      return absl::DeadlineExceededError(
          absl::StrCat(name, " does not listen after ", base::ToSeconds(timeout), " s"));
    }
  }
}

void Supervisor::WaitForChange(base::Duration timeout) {
  const base::TimePoint until = clock_.Now() + timeout;
  base::MutexLock lock(&mutex_);
  while (changes_ == seen_changes_ && changed_.WaitUntil(&mutex_, until)) {
  }
  seen_changes_ = changes_;
}

std::vector<ChildStatus> Supervisor::Snapshot() const {
  base::MutexLock lock(&mutex_);
  return SnapshotLocked();
}

std::vector<ChildStatus> Supervisor::SnapshotLocked() const {
  std::vector<ChildStatus> all;
  for (const auto& child : children_) all.push_back(child->status);
  return all;
}

void Supervisor::Stop() {
  {
    base::MutexLock lock(&mutex_);
    if (!stopping_) {
      stopping_ = true;
      stop_started_ = clock_.Now();
    }
    changed_.NotifyAll();
  }
  Wake();
  base::MutexLock lock(&join_mutex_);
  if (thread_.joinable()) thread_.join();
}

void Supervisor::Run() {
  while (true) {
    base::TimePoint until;
    std::vector<ChildStatus> to_report;
    {
      base::MutexLock lock(&mutex_);
      const base::TimePoint now = clock_.Now();
      bool changed = false;
      for (const auto& child : children_) {
        if (child->process == nullptr) continue;
        changed |= ReadOutput(child.get());
        changed |= NoticeExit(child.get(), now);
      }
      if (stopping_) {
        AdvanceStop(now);
      } else {
        changed |= StartDue(now);
      }
      if (changed) {
        ++changes_;
        changed_.NotifyAll();
        to_report = SnapshotLocked();
      }
      if (stopping_ && AllGone()) return;
      until = NextDeadline(now);
    }
    if (!to_report.empty() && on_change_) on_change_(to_report);
    WaitForEvents(until);
  }
}

bool Supervisor::StartDue(base::TimePoint now) {
  bool changed = false;
  for (const auto& child : children_) {
    const bool waits =
        child->status.state == ChildState::kStarting || child->status.state == ChildState::kWaiting;
    if (child->process != nullptr || !waits || now < child->next_start) continue;
    absl::StatusOr<ChildProcess> process = ChildProcess::Start(child->spec.command);
    changed = true;
    if (child->status.state == ChildState::kWaiting) ++child->status.restarts;
    if (!process.ok()) {
      Ended(child.get(), std::string(process.status().message()), now);
      continue;
    }
    child->process = std::make_unique<ChildProcess>(*std::move(process));
    child->started = now;
    child->status.pid = child->process->pid();
    child->status.state = ChildState::kStarting;
  }
  return changed;
}

bool Supervisor::ReadOutput(Child* child) {
  bool changed = false;
  for (const std::string& line : child->process->ReadLines()) {
    std::optional<Addresses> addresses = ParseListeningLine(line);
    if (!addresses.has_value()) continue;
    child->status.addresses = *std::move(addresses);
    child->status.state = ChildState::kListening;
    child->was_listening = true;
    changed = true;
  }
  return changed;
}

bool Supervisor::NoticeExit(Child* child, base::TimePoint now) {
  const std::optional<int> wait_status = child->process->Reap();
  if (!wait_status.has_value()) return false;
  // Its last words may have come since they were last looked for.
  ReadOutput(child);
  child->process.reset();
  child->status.pid = 0;
  Ended(child, DescribeExit(*wait_status), now);
  return true;
}

void Supervisor::Ended(Child* child, std::string how, base::TimePoint now) {
  child->status.last_exit = std::move(how);
  if (stopping_) {
    child->status.state = ChildState::kStopped;
    return;
  }
  if (!child->was_listening) {
    child->status.state = ChildState::kFailed;
    return;
  }
  if (now - child->started >= options_.backoff_reset) child->backoff = options_.first_backoff;
  child->status.state = ChildState::kWaiting;
  child->next_start = now + child->backoff;
  child->backoff = std::min(child->backoff * 2, options_.longest_backoff);
}

void Supervisor::AdvanceStop(base::TimePoint now) {
  std::set<int> ranks;
  for (const auto& child : children_) ranks.insert(child->spec.stop_rank);
  const bool kill_now = now >= stop_started_ + options_.stop_grace;
  int position = 0;
  bool lower_ranks_gone = true;
  for (const int rank : ranks) {
    const base::TimePoint latest =
        stop_started_ + options_.stop_grace * position / static_cast<int>(ranks.size());
    bool gone = true;
    for (const auto& child : children_) {
      if (child->spec.stop_rank != rank || child->process == nullptr) continue;
      gone = false;
      if (kill_now) child->process->Signal(SIGKILL);
      if (child->told_to_stop || (!lower_ranks_gone && now < latest)) continue;
      child->told_to_stop = true;
      child->process->Signal(SIGTERM);
    }
    lower_ranks_gone = lower_ranks_gone && gone;
    ++position;
  }
}

base::TimePoint Supervisor::NextDeadline(base::TimePoint now) const {
  // While stopping, ranks fall due by time; a look every 20 ms is simpler than their arithmetic.
  if (stopping_) return now + std::chrono::milliseconds(20);
  base::TimePoint until = base::kNever;
  for (const auto& child : children_) {
    if (child->status.state == ChildState::kWaiting) until = std::min(until, child->next_start);
  }
  return until;
}

bool Supervisor::AllGone() const {
  return std::all_of(children_.begin(), children_.end(),
                     [](const auto& child) { return child->process == nullptr; });
}

Supervisor::Child* Supervisor::Find(absl::string_view name) {
  for (const auto& child : children_) {
    if (child->spec.name == name) return child.get();
  }
  return nullptr;
}

void Supervisor::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_descriptor_, &one, sizeof(one));
}

// Until a child writes or ends, somebody wakes this thread, or the deadline.
void Supervisor::WaitForEvents(base::TimePoint until) {
  std::vector<pollfd> waited = {{wake_descriptor_, POLLIN, 0}};
  {
    base::MutexLock lock(&mutex_);
    for (const auto& child : children_) {
      if (child->process == nullptr) continue;
      waited.push_back({child->process->exit_descriptor(), POLLIN, 0});
      const int output = child->process->output_descriptor();
      if (output >= 0) waited.push_back({output, POLLIN, 0});
    }
  }
  int timeout_ms = -1;
  if (until != base::kNever) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock_.Now());
    timeout_ms = static_cast<int>(std::max<int64_t>(0, left.count()));
  }
  poll(waited.data(), waited.size(), timeout_ms);
  uint64_t ignored = 0;
  [[maybe_unused]] const ssize_t count = read(wake_descriptor_, &ignored, sizeof(ignored));
}

}  // namespace triptych::services
