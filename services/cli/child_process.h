#pragma once

// One child: its pid, a descriptor that becomes readable when it ends, and the pipe of its stdout.
// The child dies with the thread that started it, is in a process group of its own (Ctrl-C is the
// supervisor's), and writes its log to a file. Not thread-safe.

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace triptych::services {

class ChildProcess {
 public:
  struct Command {
    std::vector<std::string> argv;  // argv[0] is the path of the binary
    std::string log_path;           // stderr is appended to it; empty: shares the parent's
  };

  // INTERNAL when the system has no process or descriptor left, NOT_FOUND when the binary cannot be
  // executed. The child is killed when the calling thread ends.
  static absl::StatusOr<ChildProcess> Start(const Command& command);

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  // Kills and reaps a child that still runs.
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  int exit_descriptor() const { return exit_descriptor_; }
  // -1 once the child has closed it.
  int output_descriptor() const { return output_descriptor_; }

  // Sends a signal; nothing once it was reaped.
  void Signal(int signal_number);
  // Its wait status if it has ended; then it is reaped. Does not block.
  std::optional<int> Reap();
  // Reads what stdout holds and returns the complete lines. Does not block.
  std::vector<std::string> ReadLines();

 private:
  ChildProcess(pid_t pid, int exit_descriptor, int output_descriptor)
      : pid_(pid), exit_descriptor_(exit_descriptor), output_descriptor_(output_descriptor) {}
  void CloseDescriptors();

  pid_t pid_ = -1;  // -1: moved from, or reaped
  int exit_descriptor_ = -1;
  int output_descriptor_ = -1;
  std::string partial_line_;
};

// "exit code 1", "signal 9 (Killed)".
std::string DescribeExit(int wait_status);

}  // namespace triptych::services
