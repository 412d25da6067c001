#include "models/weights/fingerprint.h"

#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "models/weights/digest.h"
#include "models/weights/mapped_file.h"

namespace triptych::models {

absl::StatusOr<std::string> TextsDigest(const std::string& dir) {
  std::vector<std::string> names = {"config.json", "tokenizer.json", "preprocessor_config.json"};
  if (std::filesystem::exists(dir + "/generation_config.json")) {
    names.emplace_back("generation_config.json");
  }
  Digest digest;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(dir + "/" + name));
    digest.Add(name, file.bytes(), /*pool=*/nullptr);
  }
  return digest.Hex();
}

std::string Fingerprint(absl::string_view texts, absl::string_view weights,
                        absl::string_view format) {
  return absl::StrCat(texts, ".", weights, ".", format);
}

}  // namespace triptych::models
