#pragma once

// The model as a gateway sees it: text in, text out, and the size of pictures. No weights.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "models/config/model_config.h"
#include "models/processor/chat_layout.h"
#include "models/processor/image_processor.h"
#include "models/tokenizer/tokenizer.h"

namespace triptych::services {

// Immutable, so any thread may use it.
class ServedModel {
 public:
  // Reads an HF directory. `names` are those that clients may use, separated by commas, the first
  // of them the model's own; empty: the directory's last path component. Errors as the readers of
  // models/config, models/tokenizer and models/weights. Opens no weights.
  static absl::StatusOr<std::unique_ptr<ServedModel>> Load(const std::string& dir,
                                                           absl::string_view names = "");

  const std::string& name() const { return names_.front(); }
  const std::vector<std::string>& names() const { return names_; }
  bool IsNamed(absl::string_view name) const;
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
  std::vector<std::string> names_;  // never empty
  std::string digest_;
  models::ModelConfig config_;
  std::unique_ptr<models::Tokenizer> tokenizer_;
  std::unique_ptr<models::ChatLayout> chat_;
  std::unique_ptr<models::ImageProcessor> processor_;
};

}  // namespace triptych::services
