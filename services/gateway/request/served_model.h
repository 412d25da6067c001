#pragma once

// The model as a gateway sees it: text in, text out, and the size of pictures. No weights.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/config/model_config.h"
#include "models/processor/chat_layout.h"
#include "models/processor/image_processor.h"
#include "models/tokenizer/tokenizer.h"

namespace triptych::services {

// Immutable, so any thread may use it.
class ServedModel {
 public:
  // Reads an HF directory; its last path component is the model's name. Errors as the readers of
  // models/config, models/tokenizer and models/weights. Opens no weights.
  static absl::StatusOr<std::unique_ptr<ServedModel>> Load(const std::string& dir);

  const std::string& name() const { return name_; }
  // Of everything but the weights: the first part of the fingerprints of its workers.
  const std::string& digest() const { return digest_; }
  const models::ModelConfig& config() const { return config_; }
  const models::Tokenizer& tokenizer() const { return *tokenizer_; }
  const models::ChatLayout& chat() const { return *chat_; }
  const models::ImageProcessor& processor() const { return *processor_; }
  // Prompt and answer together.
  int32_t context_tokens() const { return config_.max_position_embeddings; }

 private:
  ServedModel() = default;
  std::string name_;
  std::string digest_;
  models::ModelConfig config_;
  std::unique_ptr<models::Tokenizer> tokenizer_;
  std::unique_ptr<models::ChatLayout> chat_;
  std::unique_ptr<models::ImageProcessor> processor_;
};

}  // namespace triptych::services
