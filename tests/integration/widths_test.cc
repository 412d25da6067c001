// Defends that a cluster of real processes works at the widths of a 7B model (grouped heads, long
// rows, a head of its own), without its weights: drawn ones answer nonsense, but the same nonsense
// in every topology. Two layers a tower and the small model's vocabulary keep it within minutes.

#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/rpc.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/load.h"
#include "tests/models/weights/temporary_file.h"

namespace triptych::testing {
namespace {

constexpr char kShape[] = "assets/shape-7b/";

// A model directory with that shape, but two layers a tower and few words.
void WriteShallow(const TemporaryDirectory& dir) {
  for (const char* name :
       {"generation_config.json", "preprocessor_config.json", "tokenizer.json"}) {
    dir.Write(name, ReadFile(std::string(kShape) + name));
  }
  auto config = nlohmann::json::parse(ReadFile(std::string(kShape) + "config.json"));
  config["num_hidden_layers"] = 2;
  config["vocab_size"] = 1088;
  config["vision_config"]["depth"] = 2;
  config["vision_config"]["fullatt_block_indexes"] = {1};
  dir.Write("config.json", config.dump());
}

TEST_CASE("Cluster: at 7B widths, drawn weights answer the same in every topology",
          "[integration][slow][serial]") {
  const TemporaryDirectory model;
  WriteShallow(model);
  std::vector<Question> questions = ExampleQuestions();
  questions.resize(2);
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> tokens;
  for (const char* workers : {"encode=1,prefill=1,decode=1", "encode+prefill=1,decode=1",
                              "encode=1,prefill+decode=1", "encode+prefill+decode=1"}) {
    INFO(workers);
    Cluster cluster(workers, {"--model=" + model.path(), "--worker-flags=--load-format=dummy"});
    const auto stub = v1::Inference::NewStub(base::ConnectAsClient(cluster.grpc()));
    for (size_t i = 0; i < questions.size(); ++i) {
      v1::GenerateRequest request = questions[i].request;
      request.set_max_tokens(12);
      const Reply reply = Ask(stub.get(), request);
      INFO(reply.error);
      REQUIRE(reply.ok);
      CHECK(reply.tokens.size() > 1);
      if (tokens.size() <= i) {
        texts.push_back(reply.text);
        tokens.push_back(reply.tokens);
      }
      CHECK(reply.text == texts[i]);
      CHECK(reply.tokens == tokens[i]);
    }
  }
  CHECK(tokens[0] != tokens[1]);
}

}  // namespace
}  // namespace triptych::testing
