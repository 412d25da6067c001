#include "media/decoder_child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/status.h"
#include "media/decoder_protocol.h"

namespace triptych::media {
namespace {

// Moves bytes over a non-blocking socket until a deadline.
class TimedSocket {
 public:
  TimedSocket(int socket, base::TimePoint deadline) : socket_(socket), deadline_(deadline) {}

  absl::Status Send(const void* bytes, size_t size) {
    const auto* next = static_cast<const char*>(bytes);
    return Move(POLLOUT, size, [&](size_t left) {
      const ssize_t sent = send(socket_, next, left, MSG_NOSIGNAL);
      if (sent > 0) next += sent;
      return sent;
    });
  }

  absl::Status Receive(void* bytes, size_t size) {
    auto* next = static_cast<char*>(bytes);
    return Move(POLLIN, size, [&](size_t left) {
      const ssize_t received = recv(socket_, next, left, 0);
      if (received > 0) next += received;
      return received;
    });
  }

 private:
  template <typename Step>
  absl::Status Move(short event, size_t size, Step step) {
    size_t left = size;
    while (left > 0) {
      const ssize_t moved = step(left);
      if (moved > 0) {
        left -= static_cast<size_t>(moved);
        continue;
      }
      if (moved == 0 || (errno != EAGAIN && errno != EINTR)) {
        return absl::AbortedError("the decoder is gone");
      }
      RETURN_IF_ERROR(WaitFor(event));
    }
    return absl::OkStatus();
  }

  absl::Status WaitFor(short event) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - clock_.Now());
    if (left.count() <= 0) return absl::DeadlineExceededError("the decoder is too slow");
    pollfd entry{socket_, event, 0};
    poll(&entry, 1, static_cast<int>(std::min<int64_t>(left.count(), 1000)));
    return absl::OkStatus();
  }

  const int socket_;
  const base::TimePoint deadline_;
  const base::RealClock clock_;
};

absl::Status StatusOf(DecodeOutcome outcome) {
  switch (outcome) {
    case DecodeOutcome::kOk:
      return absl::OkStatus();
    case DecodeOutcome::kTooLarge:
      return ImageTooLarge();
    case DecodeOutcome::kUnsupported:
      return UnsupportedImageFormat();
    case DecodeOutcome::kMalformed:
      break;
  }
  return ImageMalformed();
}

// 0 or an error number.
int SpawnWithSocket(const std::string& program, int socket, pid_t* pid) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, socket, kDecoderSocket);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  char name[] = "triptych-media-decoder";
  char* const arguments[] = {name, nullptr};
  char* const environment[] = {nullptr};
  const int error = posix_spawn(pid, program.c_str(), &actions, nullptr, arguments, environment);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DecoderChild>> DecoderChild::Spawn(const std::string& program) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return absl::UnavailableError("no socket for a media decoder");
  }
  pid_t pid = 0;
  const int error = SpawnWithSocket(program, sockets[1], &pid);
  close(sockets[1]);
  if (error != 0) {
    close(sockets[0]);
    return absl::UnavailableError("cannot start a media decoder");
  }
  fcntl(sockets[0], F_SETFL, O_NONBLOCK);
  return std::unique_ptr<DecoderChild>(new DecoderChild(pid, sockets[0]));
}

DecoderChild::~DecoderChild() {
  close(socket_);
  WaitForEnd();
}

// The process is waited for by the destructor's thread alone, and not before this: so the number is
// still its own.
void DecoderChild::Kill() { kill(pid_, SIGKILL); }

bool DecoderChild::IsRunning() const {
  siginfo_t info = {};
  return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
         info.si_pid != pid_;
}

DecoderChild::End DecoderChild::WaitForEnd() {
  if (waited_) return End::kOther;
  // What died by itself says why; only what still lives is killed.
  int how = 0;
  if (IsRunning()) kill(pid_, SIGKILL);
  waitpid(pid_, &how, 0);
  waited_ = true;
  if (WIFSIGNALED(how) && WTERMSIG(how) == SIGXCPU) return End::kCpuTime;
  if (WIFSIGNALED(how) && WTERMSIG(how) == SIGSYS) return End::kViolation;
  return End::kOther;
}

absl::StatusOr<base::Image> DecoderChild::Decode(const Order& order) {
  // From outside, because the child may not change its limits.
  const auto cpu = std::chrono::ceil<std::chrono::seconds>(order.cpu_time).count();
  const rlimit limit{static_cast<rlim_t>(cpu * (order.earlier_pictures + 1)), RLIM_INFINITY};
  prlimit(pid_, RLIMIT_CPU, &limit, nullptr);
  TimedSocket socket(socket_, base::RealClock().Now() + order.stall);
  DecodeRequestHeader request;
  request.limits = order.limits;
  request.size_bytes = static_cast<int64_t>(order.bytes.size());
  request.eighths = order.eighths;
  RETURN_IF_ERROR(socket.Send(&request, sizeof(request)));
  RETURN_IF_ERROR(socket.Send(order.bytes.data(), order.bytes.size()));
  DecodeReplyHeader reply;
  RETURN_IF_ERROR(socket.Receive(&reply, sizeof(reply)));
  RETURN_IF_ERROR(StatusOf(reply.outcome));
  const int width = ScaledSide(order.probe.width, order.eighths);
  const int height = ScaledSide(order.probe.height, order.eighths);
  if (reply.width != width || reply.height != height) {
    return absl::AbortedError("the decoder answers nonsense");
  }
  base::Image image{width, height, {}};
  image.pixels.resize(size_t{3} * width * height);
  RETURN_IF_ERROR(socket.Receive(image.pixels.data(), image.pixels.size()));
  return image;
}

}  // namespace triptych::media
