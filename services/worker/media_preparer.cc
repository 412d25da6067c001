#include "services/worker/media_preparer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/image.h"
#include "base/status.h"
#include "media/probe.h"

namespace triptych::services {

MediaPreparer::MediaPreparer(const models::ImageProcessor& processor, media::DecodePool* pool,
                             const MediaOptions& options, const base::Clock& clock)
    : processor_(processor), pool_(pool), options_(options), clock_(clock) {
  for (int i = 0; i < options.num_threads; ++i) threads_.emplace_back([this] { Run(); });
}

MediaPreparer::~MediaPreparer() {
  {
    base::MutexLock lock(&mutex_);
    closed_ = true;
    for (auto& [task, session] : running_) session->Cancel();
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

bool MediaPreparer::Prepare(ItemMedia media, OnReady on_ready) {
  Queue::Key key{media.tenant, media.request, media.task, CostOf(media)};
  base::MutexLock lock(&mutex_);
  if (closed_ || queue_.size() >= kMaxQueued) return false;
  queue_.Push(std::move(key), {std::move(media), std::move(on_ready)});
  changed_.NotifyOne();
  return true;
}

void MediaPreparer::Drop(scheduler::TaskId task) {
  std::optional<Queue::Entry> dropped;  // destroyed without the lock
  base::MutexLock lock(&mutex_);
  dropped = queue_.Remove(task);
  if (auto it = running_.find(task); it != running_.end()) it->second->Cancel();
}

std::optional<MediaPreparer::Queue::Entry> MediaPreparer::Next(
    std::shared_ptr<media::DecodeSession>* session) {
  base::MutexLock lock(&mutex_);
  while (!closed_) {
    // One thread stays for what is quick, where there is more than one.
    const bool room = heavy_running_ < std::max(1, options_.num_threads - 1);
    std::optional<Queue::Entry> entry = queue_.Pop(room ? Queue::Take::kAny : Queue::Take::kLight);
    if (entry.has_value()) {
      if (Queue::IsHeavy(entry->key)) ++heavy_running_;
      if (pool_ != nullptr) {
        *session = pool_->Open();
        running_[entry->key.task] = *session;
      }
      return entry;
    }
    changed_.Wait(&mutex_);
  }
  return std::nullopt;
}

void MediaPreparer::Done(const Queue::Key& key) {
  base::MutexLock lock(&mutex_);
  running_.erase(key.task);
  if (!Queue::IsHeavy(key)) return;
  --heavy_running_;
  changed_.NotifyOne();
}

void MediaPreparer::Run() {
  if (pool_ != nullptr) pool_->StartSpares();
  std::shared_ptr<media::DecodeSession> session;
  while (std::optional<Queue::Entry> entry = Next(&session)) {
    const base::TimePoint begin = clock_.Now();
    absl::StatusOr<engine::EncodeInput> input = Frames(entry->work.media, session.get());
    Done(entry->key);
    session = nullptr;
    if (!absl::IsCancelled(input.status())) {
      entry->work.on_ready(std::move(input), clock_.Now() - begin);
    }
    if (pool_ != nullptr) pool_->StartSpares();
  }
}

int64_t MediaPreparer::CostOf(const ItemMedia& media) const {
  int64_t cost = 1;
  for (const std::string& picture : media.pictures) {
    const absl::StatusOr<media::Probe> probe = media::ProbeImage(picture, options_.limits);
    if (probe.ok()) cost += media::DecodeCost(*probe);
  }
  return cost;
}

// What the gateway has measured is measured again, before a pixel is decoded.
absl::Status MediaPreparer::CheckHeaders(const ItemMedia& media) const {
  const auto count = static_cast<int>(media.pictures.size());
  if (count == 0 || (media.kind == scheduler::ItemKind::kImage && count != 1)) {
    return media::ImageMalformed();
  }
  media::Probe first;
  for (const std::string& picture : media.pictures) {
    ASSIGN_OR_RETURN(const media::Probe probe, media::ProbeImage(picture, options_.limits));
    if (first.width == 0) first = probe;
    if (probe.width != first.width || probe.height != first.height) return media::ImageMalformed();
  }
  ASSIGN_OR_RETURN(const scheduler::Grid grid,
                   processor_.VideoGridOf(first.width, first.height, count));
  return grid == media.grid ? absl::OkStatus() : media::ImageMalformed();
}

absl::StatusOr<engine::EncodeInput> MediaPreparer::Frames(const ItemMedia& media,
                                                          media::DecodeSession* session) const {
  RETURN_IF_ERROR(CheckHeaders(media));
  if (session == nullptr) return engine::EncodeInput{.grid = media.grid};
  media::LeastSize least;
  if (options_.scaling == JpegScaling::kOn) {
    least = {processor_.WidthOf(media.grid), processor_.HeightOf(media.grid)};
  }
  models::Frames frames{.grid = media.grid};
  for (const std::string& picture : media.pictures) {
    ASSIGN_OR_RETURN(const base::Image image, session->Decode(picture, options_.limits, least));
    processor_.Append(image, &frames);
  }
  return engine::EncodeInput{frames.grid, frames.count, std::move(frames.pixels)};
}

}  // namespace triptych::services
