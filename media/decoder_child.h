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

// One thread at a time.
class DecoderChild {
 public:
  // Starts the program with no environment and no descriptor but its socket. UNAVAILABLE when the
  // system refuses.
  static absl::StatusOr<std::unique_ptr<DecoderChild>> Spawn(const std::string& program);
  // Kills it and waits for its end.
  ~DecoderChild();

  bool IsAlive();

  // Decodes one picture that the probe has measured. INVALID_ARGUMENT: the child refused it.
  // ABORTED: the child died or answered nonsense; DEADLINE_EXCEEDED: `timeout` passed. After these
  // two the child is of no more use.
  absl::StatusOr<base::Image> Decode(absl::string_view bytes, const Probe& probe,
                                     const Limits& limits, base::Duration timeout);

 private:
  DecoderChild(pid_t pid, int socket) : pid_(pid), socket_(socket) {}

  pid_t pid_;  // 0 once it was waited for
  int socket_;
};

}  // namespace triptych::media
