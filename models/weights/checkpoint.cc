#include "models/weights/checkpoint.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "models/weights/digest.h"
#include "models/weights/json_text.h"

namespace triptych::models {
namespace {

using nlohmann::json;
using TensorFiles = std::vector<std::pair<std::string, std::string>>;

// Pairs (tensor, shard file) of an index.
absl::StatusOr<TensorFiles> ParseIndex(absl::string_view text) {
  ASSIGN_OR_RETURN(const json root, ParseJsonObject(text, "model.safetensors.index.json"));
  const auto map = root.find("weight_map");
  if (map == root.end() || !map->is_object() || map->empty()) {
    return absl::InvalidArgumentError("model.safetensors.index.json: no weight_map");
  }
  TensorFiles files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat("weight_map: '", tensor, "' names no file"));
    }
    const std::string& name = file.get_ref<const std::string&>();
    if (name.empty() || name.find('/') != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("weight_map: '", name, "' is no file name"));
    }
    files.emplace_back(tensor, name);
  }
  return files;
}

}  // namespace

absl::Status Checkpoint::OpenShard(const std::string& path) {
  ASSIGN_OR_RETURN(SafetensorsFile shard, SafetensorsFile::Open(path));
  for (const std::string& name : shard.Names()) {
    if (!shard_of_.try_emplace(name, shards_.size()).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is in two shards"));
    }
  }
  shards_.push_back(std::move(shard));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& dir) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint());
  const absl::StatusOr<std::string> index = ReadTextFile(dir + "/model.safetensors.index.json");
  if (absl::IsNotFound(index.status())) {
    RETURN_IF_ERROR(checkpoint->OpenShard(dir + "/model.safetensors"));
    return checkpoint;
  }
  RETURN_IF_ERROR(index.status());
  ASSIGN_OR_RETURN(const TensorFiles files, ParseIndex(*index));
  std::set<std::string> names;
  for (const auto& [tensor, file] : files) names.insert(file);
  for (const std::string& name : names) RETURN_IF_ERROR(checkpoint->OpenShard(dir + "/" + name));
  for (const auto& [tensor, file] : files) {
    const auto found = checkpoint->shard_of_.find(tensor);
    const auto shard = static_cast<size_t>(std::distance(names.begin(), names.find(file)));
    if (found == checkpoint->shard_of_.end() || found->second != shard) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor, "' is not in ", file));
    }
  }
  return checkpoint;
}

absl::StatusOr<TensorView> Checkpoint::Get(absl::string_view name,
                                           absl::Span<const int64_t> expected_shape) const {
  const auto found = shard_of_.find(name);
  if (found == shard_of_.end()) return absl::NotFoundError(absl::StrCat("no tensor '", name, "'"));
  ASSIGN_OR_RETURN(TensorView view, shards_[found->second].Get(name));
  if (absl::MakeConstSpan(view.shape) != expected_shape) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' has shape [",
                                                   absl::StrJoin(view.shape, ", "), "], expected [",
                                                   absl::StrJoin(expected_shape, ", "), "]"));
  }
  return view;
}

std::vector<std::string> Checkpoint::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, shard] : shard_of_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

std::string Checkpoint::Digest(int threads) const {
  kernels::ThreadPool pool(threads);
  models::Digest digest;
  for (const SafetensorsFile& shard : shards_) digest.Add("shard", shard.bytes(), &pool);
  return digest.Hex();
}

}  // namespace triptych::models
