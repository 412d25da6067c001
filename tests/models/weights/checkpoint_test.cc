// What is defended: a checkpoint is the files its index names, each tensor where the index says, in
// the shape the model expects; anything else stops the start with one line.

#include "models/weights/checkpoint.h"

#include <catch2/catch.hpp>
#include <cstring>

#include "tests/models/weights/temporary_file.h"

namespace triptych::models {
namespace {

using testing::TemporaryDirectory;

// A safetensors file with one F32 tensor `name` of shape [1, 2].
std::string Shard(const std::string& name) {
  const std::string header =
      "{\"" + name + R"(":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})";
  const uint64_t size = header.size();
  std::string text(sizeof(size), '\0');
  std::memcpy(text.data(), &size, sizeof(size));
  return text + header + std::string(8, '\0');
}

absl::StatusCode OpenCode(const TemporaryDirectory& dir) {
  return Checkpoint::Open(dir.path()).status().code();
}

}  // namespace

TEST_CASE("Checkpoint: tensors of several shards are found by name and shape",
          "[models][weights]") {
  const TemporaryDirectory dir;
  dir.Write("one.safetensors", Shard("a"));
  dir.Write("two.safetensors", Shard("b"));
  dir.Write("model.safetensors.index.json",
            R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const auto checkpoint = Checkpoint::Open(dir.path());
  REQUIRE(checkpoint.ok());
  CHECK((*checkpoint)->Names() == std::vector<std::string>{"a", "b"});
  CHECK((*checkpoint)->Get("b", {1, 2}).ok());
  CHECK(absl::IsInvalidArgument((*checkpoint)->Get("b", {2, 1}).status()));
  CHECK(absl::IsNotFound((*checkpoint)->Get("c", {1, 2}).status()));
}

TEST_CASE("Checkpoint: a single file needs no index", "[models][weights]") {
  const TemporaryDirectory dir;
  CHECK(OpenCode(dir) == absl::StatusCode::kNotFound);
  dir.Write("model.safetensors", Shard("a"));
  CHECK(OpenCode(dir) == absl::StatusCode::kOk);
}

TEST_CASE("Checkpoint: an index that lies is refused", "[models][weights][hostile]") {
  const TemporaryDirectory dir;
  dir.Write("one.safetensors", Shard("a"));
  dir.Write("two.safetensors", Shard("a"));
  const auto code_of = [&](const std::string& index) {
    dir.Write("model.safetensors.index.json", index);
    return OpenCode(dir);
  };
  using absl::StatusCode;
  CHECK(code_of(R"({"weight_map":{"a":"one.safetensors"}})") == StatusCode::kOk);
  CHECK(code_of(R"({"weight_map":{"b":"one.safetensors"}})") == StatusCode::kInvalidArgument);
  CHECK(code_of(R"({"weight_map":{"a":"gone.safetensors"}})") == StatusCode::kNotFound);
  CHECK(code_of(R"({"weight_map":{"a":"../one.safetensors"}})") == StatusCode::kInvalidArgument);
  CHECK(code_of(R"({"weight_map":{"a":7}})") == StatusCode::kInvalidArgument);
  CHECK(code_of(R"({"weight_map":{}})") == StatusCode::kInvalidArgument);
  CHECK(code_of(R"({"weight_map":[]})") == StatusCode::kInvalidArgument);
  CHECK(code_of("nonsense") == StatusCode::kInvalidArgument);
  CHECK(code_of(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})") ==
        StatusCode::kInvalidArgument);
}

}  // namespace triptych::models
