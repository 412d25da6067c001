// What is defended: steps of a lane run in order, beside the other lane and the copies; a sequence
// handed over as bytes goes on with the same tokens as one that stayed.

#include "engine/cpu/cpu_executor.h"

#include "base/checksum.h"
#include "models/weights/checkpoint.h"
#include "tests/engine/engine_question.h"

namespace triptych::engine {
namespace {

using scheduler::BufferId;
using scheduler::StepId;

std::unique_ptr<Executor> MakeSmall(ExecutorEvents events) {
  static const base::RealClock clock;
  const std::string dir = triptych::testing::SmallModelDir();
  const auto config = models::LoadModelConfig(dir);
  const auto weights = models::Checkpoint::Open(dir);
  REQUIRE((config.ok() && weights.ok()));
  auto made = CpuExecutor::Create({.kv_blocks = 256}, *config, **weights, clock, std::move(events));
  REQUIRE(made.ok());
  return *std::move(made);
}

}  // namespace

TEST_CASE("CpuExecutor: encode, prefill and decode answer as the published implementation",
          "[engine][golden]") {
  if (ReferencesMissing()) return;
  const Question question = ReadQuestion();
  EngineBench engine(MakeSmall);
  CHECK(GreedyAnswer(engine, question) == question.greedy);
}

TEST_CASE("CpuExecutor: KV handed over as bytes goes on with the same tokens", "[engine][memory]") {
  if (ReferencesMissing()) return;
  const Question question = ReadQuestion();
  EngineBench engine(MakeSmall);
  engine.executor().ProvideInput(kTask, question.input);
  engine.Run(EncodePlan(question));
  const auto tokens = static_cast<int32_t>(question.ids.size());
  const int64_t bytes = tokens * engine.executor().capacity().kv_bytes_per_token;
  const scheduler::PieceBuffer buffer{BufferId(1), 4096, bytes};
  const scheduler::CacheRange all{.token_end = tokens,
                                  .layer_end = engine.executor().capacity().num_layers};
  // Submitted before its step has begun, it waits for that step.
  const StepId step(1);
  engine.Submit(PrefillPlan(question));
  engine.executor().Export({kTask, step, buffer, all, Pages(3)});
  scheduler::StepResult result = engine.results.Take();
  const scheduler::ExportResult exported = engine.exports.Take();
  CHECK(exported.buffer == buffer.id);
  const TransferRegions& regions = engine.executor().transfer_regions();
  const absl::Span<uint8_t> staged = regions.Staging(buffer).HostBytes();
  CHECK(exported.checksum == base::Checksum64(staged.data(), staged.size()));
  const int32_t first = result.rows.at(0).tokens.at(0).token;
  const absl::Span<uint8_t> landing = regions.Landing(buffer).HostBytes();
  std::copy(staged.begin(), staged.end(), landing.begin());
  Told<uint64_t> checksums;
  engine.executor().ChecksumLanded(buffer, [&](uint64_t sum) { checksums.Put(sum); });
  CHECK(checksums.Take() == exported.checksum);
  engine.executor().Import({kTask, buffer, all, Pages(100)});
  CHECK(engine.imports.Take() == buffer.id);
  scheduler::StepPlan decode;
  decode.rows.push_back(DecodeRow(question, 0, first, 100));
  result = engine.Run(std::move(decode));
  CHECK(result.rows.at(0).tokens.at(0).token == question.greedy.at(1));
}

TEST_CASE("CpuExecutor: a row takes the token that an unfinished step samples", "[engine]") {
  if (ReferencesMissing()) return;
  const Question question = ReadQuestion();
  EngineBench engine(MakeSmall);
  engine.executor().ProvideInput(kTask, question.input);
  engine.Run(EncodePlan(question));
  engine.Submit(PrefillPlan(question));
  engine.Submit(UnknownTokenPlan(question));
  CHECK(engine.results.Take().rows.at(0).tokens.at(0).token == question.greedy.at(0));
  CHECK(engine.results.Take().rows.at(0).tokens.at(0).token == question.greedy.at(1));
}

TEST_CASE("CpuExecutor: penalties and biases move the draw, also of a token still unknown",
          "[engine]") {
  if (ReferencesMissing()) return;
  const Question question = ReadQuestion();
  CheckDraws(question, MakeSmall);
}

TEST_CASE("CpuExecutor: rows do not wait for more than one item of an encode step", "[engine]") {
  if (ReferencesMissing()) return;
  const Question question = ReadQuestion();
  EngineBench engine(MakeSmall);
  engine.executor().ProvideInput(kTask, question.input);
  engine.Run(EncodePlan(question));
  engine.Run(PrefillPlan(question));
  scheduler::StepPlan many = EncodePlan(question);
  for (uint64_t i = 1; i <= 3; ++i) {
    many.encodes.push_back(many.encodes.front());
    many.encodes.back().task.number += i;
  }
  // An encode uses its input up.
  for (const scheduler::EncodeRow& row : many.encodes) {
    engine.executor().ProvideInput(row.task, question.input);
  }
  engine.Submit(std::move(many));
  scheduler::StepPlan decode;
  decode.rows.push_back(DecodeRow(question, 0, question.greedy.at(0), 3));
  engine.Submit(std::move(decode));
  CHECK(engine.results.Take().lane == scheduler::Lane::kLanguage);
  CHECK(engine.results.Take().lane == scheduler::Lane::kEncode);
}

TEST_CASE("CpuExecutor: regions that cannot be had are refused", "[engine][memory]") {
  if (ReferencesMissing()) return;
  const std::string dir = triptych::testing::SmallModelDir();
  const auto config = models::LoadModelConfig(dir);
  const auto weights = models::Checkpoint::Open(dir);
  REQUIRE((config.ok() && weights.ok()));
  base::RealClock clock;
  const auto made = CpuExecutor::Create({.kv_blocks = 16, .landing_bytes = int64_t{1} << 56},
                                        *config, **weights, clock, {});
  CHECK(absl::IsResourceExhausted(made.status()));
}

}  // namespace triptych::engine
