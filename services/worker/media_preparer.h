#pragma once

// From an item's bytes to patches, on threads of its own: decode in sandboxed children, resize,
// patchify. A modelled device looks at the headers only.
//
// Memory of an item whatever a gateway admits: its bytes (twice, at most 2 x 128 MiB), one decoded
// frame (media::Limits: 32 Mpixel, 96 MiB) with its resized copy, and its patches, which the
// model's context bounds; times the number of threads.

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "engine/executor.h"
#include "media/limits.h"
#include "media/sandbox.h"
#include "models/processor/image_processor.h"
#include "scheduler/request/layout.h"
#include "services/worker/media_queue.h"

namespace triptych::services {

// One item as it was pulled: encoded pictures (or frames), and the grid that they must give.
struct ItemMedia {
  scheduler::ItemKind kind = scheduler::ItemKind::kImage;
  std::vector<std::string> pictures;
  scheduler::Grid grid;
  // For whom, so that nobody waits behind another's pictures.
  uint64_t tenant = 0;
  scheduler::RequestId request;
  scheduler::TaskId task;
};

// Whether a JPEG that will be shrunk anyway may be decoded at n eighths of its size: faster, and
// the patches differ a little.
enum class JpegScaling { kOff, kOn };

struct MediaOptions {
  media::Limits limits;
  JpegScaling scaling = JpegScaling::kOff;
  int num_threads = 1;
};

class MediaPreparer {
 public:
  using OnReady = std::function<void(absl::StatusOr<engine::EncodeInput>, base::Duration)>;
  // Borrows all; a null `pool` means that no pixel is decoded (modelled devices).
  MediaPreparer(const models::ImageProcessor& processor, media::DecodePool* pool,
                const MediaOptions& options, const base::Clock& clock);
  // Ends the threads; what is queued is dropped, what is decoded is cancelled.
  ~MediaPreparer();

  // Calls `on_ready` from one of its threads: INVALID_ARGUMENT for media that are broken or differ
  // from what the gateway measured. False when too much is queued: try again elsewhere.
  bool Prepare(ItemMedia media, OnReady on_ready);
  // Nobody wants the item any more: it leaves the queue, or its decoder is killed; `on_ready` may
  // never be called.
  void Drop(scheduler::TaskId task);

 private:
  static constexpr size_t kMaxQueued = 4096;
  struct Work {
    ItemMedia media;
    OnReady on_ready;
  };
  using Queue = MediaQueue<Work>;

  void Run();
  // Blocks for the next item; nullopt at the end. Its session, if it has one, can be cancelled from
  // then on.
  std::optional<Queue::Entry> Next(std::shared_ptr<media::DecodeSession>* session);
  void Done(const Queue::Key& key);
  absl::StatusOr<engine::EncodeInput> Frames(const ItemMedia& media,
                                             media::DecodeSession* session) const;
  absl::Status CheckHeaders(const ItemMedia& media) const;
  int64_t CostOf(const ItemMedia& media) const;

  const models::ImageProcessor& processor_;
  media::DecodePool* const pool_;
  const MediaOptions options_;
  const base::Clock& clock_;
  base::Mutex mutex_;
  base::CondVar changed_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  Queue queue_ ABSL_GUARDED_BY(mutex_);
  int heavy_running_ ABSL_GUARDED_BY(mutex_) = 0;
  // Shared with the thread that decodes it.
  absl::flat_hash_map<scheduler::TaskId, std::shared_ptr<media::DecodeSession>> running_
      ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace triptych::services
