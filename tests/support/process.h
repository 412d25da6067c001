#pragma once

// A process under test: started with a pipe for its stdout, ended at the latest with its test.

#include <string>
#include <vector>

#include "base/clock.h"
#include "services/cli/child_process.h"

namespace triptych::testing {

class Process {
 public:
  // Requires that the binary can be started.
  Process(std::vector<std::string> argv, std::string log_path);

  // The first complete line of stdout that begins with `prefix`; requires that it comes in time.
  std::string WaitForLine(const std::string& prefix, base::Duration timeout);
  // Sends SIGTERM; true when it ended with exit code 0 in time.
  bool Terminate(base::Duration timeout);
  pid_t pid() const { return child_.pid(); }

 private:
  services::ChildProcess child_;
};

// Looks 100 times a second until it is true; false when `timeout` passed first.
template <typename Condition>
bool Eventually(base::Duration timeout, Condition condition);

// Blocks for a moment without looking at anything.
void WaitAMoment(base::Duration duration);

template <typename Condition>
bool Eventually(base::Duration timeout, Condition condition) {
  const base::RealClock clock;
  const base::TimePoint until = clock.Now() + timeout;
  while (!condition()) {
    if (clock.Now() >= until) return false;
    WaitAMoment(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace triptych::testing
