#include "services/worker/media_preparer.h"

#include <utility>

#include "base/image.h"
#include "base/status.h"
#include "media/probe.h"

namespace triptych::services {

MediaPreparer::MediaPreparer(const models::ImageProcessor& processor, media::DecodePool* pool,
                             const media::Limits& limits, const base::Clock& clock, int num_threads)
    : processor_(processor), pool_(pool), limits_(limits), clock_(clock) {
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Run(); });
}

MediaPreparer::~MediaPreparer() {
  queue_.Close();
  for (std::thread& thread : threads_) thread.join();
}

bool MediaPreparer::Prepare(ItemMedia media, OnReady on_ready) {
  return queue_.TryPush({std::move(media), std::move(on_ready)});
}

void MediaPreparer::Run() {
  while (std::optional<Work> work = queue_.Pop()) {
    if (queue_.closed()) return;  // nobody waits for what is still queued
    const base::TimePoint begin = clock_.Now();
    absl::StatusOr<engine::EncodeInput> input = Patches(work->media);
    work->on_ready(std::move(input), clock_.Now() - begin);
  }
}

absl::Status MediaPreparer::CheckHeaders(const ItemMedia& media) const {
  for (const std::string& picture : media.pictures) {
    RETURN_IF_ERROR(media::ProbeImage(picture, limits_).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<engine::EncodeInput> MediaPreparer::Patches(const ItemMedia& media) const {
  if (media.pictures.empty()) return absl::InvalidArgumentError(media::kImageMalformed);
  if (pool_ == nullptr) {
    RETURN_IF_ERROR(CheckHeaders(media));
    return engine::EncodeInput{media.grid, {}};
  }
  std::vector<base::Image> frames;
  for (const std::string& picture : media.pictures) {
    ASSIGN_OR_RETURN(base::Image image, pool_->Decode(picture, limits_));
    frames.push_back(std::move(image));
  }
  absl::StatusOr<models::Patches> patches = media.kind == scheduler::ItemKind::kImage
                                                ? processor_.Patchify(frames.front())
                                                : processor_.PatchifyVideo(frames);
  if (!patches.ok()) return patches.status();
  if (patches->grid != media.grid) return absl::InvalidArgumentError(media::kImageMalformed);
  return engine::EncodeInput{patches->grid, std::move(patches->values)};
}

}  // namespace triptych::services
