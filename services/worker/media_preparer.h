#pragma once

// From an item's bytes to patches, on threads of its own: decode in sandboxed children, resize,
// patchify. A modelled device looks at the headers only.

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/bounded_queue.h"
#include "base/clock.h"
#include "engine/executor.h"
#include "media/limits.h"
#include "media/sandbox.h"
#include "models/processor/image_processor.h"
#include "scheduler/request/layout.h"

namespace triptych::services {

// One item as it was pulled: encoded pictures (or frames), and the grid that they must give.
struct ItemMedia {
  scheduler::ItemKind kind = scheduler::ItemKind::kImage;
  std::vector<std::string> pictures;
  scheduler::Grid grid;
};

class MediaPreparer {
 public:
  using OnReady = std::function<void(absl::StatusOr<engine::EncodeInput>, base::Duration)>;
  // Borrows all; a null `pool` means that no pixel is decoded (modelled devices).
  MediaPreparer(const models::ImageProcessor& processor, media::DecodePool* pool,
                const media::Limits& limits, const base::Clock& clock, int num_threads);
  // Ends the threads; what is queued is dropped.
  ~MediaPreparer();

  // Calls `on_ready` from one of its threads: INVALID_ARGUMENT for media that are broken or differ
  // from what the gateway measured. False when too much is queued: try again elsewhere.
  bool Prepare(ItemMedia media, OnReady on_ready);

 private:
  static constexpr size_t kMaxQueued = 4096;
  struct Work {
    ItemMedia media;
    OnReady on_ready;
  };

  void Run();
  absl::StatusOr<engine::EncodeInput> Patches(const ItemMedia& media) const;
  absl::Status CheckHeaders(const ItemMedia& media) const;

  const models::ImageProcessor& processor_;
  media::DecodePool* const pool_;
  const media::Limits limits_;
  const base::Clock& clock_;
  base::BoundedQueue<Work> queue_{kMaxQueued};
  std::vector<std::thread> threads_;
};

}  // namespace triptych::services
