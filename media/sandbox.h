#pragma once

// Decodes pictures from outside in child processes with bounded memory, time and descriptors, so
// that a hole in a decoder costs one child and one item: a child never sees a second item.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/image.h"
#include "base/mutex.h"
#include "media/limits.h"
#include "media/probe.h"

namespace triptych::media {

class DecoderChild;
class DecodePool;

struct SandboxOptions {
  // The program triptych-media-decoder. Empty: beside the running program.
  std::string decoder_path;
  int num_children = 2;
  // Of one picture; the child is killed when it passes.
  base::Duration cpu_time = std::chrono::seconds(10);
  // On the wall. Much longer: a machine may be busy.
  base::Duration stall = std::chrono::seconds(40);
};

// How large a picture must be at least after decoding; a JPEG that is larger may be decoded at a
// fraction of its size (n eighths). Zero: the exact size.
struct LeastSize {
  int width = 0, height = 0;
};

// The pictures of one item, decoded by one fresh child. One thread, but for Cancel().
class DecodeSession {
 public:
  ~DecodeSession();

  // As DecodeImage(), blocking until a child may run and is done; headers are checked here, before
  // a child sees a byte. A picture that kills two children, or takes too much CPU time, is
  // malformed. UNAVAILABLE when no child can be started, or two stood still. CANCELLED. The
  // children's memory is sized for the default Limits: `limits` may be lower, not higher.
  absl::StatusOr<base::Image> Decode(absl::string_view bytes, const Limits& limits,
                                     LeastSize least = {});
  // The child is killed; what is being decoded, or will be, is CANCELLED.
  void Cancel();

 private:
  friend class DecodePool;
  explicit DecodeSession(DecodePool* pool);
  absl::Status EnsureChild();

  DecodePool* const pool_;
  bool has_slot_ = false;
  int pictures_ = 0;  // that the child was given
  base::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<DecoderChild> child_;  // replaced and waited for under the lock
};

// How many children may run at once, and what became of them. Any thread.
class DecodePool {
 public:
  // NOT_FOUND when the decoder program is not there, INVALID_ARGUMENT for a bad number or time,
  // UNAVAILABLE when this kernel cannot confine a child.
  static absl::StatusOr<std::unique_ptr<DecodePool>> Start(SandboxOptions options);
  // No session may be left.
  ~DecodePool();

  std::unique_ptr<DecodeSession> Open() {
    return std::unique_ptr<DecodeSession>(new DecodeSession(this));
  }
  // One picture in a session of its own.
  absl::StatusOr<base::Image> Decode(absl::string_view bytes, const Limits& limits) {
    return Open()->Decode(bytes, limits);
  }

  // Starts children for items to come, as many as may run at once: a child needs some milliseconds
  // until it can decode. Each still serves one item alone. What cannot be started now is started
  // when an item needs it.
  void StartSpares();

  // Children that died or were killed before their time, so far.
  int64_t num_deaths() const { return deaths_.load(); }
  // Of these, those that the kernel killed for a system call that no decoder makes: an attack.
  int64_t num_violations() const { return violations_.load(); }

 private:
  friend class DecodeSession;
  explicit DecodePool(SandboxOptions options);
  void TakeSlot();
  void GiveSlot();
  // One that was started before, or a new one.
  absl::StatusOr<std::unique_ptr<DecoderChild>> TakeChild();

  const SandboxOptions options_;
  std::atomic<int64_t> deaths_{0}, violations_{0};
  base::Mutex mutex_;
  base::CondVar returned_;
  int num_taken_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<DecoderChild>> spares_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::media
