#include "media/sandbox.h"

#include <unistd.h>

#include <filesystem>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "media/decoder_child.h"

namespace triptych::media {
namespace {

constexpr char kDecoderName[] = "triptych-media-decoder";

std::string PathBesideThisProgram() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / kDecoderName).string();
}

// The least number of eighths that keeps both sides.
int EighthsFor(const Probe& probe, LeastSize least) {
  if (!MayScale(probe) || least.width <= 0 || least.height <= 0) return kWholeScale;
  for (int eighths = 1; eighths < kWholeScale; ++eighths) {
    if (ScaledSide(probe.width, eighths) >= least.width &&
        ScaledSide(probe.height, eighths) >= least.height) {
      return eighths;
    }
  }
  return kWholeScale;
}

}  // namespace

// ---- pool ---------------------------------------------------------------------------------------

DecodePool::DecodePool(SandboxOptions options) : options_(std::move(options)) {}

DecodePool::~DecodePool() {
  base::MutexLock lock(&mutex_);
  CHECK_EQ(num_taken_, 0);
}

absl::StatusOr<std::unique_ptr<DecodePool>> DecodePool::Start(SandboxOptions options) {
  if (options.num_children <= 0 || options.cpu_time <= base::Duration(0)) {
    return absl::InvalidArgumentError("a sandbox needs a child and a time limit");
  }
  if (options.decoder_path.empty()) options.decoder_path = PathBesideThisProgram();
  if (access(options.decoder_path.c_str(), X_OK) != 0) {
    return absl::NotFoundError("the program triptych-media-decoder is not there");
  }
  return std::unique_ptr<DecodePool>(new DecodePool(std::move(options)));
}

void DecodePool::TakeSlot() {
  base::MutexLock lock(&mutex_);
  while (num_taken_ >= options_.num_children) returned_.Wait(&mutex_);
  ++num_taken_;
}

void DecodePool::GiveSlot() {
  base::MutexLock lock(&mutex_);
  --num_taken_;
  returned_.NotifyOne();
}

absl::StatusOr<std::unique_ptr<DecoderChild>> DecodePool::TakeChild() {
  {
    base::MutexLock lock(&mutex_);
    while (!spares_.empty()) {
      std::unique_ptr<DecoderChild> child = std::move(spares_.back());
      spares_.pop_back();
      if (child->IsRunning()) return child;
    }
  }
  return DecoderChild::Spawn(options_.decoder_path);
}

void DecodePool::StartSpares() {
  while (true) {
    {
      base::MutexLock lock(&mutex_);
      if (spares_.size() >= static_cast<size_t>(options_.num_children)) return;
    }
    absl::StatusOr<std::unique_ptr<DecoderChild>> child =
        DecoderChild::Spawn(options_.decoder_path);
    if (!child.ok()) return;
    base::MutexLock lock(&mutex_);
    if (spares_.size() >= static_cast<size_t>(options_.num_children)) return;
    spares_.push_back(*std::move(child));
  }
}

// ---- session ------------------------------------------------------------------------------------

DecodeSession::DecodeSession(DecodePool* pool) : pool_(pool) {}

DecodeSession::~DecodeSession() {
  {
    base::MutexLock lock(&mutex_);
    child_ = nullptr;
  }
  if (has_slot_) pool_->GiveSlot();
}

absl::Status DecodeSession::EnsureChild() {
  if (!std::exchange(has_slot_, true)) pool_->TakeSlot();
  if (child_ == nullptr) {
    ASSIGN_OR_RETURN(std::unique_ptr<DecoderChild> child, pool_->TakeChild());
    base::MutexLock lock(&mutex_);
    child_ = std::move(child);
    pictures_ = 0;
  }
  base::MutexLock lock(&mutex_);
  if (!cancelled_) return absl::OkStatus();
  child_ = nullptr;
  return absl::CancelledError("the picture is not wanted any more");
}

void DecodeSession::Cancel() {
  base::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (child_ != nullptr) child_->Kill();
}

absl::StatusOr<base::Image> DecodeSession::Decode(absl::string_view bytes, const Limits& limits,
                                                  LeastSize least) {
  ASSIGN_OR_RETURN(const Probe probe, ProbeImage(bytes, limits));
  const int eighths = EighthsFor(probe, least);
  // A child may die, or stand still, for a reason that is not the picture's; twice in a row it is
  // the picture's where it died, and the machine's where it stood still.
  constexpr int kAttempts = 2;
  absl::Status last;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    RETURN_IF_ERROR(EnsureChild());
    absl::StatusOr<base::Image> image = child_->Decode({.bytes = bytes,
                                                        .probe = probe,
                                                        .limits = limits,
                                                        .eighths = eighths,
                                                        .cpu_time = pool_->options_.cpu_time,
                                                        .stall = pool_->options_.stall,
                                                        .earlier_pictures = pictures_});
    ++pictures_;
    if (image.ok() || absl::IsInvalidArgument(image.status())) return image;
    DecoderChild::End end;
    {
      // Under the lock: what is waited for must not be killed by its number any more.
      base::MutexLock lock(&mutex_);
      end = child_->WaitForEnd();
      child_ = nullptr;
      if (cancelled_) return absl::CancelledError("the picture is not wanted any more");
    }
    pool_->deaths_.fetch_add(1);
    if (end == DecoderChild::End::kViolation) pool_->violations_.fetch_add(1);
    if (end == DecoderChild::End::kCpuTime) return ImageMalformed();
    last = image.status();
  }
  if (absl::IsDeadlineExceeded(last)) return absl::UnavailableError("media decoders stand still");
  return ImageMalformed();
}

}  // namespace triptych::media
