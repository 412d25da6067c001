#include "services/gateway/request/served_model.h"

#include <utility>

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

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Load(const std::string& dir) {
  std::unique_ptr<ServedModel> model(new ServedModel());
  model->name_ = LastComponent(dir);
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
