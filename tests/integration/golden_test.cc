// Defends that the whole chain of real processes computes what the published implementation does:
// every reference case goes in through the API as a client would send it, from the file of its
// picture on, and every token that comes out is the reference's.

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/rpc.h"
#include "models/weights/safetensors.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/load.h"

namespace triptych::testing {
namespace {

using nlohmann::json;

constexpr char kStages[] = "tests/golden/stages/";
constexpr char kPictures[] = "tests/golden/pictures/";
constexpr int kMostTokens = 96;  // of a reference answer
constexpr double kFramesPerSecond = 2;

struct GoldenCase {
  std::string name;
  v1::GenerateRequest request;
  int prompt_tokens = 0;
  int picture_tokens = 0;
  std::vector<int32_t> greedy;  // with the end token, where the answer reached it
};

v1::Image PictureOf(const std::string& path) {
  v1::Image image;
  image.set_data(ReadFile(kPictures + path.substr(path.rfind('/') + 1)));
  return image;
}

v1::GenerateRequest RequestOf(const json& example) {
  v1::GenerateRequest request;
  request.set_max_tokens(kMostTokens);
  if (example.at("system").is_string()) {
    v1::Message* system = request.add_messages();
    system->set_role("system");
    system->add_content()->set_text(example["system"].get<std::string>());
  }
  v1::Message* user = request.add_messages();
  user->set_role("user");
  v1::Video video;
  for (const json& path : example.at("images")) {
    const bool frame = example.at("kind") == "video";
    v1::Image* image = frame ? video.add_frames() : user->add_content()->mutable_image();
    *image = PictureOf(path.get<std::string>());
  }
  if (video.frames_size() > 0) {
    video.set_fps(kFramesPerSecond);
    *user->add_content()->mutable_video() = std::move(video);
  }
  user->add_content()->set_text(example.at("question").get<std::string>());
  return request;
}

GoldenCase CaseOf(const json& example) {
  const auto file = models::SafetensorsFile::Open(kStages + example.at("file").get<std::string>());
  REQUIRE(file.ok());
  GoldenCase golden{.name = example["file"], .request = RequestOf(example)};
  golden.prompt_tokens = static_cast<int>(file->Get("input_ids")->num_elements());
  if (file->Contains("image_embeds")) {
    golden.picture_tokens = static_cast<int>(file->Get("image_embeds")->shape[0]);
  }
  for (int64_t token : models::ToInt64s(*file->Get("greedy_tokens"))) {
    golden.greedy.push_back(static_cast<int32_t>(token));
  }
  return golden;
}

std::vector<GoldenCase> GoldenCases() {
  const json index = json::parse(ReadFile(absl::StrCat(kStages, "index.json")));
  std::vector<GoldenCase> cases;
  for (const json& example : index) cases.push_back(CaseOf(example));
  return cases;
}

void CheckReply(const GoldenCase& golden, const Reply& reply) {
  INFO(golden.name << ": " << reply.error << ", \"" << reply.text << "\"");
  REQUIRE(reply.ok);
  CHECK(reply.usage.prompt_tokens() == golden.prompt_tokens);
  CHECK(reply.usage.picture_tokens() == golden.picture_tokens);
  CHECK(reply.usage.output_tokens() == static_cast<int>(golden.greedy.size()));
  CHECK(reply.tokens == golden.greedy);
  const bool whole = golden.greedy.size() < kMostTokens;
  CHECK(reply.finish == (whole ? v1::FINISH_STOP : v1::FINISH_LENGTH));
}

// All of them at the same moment. Catch2's assertions are for one thread, so the askers only
// collect.
std::vector<Reply> AskAllAtOnce(v1::Inference::Stub* stub, const std::vector<GoldenCase>& cases) {
  std::vector<Reply> replies(cases.size());
  std::vector<std::thread> askers;
  for (size_t i = 0; i < cases.size(); ++i) {
    askers.emplace_back([&, i] { replies[i] = Ask(stub, cases[i].request); });
  }
  for (std::thread& asker : askers) asker.join();
  return replies;
}

TEST_CASE("Cluster: every reference case gives the reference's tokens, alone and all at once",
          "[integration][golden][serial]") {
  const std::vector<GoldenCase> cases = GoldenCases();
  REQUIRE(cases.size() == 26);
  Cluster cluster("encode=1,prefill=1,decode=1");
  const auto stub = v1::Inference::NewStub(base::ConnectAsClient(cluster.grpc()));
  for (const GoldenCase& golden : cases) CheckReply(golden, Ask(stub.get(), golden.request));
  const std::vector<Reply> replies = AskAllAtOnce(stub.get(), cases);
  for (size_t i = 0; i < cases.size(); ++i) CheckReply(cases[i], replies[i]);
}

}  // namespace
}  // namespace triptych::testing
