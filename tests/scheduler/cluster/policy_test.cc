// Defended: each policy as a table over a view: least predicted work among those with room, ties to
// the lower incarnation, and the difference between "not now" and "never".

#include <catch2/catch.hpp>
#include <memory>

#include "scheduler/cluster/decode_binding.h"
#include "scheduler/cluster/encode_spreading.h"
#include "scheduler/cluster/placement.h"
#include "scheduler/cluster/size_classes.h"

namespace triptych::scheduler {
namespace {

constexpr base::TimePoint kNow{std::chrono::hours(1)};

struct Line {
  Amount total{256, 1024, 16};
  Amount free{256, 1024, 16};
  int64_t cost = 0;  // outstanding, in the stage's unit, in one task
  double speed = 0;  // units a second; 0: unknown
  int64_t closed_ms = 0;
  bool decodes_too = false;
  int32_t max_encodes = 8;
  double fixed = 0;
};

// Workers 1, 2, ... of one stage, as the lines say.
struct Scene {
  Scene(Stage stage, const std::vector<Line>& lines) {
    for (const Line& line : lines) {
      WorkerProfile profile{.incarnation = Incarnation(workers.size() + 1),
                            .kv_block_tokens = 16,
                            .kv_blocks = line.total.kv_blocks,
                            .embedding_slots = line.total.embedding_slots,
                            .embedding_page_slots = 32,
                            .max_sequences = line.total.sequences,
                            .max_encodes = line.max_encodes};
      profile.roles.add(stage);
      if (line.decodes_too) profile.roles.add(Stage::kDecode);
      auto worker = std::make_unique<WorkerView>(profile, line.free);
      if (line.speed > 0) worker->speed[static_cast<int>(stage)] = {line.fixed, 1 / line.speed};
      worker->closed[static_cast<int>(stage)] = line.closed_ms > 0;
      view.Add(worker.get());
      if (line.cost > 0) credits.push_back(worker->ledger.Reserve(stage, {}, line.cost, 0));
      workers.push_back(std::move(worker));
      sizes.Add(profile);
    }
    view.kinds = sizes.living();
  }
  ~Scene() {
    credits.clear();
    for (auto& worker : workers) view.Remove(worker.get());
  }
  SizeClasses sizes;
  std::vector<std::unique_ptr<WorkerView>> workers;
  std::vector<Credit> credits;
  ClusterView view;
};

constexpr int kWait = 0, kNever = -1;

int Outcome(const Choice& choice) {
  if (choice.worker != nullptr) {
    return static_cast<int>(choice.worker->profile.incarnation.value());
  }
  return choice.otherwise == Choice::Otherwise::kWait ? kWait : kNever;
}

}  // namespace

TEST_CASE("ChoosePrefillWorker: a table", "[scheduler][cluster][policy]") {
  struct Row {
    const char* name;
    std::vector<Line> lines;
    int expected;
  };
  const auto row = GENERATE(values<Row>({
      {"nobody yet", {}, kWait},
      {"ties go to the lower incarnation", {{}, {}}, 1},
      {"less work wins", {{.cost = 500}, {.cost = 100}}, 2},
      {"a fast one may have more", {{.cost = 500, .speed = 1000}, {.cost = 100, .speed = 10}}, 1},
      {"unknown speed is the peers' mean", {{.cost = 100}, {.cost = 500, .speed = 10}}, 1},
      {"no KV", {{.free = {6, 1024, 16}}, {.cost = 900}}, 2},
      {"no slots", {{.free = {256, 63, 16}}, {.cost = 900}}, 2},
      {"no sequence", {{.free = {256, 1024, 0}}, {.cost = 900}}, 2},
      {"the last place of a decoder is for decodes",
       {{.free = {256, 1024, 1}, .decodes_too = true}, {.free = {256, 1024, 1}, .cost = 9}},
       2},
      {"backlog is full", {{.cost = 16 << 10}}, kWait},
      {"closed after a refusal", {{.closed_ms = 1}, {.cost = 900}}, 2},
      {"all are full", {{.free = {0, 0, 0}}}, kWait},
      {"none is large enough", {{.total = {6, 1024, 16}}, {.total = {256, 63, 16}}}, kNever},
  }));
  CAPTURE(row.name);
  const Scene scene(Stage::kPrefill, row.lines);
  // Each item has pages of its own: two of 20 tokens take two pages of 32 slots.
  const std::vector<ItemCost> items(2, ItemCost{.num_tokens = 20});
  const PrefillNeed need{.prompt_tokens = 100, .items = items};
  CHECK(Outcome(ChoosePrefillWorker(scene.view, need, {}, kNow)) == row.expected);
}

TEST_CASE("ChooseEncoder: a table", "[scheduler][cluster][policy]") {
  struct Row {
    const char* name;
    std::vector<Line> lines;
    uint64_t consumer;
    int expected;
  };
  const auto row = GENERATE(values<Row>({
      {"nobody yet", {}, 9, kWait},
      {"less work wins", {{.cost = 500}, {.cost = 100}}, 9, 2},
      {"no slots for the output", {{.free = {0, 63, 0}}, {.cost = 900}}, 9, 2},
      {"the consumer itself needs none", {{.free = {0, 0, 0}}, {.cost = 900}}, 1, 1},
      {"takes no more at once", {{.cost = 1, .max_encodes = 1}, {.cost = 900}}, 9, 2},
      {"too many patches wait", {{.cost = 32 << 10}}, 9, kWait},
      {"an idle one takes any size", {{.cost = 0}}, 9, 1},
      {"closed after a refusal", {{.closed_ms = 1}}, 9, kWait},
      {"none is large enough", {{.total = {0, 63, 0}}}, 9, kNever},
  }));
  CAPTURE(row.name);
  const Scene scene(Stage::kEncode, row.lines);
  const EncodeNeed need{.patches = 256, .num_tokens = 40, .consumer = Incarnation(row.consumer)};
  CHECK(Outcome(ChooseEncoder(scene.view, need, {}, kNow)) == row.expected);
}

TEST_CASE("ChooseDecodeWorker: a table", "[scheduler][cluster][policy]") {
  struct Row {
    const char* name;
    std::vector<Line> lines;
    uint64_t prefill;
    int expected;
  };
  const auto row = GENERATE(values<Row>({
      {"nobody yet", {}, 9, kWait},
      {"less work wins", {{.cost = 5}, {.cost = 1}}, 9, 2},
      {"a step is not free: the idle of two equals, whatever it has run so far",
       {{.cost = 4, .speed = 500, .fixed = 0.03}, {.speed = 500, .fixed = 0.03}},
       9,
       2},
      {"a fast device with company before a slow one alone",
       {{.cost = 1, .speed = 500, .fixed = 0.03}, {.speed = 100, .fixed = 0.2}},
       9,
       1},
      {"the prefill worker itself moves nothing", {{.cost = 5}, {.cost = 1}}, 1, 1},
      {"and needs no room", {{.free = {0, 0, 0}, .cost = 5}, {.cost = 1}}, 1, 1},
      {"no KV for prompt and one", {{.free = {6, 0, 16}}, {.free = {9, 0, 16}, .cost = 9}}, 9, 2},
      {"no block left for who runs there to grow", {{.free = {7, 0, 16}, .cost = 9}}, 9, kWait},
      {"an idle one needs none", {{.free = {7, 0, 16}}}, 9, 1},
      {"no sequence", {{.free = {256, 0, 0}}}, 9, kWait},
      {"closed after a refusal", {{.closed_ms = 1}, {.cost = 1}}, 1, 2},
      {"none is large enough", {{.total = {6, 0, 16}}}, 9, kNever},
  }));
  CAPTURE(row.name);
  const Scene scene(Stage::kDecode, row.lines);
  const DecodeNeed need{.prompt_tokens = 100, .prefill_worker = Incarnation(row.prefill)};
  CHECK(Outcome(ChooseDecodeWorker(scene.view, need, kNow)) == row.expected);
}

TEST_CASE("Ledger: work that awaits its input is no work yet", "[scheduler][cluster][policy]") {
  Ledger ledger({10, 100, 4});
  Credit credit = ledger.Reserve(Stage::kPrefill, {4, 0, 1}, 64, 1);
  credit.AwaitInput();
  CHECK(ledger.cost(Stage::kPrefill) == 0);
  CHECK(ledger.waiting(Stage::kPrefill) == 64);
  SECTION("it comes") {
    credit.BecomeReady();
    CHECK(ledger.cost(Stage::kPrefill) == 64);
    CHECK(ledger.waiting(Stage::kPrefill) == 0);
  }
  SECTION("it never does") {}
  credit.Return();
  CHECK(ledger.cost(Stage::kPrefill) == 0);
  CHECK(ledger.waiting(Stage::kPrefill) == 0);
}

TEST_CASE("Ledger: a report counts only what it can know", "[scheduler][cluster][policy]") {
  Ledger ledger({10, 100, 4});
  Credit first = ledger.Reserve(Stage::kPrefill, {4, 0, 1}, 64, 1);
  Credit second = ledger.Reserve(Stage::kPrefill, {3, 0, 1}, 48, 2);
  CHECK(ledger.free() == Amount{3, 100, 2});
  ledger.Report({6, 100, 3}, 1);  // the first is in it, the second is not
  CHECK(ledger.free() == Amount{3, 100, 2});
  second.Return();  // its release follows it: nothing is taken in the end
  CHECK(ledger.free() == Amount{6, 100, 3});
  CHECK(ledger.cost(Stage::kPrefill) == 64);
  first.FinishWork();
  CHECK(ledger.cost(Stage::kPrefill) == 0);
  CHECK(ledger.tasks() == 1);
  Credit third = ledger.Reserve(Stage::kDecode, {1, 0, 1}, 1, 3);
  ledger.Restart({5, 100, 3});
  Credit fourth = ledger.Reserve(Stage::kDecode, {1, 0, 1}, 1, 3);  // numbered anew
  third.Return();                                                   // of the old stream
  CHECK(ledger.free() == Amount{4, 100, 2});
}

}  // namespace triptych::scheduler
