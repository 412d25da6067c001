#include "services/cli/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace triptych::services {
namespace {

struct Pipe {
  int read = -1;
  int write = -1;
};

absl::Status SystemError(absl::string_view what, int error) {
  return absl::InternalError(absl::StrCat(what, ": ", strerror(error)));
}

// Runs between fork and exec: only calls that are safe there.
[[noreturn]] void BecomeChild(char* const* argv, int output, int log, int failure, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // The parent died before the line above.
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(output, STDOUT_FILENO);
  if (log >= 0) dup2(log, STDERR_FILENO);
  execv(argv[0], argv);
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(failure, &error, sizeof(error));
  _exit(127);
}

// 0 when the exec succeeded: then the pipe closed without a word.
int ReadFailure(int descriptor) {
  int error = 0;
  ssize_t count = 0;
  do {
    count = read(descriptor, &error, sizeof(error));
  } while (count < 0 && errno == EINTR);
  return count == sizeof(error) ? error : 0;
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const Command& command) {
  std::vector<char*> argv;
  for (const std::string& word : command.argv) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  int log = -1;
  if (!command.log_path.empty()) {
    log = open(command.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log < 0) return SystemError(command.log_path, errno);
  }
  Pipe output, failure;
  if (pipe2(&output.read, O_CLOEXEC) != 0 || pipe2(&failure.read, O_CLOEXEC) != 0) {
    return SystemError("pipe", errno);
  }
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) BecomeChild(argv.data(), output.write, log, failure.write, parent);
  const int fork_error = errno;
  if (log >= 0) close(log);
  close(output.write);
  close(failure.write);
  const int exec_error = pid > 0 ? ReadFailure(failure.read) : 0;
  close(failure.read);
  if (pid < 0 || exec_error != 0) {
    close(output.read);
    if (pid < 0) return SystemError("fork", fork_error);
    waitpid(pid, nullptr, 0);
    return absl::NotFoundError(absl::StrCat(command.argv[0], ": ", strerror(exec_error)));
  }
  fcntl(output.read, F_SETFL, O_NONBLOCK);
  const int exit_descriptor = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  const int pidfd_error = errno;
  ChildProcess child(pid, exit_descriptor, output.read);
  if (exit_descriptor < 0) return SystemError("pidfd_open", pidfd_error);
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      exit_descriptor_(std::exchange(other.exit_descriptor_, -1)),
      output_descriptor_(std::exchange(other.output_descriptor_, -1)),
      partial_line_(std::move(other.partial_line_)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(exit_descriptor_, other.exit_descriptor_);
  std::swap(output_descriptor_, other.output_descriptor_);
  std::swap(partial_line_, other.partial_line_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  CloseDescriptors();
}

void ChildProcess::CloseDescriptors() {
  if (exit_descriptor_ >= 0) close(std::exchange(exit_descriptor_, -1));
  if (output_descriptor_ >= 0) close(std::exchange(output_descriptor_, -1));
}

void ChildProcess::Signal(int signal_number) {
  if (pid_ > 0) kill(pid_, signal_number);
}

std::optional<int> ChildProcess::Reap() {
  int status = 0;
  if (pid_ <= 0 || waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  pid_ = -1;
  return status;
}

std::vector<std::string> ChildProcess::ReadLines() {
  std::vector<std::string> lines;
  char buffer[4096];
  while (output_descriptor_ >= 0) {
    const ssize_t count = read(output_descriptor_, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count <= 0) {
      close(std::exchange(output_descriptor_, -1));
      break;
    }
    for (char c : absl::string_view(buffer, static_cast<size_t>(count))) {
      if (c != '\n') {
        partial_line_.push_back(c);
      } else {
        lines.push_back(std::exchange(partial_line_, {}));
      }
    }
  }
  return lines;
}

std::string DescribeExit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int number = WTERMSIG(wait_status);
    return absl::StrCat("signal ", number, " (", strsignal(number), ")");
  }
  return absl::StrCat("exit code ", WEXITSTATUS(wait_status));
}

}  // namespace triptych::services
