#include "services/gateway/request/served_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "models/weights/fingerprint.h"

namespace triptych::services {
namespace {

std::string LastComponent(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace

bool ServedModel::IsNamed(absl::string_view name) const {
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Load(const std::string& dir,
                                                               absl::string_view names) {
  std::unique_ptr<ServedModel> model(new ServedModel());
  for (absl::string_view name : absl::StrSplit(names, ',', absl::SkipEmpty())) {
    model->names_.emplace_back(absl::StripAsciiWhitespace(name));
  }
  if (model->names_.empty()) model->names_.push_back(LastComponent(dir));
  ASSIGN_OR_RETURN(model->config_, models::LoadModelConfig(dir));
  ASSIGN_OR_RETURN(model->tokenizer_, models::Tokenizer::Load(dir, model->config_.vocab_size));
  ASSIGN_OR_RETURN(models::ChatLayout chat,
                   models::ChatLayout::Create(*model->tokenizer_, model->config_));
  model->chat_ = std::make_unique<models::ChatLayout>(std::move(chat));
  model->processor_ = std::make_unique<models::ImageProcessor>(model->config_);
  ASSIGN_OR_RETURN(model->digest_, models::TextsDigest(dir));
  return model;
}

}  // namespace triptych::services
