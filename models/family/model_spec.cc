#include "models/family/model_spec.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"

namespace triptych::models {
namespace {

bool AnyStartsWith(const std::vector<std::string>& names, absl::string_view prefix) {
  return std::any_of(names.begin(), names.end(),
                     [prefix](const std::string& name) { return absl::StartsWith(name, prefix); });
}

}  // namespace

ModelSpec SpecOf(const ModelConfig& config, const WeightSource& weights) {
  const std::vector<std::string> names = weights.Names();
  const bool nested =
      AnyStartsWith(names, "model.language_model.") || AnyStartsWith(names, "model.visual.");
  ModelSpec spec;
  spec.decoder.prefix = nested ? "model.language_model." : "model.";
  spec.decoder.head = config.tie_word_embeddings ? spec.decoder.prefix + "embed_tokens.weight"
                                                 : std::string("lm_head.weight");
  spec.tower.prefix = nested ? "model.visual." : "visual.";
  return spec;
}

}  // namespace triptych::models
