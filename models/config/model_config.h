#pragma once

// The numbers of one published checkpoint: read once at start from an HF directory, range-checked,
// then plain values. Not a registry of architectures: one family, Qwen2.5-VL.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace triptych::models {

// The vision tower. Lengths in pixels where a name says so, else in elements.
struct VisionConfig {
  int depth = 0;
  int hidden_size = 0;
  int num_heads = 0;
  int intermediate_size = 0;
  int in_channels = 3;
  int patch_size = 14;                     // pixels
  int temporal_patch_size = 2;             // frames
  int merge_size = 2;                      // patches merged along each side into one visual token
  int window_size = 112;                   // pixels
  std::vector<int> fullatt_block_indexes;  // sorted, each < depth
  double tokens_per_second = 2;
  int out_hidden_size = 0;  // equals the text hidden size
  int head_dim() const { return hidden_size / num_heads; }
  // Values of one patch: channels x frames x height x width.
  int patch_elements() const { return in_channels * temporal_patch_size * patch_size * patch_size; }
};

// How a picture becomes patches.
struct PreprocessorConfig {
  int64_t min_pixels = 0;
  int64_t max_pixels = 0;
  std::array<float, 3> mean = {};
  std::array<float, 3> std = {};
};

struct ModelConfig {
  // Language model.
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_attention_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int vocab_size = 0;  // rows of the embedding table and width of the logits
  float rms_norm_eps = 1e-6f;
  double rope_theta = 1e6;
  // Rotary frequencies of (time, height, width); their sum is head_dim / 2.
  std::array<int, 3> mrope_section = {};
  bool tie_word_embeddings = false;
  int max_position_embeddings = 0;
  // Sorted, without duplicates: the union of config.json and generation_config.json.
  std::vector<int32_t> eos_token_ids;
  int32_t image_token_id = 0;
  int32_t video_token_id = 0;
  int32_t vision_start_token_id = 0;
  int32_t vision_end_token_id = 0;
  VisionConfig vision;
  PreprocessorConfig preprocessor;
};

// Reads config.json, generation_config.json (optional) and preprocessor_config.json of `dir`.
// NOT_FOUND when a file is missing; INVALID_ARGUMENT, naming file and key, when a value is absent,
// of the wrong type or out of range.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& dir);

// The same from texts; `generation` may be empty.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config, absl::string_view generation,
                                             absl::string_view preprocessor);

}  // namespace triptych::models
