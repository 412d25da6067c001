// Defended: a digest tells any two sets of weights apart and depends on no thread; drawn weights
// are the same each time; a fingerprint begins with what a gateway can compute.

#include "models/weights/weight_source.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "base/checksum.h"
#include "models/weights/checkpoint.h"
#include "models/weights/dummy_weights.h"
#include "models/weights/fingerprint.h"
#include "tests/models/weights/temporary_file.h"

namespace triptych::models {
namespace {

std::string OneTensorFile(std::string data) {
  std::string header = R"({"a":{"dtype":"BF16","shape":[)" + std::to_string(data.size() / 2) +
                       R"(],"data_offsets":[0,)" + std::to_string(data.size()) + "]}}";
  const uint64_t size = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &size, 8);
  return file + header + data;
}

std::string DigestOf(const std::string& data, int threads) {
  triptych::testing::TemporaryDirectory dir;
  dir.Write("model.safetensors", OneTensorFile(data));
  const auto checkpoint = Checkpoint::Open(dir.path());
  REQUIRE(checkpoint.ok());
  return (*checkpoint)->Digest(threads);
}

TEST_CASE("Checkpoint: its digest sees every byte and its place, whatever the threads",
          "[models][weights]") {
  std::string data(3 << 20, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(base::MixBits(i));
  const std::string digest = DigestOf(data, 1);
  CHECK(digest.size() == 32);
  CHECK(DigestOf(data, 3) == digest);
  for (const size_t at : {size_t{0}, size_t{262143}, size_t{262144}, data.size() - 1}) {
    std::string other = data;
    other[at] = static_cast<char>(other[at] ^ 1);
    CHECK(DigestOf(other, 1) != digest);
  }
  std::string swapped = data;  // two slices change places
  std::swap_ranges(swapped.begin(), swapped.begin() + (1 << 18), swapped.begin() + (1 << 18));
  CHECK(DigestOf(swapped, 1) != digest);
}

TEST_CASE("DummyWeights: the same seed draws the same tensor on any number of threads",
          "[models][weights]") {
  const DummyWeights one(7, 1), three(7, 3), other(8, 1);
  const std::vector<int64_t> shape = {700, 301};
  const auto a = one.Get("layer.weight", shape), b = three.Get("layer.weight", shape);
  REQUIRE((a.ok() && b.ok()));
  REQUIRE(a->size_bytes == 2 * 700 * 301);
  CHECK(std::memcmp(a->bytes, b->bytes, a->size_bytes) == 0);
  const auto c = other.Get("layer.weight", shape), d = one.Get("other.weight", shape);
  CHECK(std::memcmp(a->bytes, c->bytes, a->size_bytes) != 0);
  CHECK(std::memcmp(a->bytes, d->bytes, a->size_bytes) != 0);
  CHECK(one.Digest(1) != other.Digest(1));
  CHECK(one.Digest(1).size() == 32);
  CHECK_FALSE(one.Get("empty", {0}).ok());
}

TEST_CASE("DummyWeights: matrices keep the size of what they multiply, norms are about one",
          "[models][weights]") {
  const DummyWeights weights(1);
  const std::vector<float> matrix = ToFloats(*weights.Get("layer.weight", {64, 512}));
  double squares = 0;
  for (float value : matrix) squares += double{value} * value;
  CHECK(squares / 64 == Approx(1).epsilon(0.05));  // 512 inputs of variance 1 / 512
  for (float value : ToFloats(*weights.Get("norm.weight", {512}))) {
    CHECK(std::abs(value - 1) <= 0.11f);
  }
  for (float value : ToFloats(*weights.Get("layer.bias", {512}))) CHECK(std::abs(value) <= 0.021f);
}

TEST_CASE("Fingerprint: the texts of a model decide its first part", "[models][weights]") {
  triptych::testing::TemporaryDirectory dir;
  dir.Write("config.json", "{}");
  dir.Write("tokenizer.json", "{}");
  CHECK(TextsDigest(dir.path()).status().code() == absl::StatusCode::kNotFound);
  dir.Write("preprocessor_config.json", "{}");
  const auto digest = TextsDigest(dir.path());
  REQUIRE(digest.ok());
  CHECK(digest->size() == 32);
  CHECK(Fingerprint(*digest, "weights", "float32-1") == *digest + ".weights.float32-1");
  for (const char* name : {"config.json", "tokenizer.json", "generation_config.json"}) {
    dir.Write(name, "{ }");
    CHECK(*TextsDigest(dir.path()) != *digest);
    dir.Write(name, "{}");
  }
}

}  // namespace
}  // namespace triptych::models
