#pragma once

// A process under test: started with a pipe for its stdout, ended at the latest with its test.

#include <string>
#include <vector>

#include "base/clock.h"
#include "services/cli/child_process.h"
#include "tests/support/eventually.h"

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

}  // namespace triptych::testing
