#pragma once

// One child process of the sandbox, seen from the parent.

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/image.h"
#include "media/limits.h"
#include "media/probe.h"

namespace triptych::media {

// One thread at a time, but for Kill().
class DecoderChild {
 public:
  // Starts the program with no environment and no descriptor but its socket. UNAVAILABLE when the
  // system refuses. The child dies with the calling thread.
  static absl::StatusOr<std::unique_ptr<DecoderChild>> Spawn(const std::string& program);
  // Kills it and waits for its end.
  ~DecoderChild();

  struct Order {
    absl::string_view bytes;
    const Probe& probe;  // of these bytes
    const Limits& limits;
    int eighths;  // of its size that a JPEG is decoded at; kWholeScale: exact
    base::Duration cpu_time, stall;
    int earlier_pictures;  // that this child has decoded
  };
  // INVALID_ARGUMENT: the child refused it. ABORTED: the child died or answered nonsense;
  // DEADLINE_EXCEEDED: it stood still. After these two the child is of no more use.
  absl::StatusOr<base::Image> Decode(const Order& order);

  // From any thread.
  void Kill();
  // Not after WaitForEnd().
  bool IsRunning() const;

  enum class End { kOther, kCpuTime, kViolation };
  // Kills what still lives and says how it ended.
  End WaitForEnd();

 private:
  DecoderChild(pid_t pid, int socket) : pid_(pid), socket_(socket) {}

  const pid_t pid_;
  const int socket_;
  bool waited_ = false;
};

}  // namespace triptych::media
