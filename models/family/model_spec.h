#pragma once

// What differs between the models that one decoder and one vision tower can run, as data: names of
// tensors, which biases there are, norms, positions. The numbers of a checkpoint are in
// ModelConfig. One family has its spec here: Qwen2.5-VL.

#include <string>

#include "models/config/model_config.h"
#include "models/weights/weight_source.h"

namespace triptych::models {

enum class HasBias { kNo, kYes };

struct DecoderSpec {
  std::string prefix;  // of every tensor but the head: "model."
  std::string head;    // matrix of the logits: "lm_head.weight", or the embedding table's name
  HasBias qkv_bias = HasBias::kYes;
  HasBias output_bias = HasBias::kNo;  // of the attention's projection
  HasBias mlp_bias = HasBias::kNo;
};

struct TowerSpec {
  std::string prefix;  // of every tensor: "visual."
  HasBias qkv_bias = HasBias::kYes;
  HasBias output_bias = HasBias::kYes;
  HasBias mlp_bias = HasBias::kYes;
  HasBias merger_bias = HasBias::kYes;
  float norm_eps = 1e-6f;     // RMS norm, without a bias
  double rope_theta = 10000;  // of the rows and columns of patches, half of the frequencies each
};

struct ModelSpec {
  DecoderSpec decoder;
  TowerSpec tower;
};

// For the tensors that `weights` has: exports of Qwen2.5-VL name them "model." and "visual.", newer
// ones "model.language_model." and "model.visual.". A source that names nothing has the first form.
ModelSpec SpecOf(const ModelConfig& config, const WeightSource& weights);

}  // namespace triptych::models
