// What is defended: the published files are read as they are; every value out of range is
// INVALID_ARGUMENT at start instead of a crash later.

#include "models/config/model_config.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <random>

namespace triptych::models {
namespace {

using nlohmann::json;

json GoodConfig() {
  return json::parse(
      R"({"eos_token_id":1013,"vision_start_token_id":1020,"vision_end_token_id":1021,
    "image_token_id":1023,"video_token_id":1024,"hidden_size":320,"intermediate_size":896,
    "max_position_embeddings":32768,"num_attention_heads":5,"num_hidden_layers":8,
    "num_key_value_heads":1,"rms_norm_eps":1e-06,"rope_theta":1000000.0,"tie_word_embeddings":true,
    "vocab_size":1088,"rope_scaling":{"type":"mrope","mrope_section":[8,12,12]},
    "vision_config":{"depth":6,"hidden_size":256,"intermediate_size":704,"num_heads":4,"in_chans":3,
    "out_hidden_size":320,"patch_size":14,"spatial_merge_size":2,"window_size":112,
    "fullatt_block_indexes":[5,2],"tokens_per_second":2,"temporal_patch_size":2}})");
}

json GoodPreprocessor() {
  return json::parse(R"({"min_pixels":3136,"max_pixels":451584,"patch_size":14,
    "temporal_patch_size":2,"merge_size":2,"image_mean":[0.48,0.46,0.41],
    "image_std":[0.27,0.26,0.28]})");
}

const char kGeneration[] = R"({"eos_token_id":[1013,1011]})";

absl::StatusCode CodeOf(const json& config, const json& preprocessor = GoodPreprocessor()) {
  return ParseModelConfig(config.dump(), kGeneration, preprocessor.dump()).status().code();
}

}  // namespace

TEST_CASE("ModelConfig: a published directory is read whole", "[models][config]") {
  const auto config = ParseModelConfig(GoodConfig().dump(), kGeneration, GoodPreprocessor().dump());
  REQUIRE(config.ok());
  CHECK(config->hidden_size == 320);
  CHECK(config->num_layers == 8);
  CHECK(config->num_kv_heads == 1);
  CHECK(config->head_dim == 64);
  CHECK(config->vocab_size == 1088);
  CHECK(config->rope_theta == 1e6);
  CHECK(config->mrope_section == std::array<int, 3>{8, 12, 12});
  CHECK(config->tie_word_embeddings);
  CHECK(config->eos_token_ids == std::vector<int32_t>{1011, 1013});
  CHECK(config->video_token_id == 1024);
  CHECK(config->vision.fullatt_block_indexes == std::vector<int>{2, 5});
  CHECK(config->vision.head_dim() == 64);
  CHECK(config->vision.patch_elements() == 1176);
  CHECK(config->preprocessor.max_pixels == 451584);
  CHECK(config->preprocessor.std[2] == 0.28f);
}

TEST_CASE("ModelConfig: a value out of range or of another type is refused",
          "[models][config][hostile]") {
  const std::vector<std::pair<std::string, json>> wrong = {
      {"/hidden_size", 0},
      {"/hidden_size", 321},
      {"/hidden_size", "320"},
      {"/hidden_size", 1e30},
      {"/hidden_size", nullptr},
      {"/num_hidden_layers", -1},
      {"/num_hidden_layers", 18446744073709551615ULL},
      {"/num_key_value_heads", 2},
      {"/vocab_size", 1024},
      {"/vocab_size", 1000000000},
      {"/rms_norm_eps", -1e-6},
      {"/rope_theta", 0},
      {"/rope_scaling", 7},
      {"/rope_scaling/mrope_section", json::array({8, 12})},
      {"/rope_scaling/mrope_section", json::array({8, 12, 13})},
      {"/eos_token_id", json::array({1, 1088})},
      {"/eos_token_id", json::array({"x"})},
      {"/image_token_id", 1088},
      {"/tie_word_embeddings", 1},
      {"/max_position_embeddings", 0},
      {"/vision_config", json::array()},
      {"/vision_config/depth", 0},
      {"/vision_config/num_heads", 3},
      {"/vision_config/patch_size", 0},
      {"/vision_config/spatial_merge_size", -2},
      {"/vision_config/window_size", 100},
      {"/vision_config/fullatt_block_indexes", json::array({6})},
      {"/vision_config/out_hidden_size", 64},
      {"/vision_config/tokens_per_second", 0},
  };
  REQUIRE(CodeOf(GoodConfig()) == absl::StatusCode::kOk);
  for (const auto& [pointer, value] : wrong) {
    json config = GoodConfig();
    config[json::json_pointer(pointer)] = value;
    INFO(pointer << " = " << value);
    CHECK(CodeOf(config) == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("ModelConfig: a wrong preprocessor is refused", "[models][config][hostile]") {
  const std::vector<std::pair<std::string, json>> wrong = {
      {"/min_pixels", 0},
      {"/max_pixels", 100},
      {"/max_pixels", 1e18},
      {"/patch_size", 16},
      {"/image_mean", json::array({1, 2})},
      {"/image_std", json::array({0.2, 0.2, 0})},
      {"/image_std", "x"},
  };
  for (const auto& [pointer, value] : wrong) {
    json preprocessor = GoodPreprocessor();
    preprocessor[json::json_pointer(pointer)] = value;
    INFO(pointer << " = " << value);
    CHECK(CodeOf(GoodConfig(), preprocessor) == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("ModelConfig: text that is no object, or too deep, is refused",
          "[models][config][hostile]") {
  const std::string good = GoodPreprocessor().dump();
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{\"a\":1e999}"), std::string("{\"a\":NaN}"),
        std::string(100000, '['), "{\"a\":" + std::string(100000, '[')}) {
    CHECK(absl::IsInvalidArgument(ParseModelConfig(text, "", good).status()));
  }
  CHECK(absl::IsNotFound(LoadModelConfig("/nonexistent").status()));
}

TEST_CASE("ModelConfig: mutated files never crash", "[models][config][fuzz]") {
  constexpr unsigned kSeed = 7;
  INFO("seed " << kSeed);
  std::mt19937 random(kSeed);
  const std::string config = GoodConfig().dump(), preprocessor = GoodPreprocessor().dump();
  for (int round = 0; round < 5000; ++round) {
    std::string mutated = config;
    for (unsigned edits = random() % 4 + 1; edits > 0; --edits) {
      mutated[random() % mutated.size()] = static_cast<char>(random() % 256);
    }
    const auto parsed = ParseModelConfig(mutated, kGeneration, preprocessor);
    if (parsed.ok()) REQUIRE(parsed->hidden_size % parsed->num_attention_heads == 0);
  }
}

}  // namespace triptych::models
