#include "media/sandbox.h"

#include <unistd.h>

#include <filesystem>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "media/decoder_child.h"
#include "media/probe.h"

namespace triptych::media {
namespace {

constexpr char kDecoderName[] = "triptych-media-decoder";

std::string PathBesideThisProgram() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / kDecoderName).string();
}

}  // namespace

DecodePool::DecodePool(SandboxOptions options) : options_(std::move(options)) {}

DecodePool::~DecodePool() {
  base::MutexLock lock(&mutex_);
  CHECK_EQ(num_taken_, 0);
}

absl::StatusOr<std::unique_ptr<DecodePool>> DecodePool::Start(SandboxOptions options) {
  if (options.num_children <= 0 || options.timeout <= base::Duration(0)) {
    return absl::InvalidArgumentError("a sandbox needs a child and a time limit");
  }
  if (options.decoder_path.empty()) options.decoder_path = PathBesideThisProgram();
  if (access(options.decoder_path.c_str(), X_OK) != 0) {
    return absl::NotFoundError("the program triptych-media-decoder is not there");
  }
  return std::unique_ptr<DecodePool>(new DecodePool(std::move(options)));
}

absl::StatusOr<std::unique_ptr<DecoderChild>> DecodePool::Take() {
  {
    base::MutexLock lock(&mutex_);
    while (num_taken_ >= options_.num_children) returned_.Wait(&mutex_);
    ++num_taken_;
    while (!idle_.empty()) {
      std::unique_ptr<DecoderChild> child = std::move(idle_.back());
      idle_.pop_back();
      if (child->IsAlive()) return child;
      ++num_deaths_;
    }
  }
  absl::StatusOr<std::unique_ptr<DecoderChild>> child = DecoderChild::Spawn(options_.decoder_path);
  if (!child.ok()) GiveBack(nullptr);
  return child;
}

void DecodePool::GiveBack(std::unique_ptr<DecoderChild> child) {
  {
    base::MutexLock lock(&mutex_);
    --num_taken_;
    if (child != nullptr) idle_.push_back(std::move(child));
  }
  returned_.NotifyOne();
}

absl::StatusOr<base::Image> DecodePool::Decode(absl::string_view bytes, const Limits& limits) {
  ASSIGN_OR_RETURN(const Probe probe, ProbeImage(bytes, limits));
  // A child may die for a reason that is not the picture's; two in a row are.
  constexpr int kAttempts = 2;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(std::unique_ptr<DecoderChild> child, Take());
    absl::StatusOr<base::Image> image = child->Decode(bytes, probe, limits, options_.timeout);
    if (image.ok() || absl::IsInvalidArgument(image.status())) {
      GiveBack(std::move(child));
      return image;
    }
    child.reset();
    {
      base::MutexLock lock(&mutex_);
      ++num_deaths_;
    }
    GiveBack(nullptr);
    if (absl::IsDeadlineExceeded(image.status())) break;
  }
  return ImageMalformed();
}

int64_t DecodePool::num_deaths() const {
  base::MutexLock lock(&mutex_);
  return num_deaths_;
}

}  // namespace triptych::media
