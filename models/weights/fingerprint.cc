#include "models/weights/fingerprint.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/checksum.h"
#include "base/status.h"
#include "models/weights/mapped_file.h"

namespace triptych::models {
namespace {

// Two checksums with different seeds: 128 bits against accidents, not against an attacker.
class Digest {
 public:
  void Add(absl::string_view label, absl::Span<const char> bytes) {
    for (uint64_t& half : halves_) {
      half = base::Checksum64(label.data(), label.size(), half);
      half = base::Checksum64(bytes.data(), bytes.size(), half);
    }
  }
  std::string Hex() const {
    return absl::StrCat(absl::Hex(halves_[0], absl::kZeroPad16),
                        absl::Hex(halves_[1], absl::kZeroPad16));
  }

 private:
  uint64_t halves_[2] = {0x243f6a8885a308d3ULL, 0x13198a2e03707344ULL};
};

// Names of the weight files of `dir`, sorted.
std::vector<std::string> WeightFiles(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    if (entry.path().extension() == ".safetensors") names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

absl::StatusOr<std::string> ModelFingerprint(const std::string& dir, absl::string_view numerics) {
  Digest digest;
  digest.Add("numerics", absl::MakeConstSpan(numerics.data(), numerics.size()));
  std::vector<std::string> names = WeightFiles(dir);
  if (names.empty()) return absl::NotFoundError(absl::StrCat("no weights in ", dir));
  names.insert(names.begin(), {"config.json", "tokenizer.json", "preprocessor_config.json"});
  if (std::filesystem::exists(dir + "/generation_config.json")) {
    names.insert(names.begin(), "generation_config.json");
  }
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(dir + "/" + name));
    digest.Add(name, file.bytes());
  }
  return digest.Hex();
}

}  // namespace triptych::models
