#include "models/config/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "models/weights/json_text.h"

namespace triptych::models {
namespace {

using nlohmann::json;

// Bounds are far above every published model, and low enough that products of four of them fit
// 64 bits.
constexpr int kMaxWidth = 1 << 17;
constexpr int kMaxLayers = 1024;
constexpr int kMaxVocabulary = 1 << 22;
constexpr int kMaxPositions = 1 << 24;
constexpr int64_t kMaxPixels = int64_t{1} << 28;

// Takes values out of one JSON object and remembers the first thing that was wrong, so that a
// reader is a list of fields. After an error every value is the type's zero.
class FieldReader {
 public:
  FieldReader(const json& object, absl::string_view file) : object_(object), file_(file) {}

  const absl::Status& status() const { return status_; }

  void Fail(absl::string_view key, absl::string_view why) {
    if (status_.ok()) {
      status_ = absl::InvalidArgumentError(absl::StrCat(file_, ": ", key, ": ", why));
    }
  }

  // An integer in [low, high]; `otherwise` when the key is absent or null.
  int64_t Integer(const char* key, int64_t low, int64_t high,
                  std::optional<int64_t> otherwise = std::nullopt) {
    const json* value = Find(key);
    if (value == nullptr) return Absent(key, otherwise);
    return CheckedInteger(key, *value, low, high);
  }

  int Int(const char* key, int low, int high, std::optional<int64_t> otherwise = std::nullopt) {
    return static_cast<int>(Integer(key, low, high, otherwise));
  }

  // A finite number in [low, high].
  double Number(const char* key, double low, double high,
                std::optional<double> otherwise = std::nullopt) {
    const json* value = Find(key);
    if (value == nullptr) return Absent(key, otherwise);
    return CheckedNumber(key, *value, low, high);
  }

  bool Boolean(const char* key, bool otherwise) {
    const json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) {
      Fail(key, "not true or false");
      return otherwise;
    }
    return value->get<bool>();
  }

  // One integer or an array of at most `max_count`, each in [low, high]. Empty when absent.
  std::vector<int> Integers(const char* key, int low, int high, size_t max_count) {
    const json* value = Find(key);
    if (value == nullptr) return {};
    if (!value->is_array()) return {static_cast<int>(CheckedInteger(key, *value, low, high))};
    if (value->size() > max_count) {
      Fail(key, absl::StrCat("more than ", max_count, " values"));
      return {};
    }
    std::vector<int> values;
    for (const json& element : *value) {
      values.push_back(static_cast<int>(CheckedInteger(key, element, low, high)));
    }
    return values;
  }

  std::array<float, 3> Floats3(const char* key, double low, double high) {
    std::array<float, 3> values = {};
    const json* value = Find(key);
    if (value == nullptr || !value->is_array() || value->size() != values.size()) {
      Fail(key, "not three numbers");
      return values;
    }
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(CheckedNumber(key, (*value)[i], low, high));
    }
    return values;
  }

  // A nested object, or an error and an empty one.
  const json& Object(const char* key) {
    static const json kEmpty = json::object();
    const json* value = Find(key);
    if (value != nullptr && value->is_object()) return *value;
    Fail(key, "not an object");
    return kEmpty;
  }

  const json* Find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

 private:
  template <typename T>
  T Absent(const char* key, std::optional<T> otherwise) {
    if (!otherwise.has_value()) Fail(key, "missing");
    return otherwise.value_or(T{});
  }

  int64_t CheckedInteger(const char* key, const json& value, int64_t low, int64_t high) {
    const bool fits =
        value.is_number_integer() &&
        !(value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX));
    const int64_t number = fits ? value.get<int64_t>() : 0;
    if (fits && number >= low && number <= high) return number;
    Fail(key, absl::StrCat("not an integer in [", low, ", ", high, "]"));
    return low;
  }

  double CheckedNumber(const char* key, const json& value, double low, double high) {
    const double number = value.is_number() ? value.get<double>() : std::nan("");
    if (number >= low && number <= high) return number;  // false for NaN
    Fail(key, absl::StrCat("not a number in [", low, ", ", high, "]"));
    return low;
  }

  const json& object_;
  const std::string file_;
  absl::Status status_;
};

// The text part: nested in newer exports, at the top level in published ones.
const json& TextObject(const json& root) {
  const auto nested = root.find("text_config");
  return nested != root.end() && nested->is_object() ? *nested : root;
}

void ReadMropeSection(FieldReader& text, ModelConfig& config) {
  FieldReader scaling(text.Object("rope_scaling"), "config.json rope_scaling");
  const std::vector<int> section = scaling.Integers("mrope_section", 1, kMaxWidth, 3);
  if (section.size() != 3) {
    text.Fail("mrope_section", "not three integers");
    return;
  }
  std::copy(section.begin(), section.end(), config.mrope_section.begin());
  if (2 * (section[0] + section[1] + section[2]) != config.head_dim) {
    text.Fail("mrope_section", absl::StrCat("does not sum to half of head_dim ", config.head_dim));
  }
}

absl::Status ReadText(const json& root, ModelConfig& config) {
  FieldReader text(TextObject(root), "config.json");
  config.hidden_size = text.Int("hidden_size", 1, kMaxWidth);
  config.intermediate_size = text.Int("intermediate_size", 1, kMaxWidth);
  config.num_layers = text.Int("num_hidden_layers", 1, kMaxLayers);
  config.num_attention_heads = text.Int("num_attention_heads", 1, kMaxLayers);
  config.num_kv_heads = text.Int("num_key_value_heads", 1, kMaxLayers, config.num_attention_heads);
  RETURN_IF_ERROR(text.status());
  if (text.Find("head_dim") == nullptr && config.hidden_size % config.num_attention_heads != 0) {
    text.Fail("hidden_size", "not a multiple of num_attention_heads");
  }
  config.head_dim =
      text.Int("head_dim", 2, 1024, std::max(1, config.hidden_size / config.num_attention_heads));
  if (config.head_dim < 2 || config.head_dim > 1024 || config.head_dim % 2 != 0) {
    text.Fail("head_dim", "not an even number in [2, 1024]");
  }
  if (config.num_attention_heads % config.num_kv_heads != 0) {
    text.Fail("num_key_value_heads", "does not divide num_attention_heads");
  }
  config.vocab_size = text.Int("vocab_size", 1, kMaxVocabulary);
  config.rms_norm_eps = static_cast<float>(text.Number("rms_norm_eps", 1e-12, 1e-2));
  config.rope_theta = text.Number("rope_theta", 1, 1e12);
  config.max_position_embeddings = text.Int("max_position_embeddings", 1, kMaxPositions);
  ReadMropeSection(text, config);
  FieldReader top(root, "config.json");
  const bool tie = text.Boolean("tie_word_embeddings", false);
  config.tie_word_embeddings = top.Boolean("tie_word_embeddings", tie);
  RETURN_IF_ERROR(top.status());
  return text.status();
}

absl::Status ReadVision(const json& root, ModelConfig& config) {
  FieldReader top(root, "config.json");
  FieldReader reader(top.Object("vision_config"), "config.json vision_config");
  RETURN_IF_ERROR(top.status());
  VisionConfig& vision = config.vision;
  vision.depth = reader.Int("depth", 1, kMaxLayers);
  vision.hidden_size = reader.Int("hidden_size", 1, kMaxWidth);
  vision.num_heads = reader.Int("num_heads", 1, kMaxLayers);
  vision.intermediate_size = reader.Int("intermediate_size", 1, kMaxWidth);
  vision.in_channels = reader.Int("in_channels", 3, 3, 3);
  vision.patch_size = reader.Int("patch_size", 1, 256, 14);
  vision.temporal_patch_size = reader.Int("temporal_patch_size", 1, 16, 2);
  vision.merge_size = reader.Int("spatial_merge_size", 1, 16, 2);
  vision.window_size = reader.Int("window_size", 1, 1 << 16, 112);
  vision.fullatt_block_indexes =
      reader.Integers("fullatt_block_indexes", 0, kMaxLayers, kMaxLayers);
  std::sort(vision.fullatt_block_indexes.begin(), vision.fullatt_block_indexes.end());
  vision.tokens_per_second = reader.Number("tokens_per_second", 1e-3, 1e3, 2.0);
  vision.out_hidden_size = reader.Int("out_hidden_size", 1, kMaxWidth, config.hidden_size);
  RETURN_IF_ERROR(reader.status());
  if (vision.hidden_size % vision.num_heads != 0 || vision.head_dim() % 4 != 0) {
    reader.Fail("num_heads", "head size is not a multiple of 4");
  }
  if (!vision.fullatt_block_indexes.empty() &&
      vision.fullatt_block_indexes.back() >= vision.depth) {
    reader.Fail("fullatt_block_indexes", "beyond depth");
  }
  if (vision.window_size % (vision.patch_size * vision.merge_size) != 0) {
    reader.Fail("window_size", "not a multiple of patch_size * spatial_merge_size");
  }
  if (vision.out_hidden_size != config.hidden_size) {
    reader.Fail("out_hidden_size", "differs from hidden_size");
  }
  return reader.status();
}

absl::Status ReadTokenIds(const json& root, const json& generation, ModelConfig& config) {
  FieldReader reader(root, "config.json");
  const int last = config.vocab_size - 1;
  config.image_token_id = reader.Int("image_token_id", 0, last);
  config.video_token_id = reader.Int("video_token_id", 0, last);
  config.vision_start_token_id = reader.Int("vision_start_token_id", 0, last);
  config.vision_end_token_id = reader.Int("vision_end_token_id", 0, last);
  config.eos_token_ids = reader.Integers("eos_token_id", 0, last, 64);
  RETURN_IF_ERROR(reader.status());
  FieldReader second(generation, "generation_config.json");
  for (const int id : second.Integers("eos_token_id", 0, last, 64)) {
    config.eos_token_ids.push_back(id);
  }
  RETURN_IF_ERROR(second.status());
  auto& ids = config.eos_token_ids;
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (ids.empty()) reader.Fail("eos_token_id", "missing");
  return reader.status();
}

absl::Status ReadPreprocessor(const json& root, ModelConfig& config) {
  FieldReader reader(root, "preprocessor_config.json");
  PreprocessorConfig& preprocessor = config.preprocessor;
  const VisionConfig& vision = config.vision;
  const int side = vision.patch_size * vision.merge_size;
  preprocessor.min_pixels = reader.Integer("min_pixels", int64_t{side} * side, kMaxPixels);
  preprocessor.max_pixels = reader.Integer("max_pixels", preprocessor.min_pixels, kMaxPixels);
  preprocessor.mean = reader.Floats3("image_mean", -1, 2);
  preprocessor.std = reader.Floats3("image_std", 1e-3, 1e3);
  if (reader.Int("patch_size", 1, 256, vision.patch_size) != vision.patch_size ||
      reader.Int("merge_size", 1, 16, vision.merge_size) != vision.merge_size ||
      reader.Int("temporal_patch_size", 1, 16, vision.temporal_patch_size) !=
          vision.temporal_patch_size) {
    reader.Fail("patch_size", "patch_size, merge_size or temporal_patch_size differ from config");
  }
  return reader.status();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config_text,
                                             absl::string_view generation_text,
                                             absl::string_view preprocessor_text) {
  ASSIGN_OR_RETURN(const json root, ParseJsonObject(config_text, "config.json"));
  json generation = json::object();
  if (!generation_text.empty()) {
    ASSIGN_OR_RETURN(generation, ParseJsonObject(generation_text, "generation_config.json"));
  }
  ASSIGN_OR_RETURN(const json preprocessor,
                   ParseJsonObject(preprocessor_text, "preprocessor_config.json"));
  ModelConfig config;
  RETURN_IF_ERROR(ReadText(root, config));
  RETURN_IF_ERROR(ReadVision(root, config));
  RETURN_IF_ERROR(ReadTokenIds(root, generation, config));
  RETURN_IF_ERROR(ReadPreprocessor(preprocessor, config));
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& dir) {
  ASSIGN_OR_RETURN(const std::string config, ReadTextFile(dir + "/config.json"));
  absl::StatusOr<std::string> generation = ReadTextFile(dir + "/generation_config.json");
  if (absl::IsNotFound(generation.status())) generation = std::string();
  RETURN_IF_ERROR(generation.status());
  ASSIGN_OR_RETURN(const std::string preprocessor, ReadTextFile(dir + "/preprocessor_config.json"));
  return ParseModelConfig(config, *generation, preprocessor);
}

}  // namespace triptych::models
