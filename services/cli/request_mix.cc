#include "services/cli/request_mix.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status.h"

namespace triptych::services {
namespace {

absl::StatusOr<std::string> ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  // A folder opens, and throws when it is read.
  std::error_code error;
  if (!in || std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path));
  }
  return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
}

absl::StatusOr<MixEntry> ReadEntry(const nlohmann::json& json, const std::string& folder) {
  MixEntry entry;
  entry.name = json.at("name");
  entry.weight = json.value("weight", 1.0);
  entry.text = json.at("text");
  entry.max_tokens = json.value("max_tokens", 16);
  if (!(entry.weight > 0) || entry.max_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(entry.name, ": want weight > 0 and max_tokens > 0"));
  }
  for (const std::string& file : json.value("images", std::vector<std::string>())) {
    ASSIGN_OR_RETURN(std::string bytes, ReadBytes(absl::StrCat(folder, "/", file)));
    entry.images.push_back(std::move(bytes));
  }
  return entry;
}

}  // namespace

absl::StatusOr<RequestMix> ReadMix(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadBytes(path));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const std::string folder = std::filesystem::absolute(path).parent_path().string();
  RequestMix mix;
  try {
    for (const nlohmann::json& item : json.at("requests")) {
      ASSIGN_OR_RETURN(MixEntry entry, ReadEntry(item, folder));
      mix.entries.push_back(std::move(entry));
    }
  } catch (const nlohmann::json::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", e.what()));
  }
  if (mix.entries.empty()) return absl::InvalidArgumentError(path + ": no requests");
  return mix;
}

const MixEntry& Draw(const RequestMix& mix, base::SeededRandom* random) {
  double total = 0;
  for (const MixEntry& entry : mix.entries) total += entry.weight;
  double point = random->Uniform() * total;
  for (const MixEntry& entry : mix.entries) {
    point -= entry.weight;
    if (point < 0) return entry;
  }
  return mix.entries.back();
}

v1::GenerateRequest MakeRequest(const MixEntry& entry, int64_t number, int context_tokens,
                                int generated_tokens) {
  v1::GenerateRequest request;
  v1::Message* message = request.add_messages();
  message->set_role("user");
  for (const std::string& image : entry.images) {
    message->add_content()->mutable_image()->set_data(image);
  }
  std::string text = absl::StrReplaceAll(entry.text, {{"{n}", absl::StrCat(number)}});
  if (context_tokens > 0) {
    text = absl::StrCat(number);
    // A short common word with its space is one token in every tokeniser of the field.
    for (int i = 0; i < context_tokens; ++i) text += " the";
  }
  message->add_content()->set_text(std::move(text));
  request.set_max_tokens(generated_tokens > 0 ? generated_tokens : entry.max_tokens);
  return request;
}

}  // namespace triptych::services
