// Defended: a modelled device takes the time that its costs say and gives tokens that depend on
// every row, slot and position that a real one would read, and on nothing else.

#include <catch2/catch.hpp>

#include "base/checksum.h"
#include "base/mutex.h"
#include "engine/modelled/modelled_executor.h"

namespace triptych::engine {
namespace {

using scheduler::BufferId;
using scheduler::StepId;
using scheduler::TaskId;

constexpr int32_t kBlock = 4;

Capacity SmallCapacity() {
  return {.kv_block_tokens = kBlock,
          .kv_blocks = 16,
          .embedding_slots = 8,
          .embedding_page_slots = 2,
          .kv_bytes_per_token = 8,
          .embedding_bytes_per_token = 8,
          .num_layers = 1,
          .max_position = 1000};
}

struct Device {
  explicit Device(FakePayload payload = FakePayload::kCarried)
      : executor({.capacity = SmallCapacity(), .payload = payload}, clock,
                 {.on_result = [this](scheduler::StepResult r) { results.push_back(std::move(r)); },
                  .on_import = [this](BufferId buffer) { imported.push_back(buffer); },
                  .on_export = [this](scheduler::ExportResult r) { exported.push_back(r); }}) {}
  scheduler::StepResult Step(scheduler::StepPlan plan) {
    plan.id = StepId(++last[static_cast<int>(plan.lane)]);
    executor.Submit(std::move(plan));
    RunAll();
    return results.back();
  }
  void RunAll() {
    while (executor.NextEvent() != base::kNever) RunOne();
  }
  void RunOne() {
    clock.Set(executor.NextEvent());
    executor.RunUntil(clock.Now());
  }
  base::SimulatedClock clock;
  std::vector<scheduler::StepResult> results;
  std::vector<BufferId> imported;
  std::vector<scheduler::ExportResult> exported;
  SimulatedExecutor executor;
  uint64_t last[scheduler::kNumLanes] = {};
};

scheduler::PlanRow Row(int32_t first, std::vector<int32_t> ids,
                       std::vector<scheduler::BlockId> pages, bool sample = true) {
  scheduler::PlanRow row{.task = TaskId{{}, 1}, .token_begin = first};
  for (size_t i = 0; i < ids.size(); ++i) {
    const int32_t at = first + static_cast<int32_t>(i);
    row.positions.push_back({at, at, at});
  }
  row.token_ids = std::move(ids);
  row.pages = std::move(pages);
  if (sample) row.sample = scheduler::SampleSpec{};
  return row;
}

int32_t Token(const scheduler::StepResult& result) { return result.rows.at(0).tokens.at(0).token; }

TEST_CASE("SimulatedExecutor: chunks and blocks do not change the answer", "[engine][modelled]") {
  Device whole, parts;
  const int32_t once = Token(whole.Step({.rows = {Row(0, {5, 6, 7, 8, 9, 10}, {0, 1})}}));
  parts.Step({.rows = {Row(0, {5, 6, 7}, {9}, false)}});
  CHECK(Token(parts.Step({.rows = {Row(3, {8, 9, 10}, {9, 2})}})) == once);
  CHECK(Token(parts.Step({.rows = {Row(3, {8, 9, 11}, {9, 2})}})) != once);
}

TEST_CASE("SimulatedExecutor: a wrong block or a wrong embedding changes the answer",
          "[engine][modelled]") {
  Device device;
  device.Step({.rows = {Row(0, {5, 6, 7, 8}, {0}, false)}});
  const int32_t right = Token(device.Step({.rows = {Row(4, {9}, {0, 1})}}));
  CHECK(Token(device.Step({.rows = {Row(4, {9}, {3, 1})}})) != right);
  device.executor.ProvideInput(TaskId{{}, 2}, {.grid = {1, 2, 2}, .pixels = {1}});
  device.executor.ProvideInput(TaskId{{}, 3}, {.grid = {1, 2, 2}, .pixels = {2}});
  const std::vector<scheduler::BlockId> one{3, 0}, two{1, 2};
  device.Step({.lane = scheduler::Lane::kEncode,
               .encodes = {{.task = TaskId{{}, 2}, .num_tokens = 3, .pages = one},
                           {.task = TaskId{{}, 3}, .num_tokens = 3, .pages = two}}});
  auto picture = Row(0, {5}, {4});
  picture.embeddings = {{.count = 1, .item_begin = 2, .pages = one}};
  auto other = picture;
  other.embeddings[0].pages = two;
  auto earlier = picture;
  earlier.embeddings[0].item_begin = 1;
  const int32_t token = Token(device.Step({.rows = {picture}}));
  CHECK(Token(device.Step({.rows = {other}})) != token);
  CHECK(Token(device.Step({.rows = {earlier}})) != token);
}

TEST_CASE("SimulatedExecutor: what is exported and imported is the same KV", "[engine][modelled]") {
  Device from, to;
  const scheduler::PieceBuffer staged{BufferId(1), 64, 32}, landed{BufferId(7), 256, 32};
  const scheduler::CacheRange range{scheduler::TransferKind::kKv, 0, 4, 0, 1};
  from.Step({.rows = {Row(0, {5, 6, 7, 8}, {0}, false)}});
  from.executor.Export({.buffer = staged, .range = range, .pages = {0}});
  from.RunAll();
  REQUIRE(from.exported.size() == 1);
  const auto bytes = from.executor.transfer_regions().staging.Sub(64, 32).HostBytes();
  CHECK(from.exported[0].buffer == staged.id);
  CHECK(from.exported[0].checksum == base::Checksum64(bytes.data(), bytes.size()));
  std::copy(bytes.begin(), bytes.end(),
            to.executor.transfer_regions().landing.Sub(256, 32).HostBytes().begin());
  uint64_t checksum = 0;
  to.executor.ChecksumLanded(landed, [&](uint64_t sum) { checksum = sum; });
  CHECK(checksum == from.exported[0].checksum);
  to.executor.Import({.buffer = landed, .range = range, .pages = {5}});
  to.RunAll();
  CHECK(to.imported == std::vector<BufferId>{landed.id});
  const int32_t there = Token(to.Step({.rows = {Row(4, {9}, {5, 6})}}));
  CHECK(Token(from.Step({.rows = {Row(4, {9}, {0, 1})}})) == there);
}

TEST_CASE("SimulatedExecutor: a row may take the token of the step before it",
          "[engine][modelled]") {
  Device device, known;
  const int32_t first = Token(known.Step({.rows = {Row(0, {5, 6}, {0})}}));
  const int32_t second = Token(known.Step({.rows = {Row(2, {first}, {0})}}));
  device.executor.Submit({.id = StepId(1), .rows = {Row(0, {5, 6}, {0})}});
  auto row = Row(2, {0}, {0});
  row.sampled_by = scheduler::SampledBy{StepId(1), 0};
  device.executor.Submit({.id = StepId(2), .rows = {row}});
  device.clock.Advance(std::chrono::seconds(10));
  device.executor.RunUntil(device.clock.Now());
  REQUIRE(device.results.size() == 2);
  CHECK(Token(device.results[1]) == second);
}

TEST_CASE("SimulatedExecutor: a step takes its cost, after the step before it",
          "[engine][modelled]") {
  Device device;
  const auto begin = device.clock.Now();
  device.executor.Submit({.id = StepId(1)});
  device.executor.Submit({.id = StepId(2)});
  CHECK(device.executor.NextEvent() == begin + base::FromSeconds(CostModel().step_fixed));
  device.RunOne();
  CHECK(device.executor.NextEvent() > begin + base::FromSeconds(1.9 * CostModel().step_fixed));
}

TEST_CASE("SimulatedExecutor: a long encode and short rows share the device",
          "[engine][modelled]") {
  Device device;
  const auto begin = device.clock.Now();
  const double rows = CostModel().step_fixed;
  device.executor.ProvideInput(TaskId{{}, 2}, {.grid = {1, 100, 100}});
  const scheduler::EncodeRow row{
      .task = TaskId{{}, 2}, .grid = {1, 100, 100}, .num_tokens = 1, .pages = {0}};
  device.executor.Submit({.id = StepId(1), .lane = scheduler::Lane::kEncode, .encodes = {row}});
  device.executor.Submit({.id = StepId(1)});
  device.executor.Submit({.id = StepId(2)});
  // Two lanes, so half the speed for each; the rows do not wait for the encode.
  device.RunOne();
  CHECK(device.results.size() == 1);
  CHECK(device.clock.Now() == begin + base::FromSeconds(2 * rows));
  device.RunOne();
  CHECK(device.results.at(1).id == StepId(2));
  CHECK(device.results[1].lane == scheduler::Lane::kLanguage);
  // And alone again, the encode has the rest of it: together they take what both cost.
  device.RunOne();
  const double encode = rows + CostModel().encode_fixed + 1e4 * CostModel().encode_per_patch;
  CHECK(device.results.at(2).lane == scheduler::Lane::kEncode);
  CHECK(base::ToSeconds(device.clock.Now() - begin) == Approx(encode + 2 * rows));
}

TEST_CASE("SimulatedExecutor: a copy waits for no step but the one that writes it",
          "[engine][modelled]") {
  Device device;
  const scheduler::CacheRange range{scheduler::TransferKind::kKv, 0, 4, 0, 1};
  const scheduler::PieceBuffer first{BufferId(1), 0, 32}, second{BufferId(2), 32, 32};
  device.executor.Submit({.id = StepId(1), .rows = {Row(0, {5, 6, 7, 8}, {0}, false)}});
  device.executor.Export({.after = StepId(1), .buffer = first, .range = range, .pages = {0}});
  device.executor.Export({.buffer = second, .range = range, .pages = {3}});
  device.executor.Import({.buffer = first, .range = range, .pages = {4}});
  device.RunOne();  // both copies take as long
  CHECK(device.results.empty());
  CHECK(device.imported.size() == 1);
  REQUIRE(device.exported.size() == 1);
  CHECK(device.exported[0].buffer == second.id);
  device.RunAll();
  CHECK(device.results.size() == 1);
  REQUIRE(device.exported.size() == 2);
  CHECK(device.exported[1].buffer == first.id);
}

TEST_CASE("SimulatedExecutor: declared sizes carry no bytes, and tokens depend on their index",
          "[engine][modelled]") {
  Device device(FakePayload::kDeclared);
  CHECK(device.executor.transfer_regions().staging.declared_only());
  const int32_t token = Token(device.Step({.rows = {Row(0, {5, 6}, {0})}}));
  CHECK(Token(device.Step({.rows = {Row(0, {7}, {3})}})) == token);
}

TEST_CASE("CostModel: a file names what differs from the defaults", "[engine][modelled]") {
  const auto cost = ParseCostModel("# measured\nstep_fixed = 0.5\n\nencode_per_patch=2 # s\n");
  REQUIRE(cost.ok());
  CHECK(cost->step_fixed == 0.5);
  CHECK(cost->encode_per_patch == 2);
  CHECK(cost->encode_fixed == CostModel().encode_fixed);
  for (const char* bad :
       {"speed = 1", "step_fixed", "step_fixed = fast", "step_fixed = -1", "step_fixed = inf"}) {
    CHECK(ParseCostModel(bad).status().code() == absl::StatusCode::kInvalidArgument);
  }
  CHECK(ReadCostModel("/nowhere/costs").status().code() == absl::StatusCode::kNotFound);
}

TEST_CASE("ModelledExecutor: results come from its own thread, in order", "[engine][modelled]") {
  base::RealClock clock;
  base::Mutex mutex;
  base::CondVar changed;
  std::vector<StepId> ids;
  CostModel fast;
  fast.step_fixed = 1e-4;
  ModelledExecutor device({.capacity = SmallCapacity(), .cost = fast}, clock,
                          {.on_result = [&](const scheduler::StepResult& result) {
                            base::MutexLock lock(&mutex);
                            ids.push_back(result.id);
                            changed.NotifyAll();
                          }});
  for (uint64_t i = 1; i <= 20; ++i) {
    device.Submit({.id = StepId(i)});
    base::MutexLock lock(&mutex);
    while (ids.size() < i) changed.Wait(&mutex);
  }
  base::MutexLock lock(&mutex);
  for (uint64_t i = 0; i < 20; ++i) CHECK(ids[i] == StepId(i + 1));
}

}  // namespace
}  // namespace triptych::engine
