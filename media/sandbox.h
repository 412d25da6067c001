#pragma once

// Decodes pictures from outside in child processes with bounded memory, time and descriptors, so
// that a hole in a decoder costs one child and one picture.

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

namespace triptych::media {

class DecoderChild;

struct SandboxOptions {
  // The program triptych-media-decoder. Empty: beside the running program.
  std::string decoder_path;
  int num_children = 2;
  // For one picture, on the wall and of CPU time; the child is killed when it passes.
  base::Duration timeout = std::chrono::seconds(10);
};

// A pool of children, started on first use and again after one died. Any thread.
class DecodePool {
 public:
  // NOT_FOUND when the decoder program is not there, INVALID_ARGUMENT for a bad number or timeout.
  static absl::StatusOr<std::unique_ptr<DecodePool>> Start(SandboxOptions options);
  // Ends the children. No call may be running.
  ~DecodePool();

  // As DecodeImage(), blocking until a child is free and done; headers are checked here, before a
  // child sees a byte. A picture that kills two children, or runs out of time, is malformed.
  // UNAVAILABLE when no child can be started. The children's memory is sized for the default
  // Limits: `limits` may be lower, not higher.
  absl::StatusOr<base::Image> Decode(absl::string_view bytes, const Limits& limits);

  // Children that died or were killed so far.
  int64_t num_deaths() const;

 private:
  explicit DecodePool(SandboxOptions options);
  // A living child, once one is free. UNAVAILABLE when none can be started.
  absl::StatusOr<std::unique_ptr<DecoderChild>> Take();
  // Null for a child that died.
  void GiveBack(std::unique_ptr<DecoderChild> child);

  const SandboxOptions options_;
  mutable base::Mutex mutex_;
  base::CondVar returned_;
  int num_taken_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_deaths_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<DecoderChild>> idle_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::media
