// Defended: both published forms of tensor names load, and drawn weights fit every shape that a
// model asks for.

#include "models/family/model_spec.h"

#include <catch2/catch.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "models/decoder/decoder.h"
#include "models/vision/vision_tower.h"
#include "models/weights/checkpoint.h"
#include "models/weights/dummy_weights.h"
#include "tests/models/reference_files.h"
#include "tests/support/skip.h"

namespace triptych::models {
namespace {

// A checkpoint under the names of newer exports.
class NestedNames final : public WeightSource {
 public:
  explicit NestedNames(const WeightSource& flat) : flat_(flat) {}
  absl::StatusOr<TensorView> Get(absl::string_view name,
                                 absl::Span<const int64_t> shape) const override {
    for (const std::string& known : flat_.Names()) {
      if (Nested(known) == name) return flat_.Get(known, shape);
    }
    return absl::NotFoundError(name);
  }
  std::vector<std::string> Names() const override {
    std::vector<std::string> names;
    for (const std::string& name : flat_.Names()) names.push_back(Nested(name));
    return names;
  }
  std::string Digest(int threads) const override { return flat_.Digest(threads); }

 private:
  static std::string Nested(absl::string_view name) {
    if (absl::ConsumePrefix(&name, "model.")) return absl::StrCat("model.language_model.", name);
    if (absl::StartsWith(name, "visual.")) return absl::StrCat("model.", name);
    return std::string(name);
  }
  const WeightSource& flat_;
};

TEST_CASE("ModelSpec: both published forms of tensor names load", "[models][family]") {
  const std::string dir = testing::SmallModelDir();
  if (dir.empty()) return testing::SkipTest("the small model is not here");
  const auto config = LoadModelConfig(dir);
  const auto flat = Checkpoint::Open(dir);
  REQUIRE((config.ok() && flat.ok()));
  HostWeightMemory memory;
  const NestedNames nested(**flat);
  CHECK(SpecOf(*config, **flat).tower.prefix == "visual.");
  const ModelSpec spec = SpecOf(*config, nested);
  CHECK(spec.tower.prefix == "model.visual.");
  CHECK(spec.decoder.head == "model.language_model.embed_tokens.weight");
  CHECK(Decoder::Load(nested, *config, spec.decoder, &memory).ok());
  CHECK(VisionTower::Load(nested, *config, spec.tower, &memory).ok());
  CHECK(Decoder::Load(nested, *config, SpecOf(*config, **flat).decoder, &memory).status().code() ==
        absl::StatusCode::kNotFound);
}

TEST_CASE("ModelSpec: drawn weights have every tensor of a model", "[models][family]") {
  const std::string dir = testing::SmallModelDir();
  if (dir.empty()) return testing::SkipTest("the small model is not here");
  const auto config = LoadModelConfig(dir);
  REQUIRE(config.ok());
  HostWeightMemory memory;
  const DummyWeights weights(3, 2);
  const ModelSpec spec = SpecOf(*config, weights);
  CHECK(Decoder::Load(weights, *config, spec.decoder, &memory).ok());
  CHECK(VisionTower::Load(weights, *config, spec.tower, &memory).ok());
}

}  // namespace
}  // namespace triptych::models
