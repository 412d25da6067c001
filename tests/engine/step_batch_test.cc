// Defended: a plan's rows become arrays that name the same tokens, positions, slots and pages, rows
// of one query first; a token that an unfinished step samples is found by its place, and a step
// that is unknown, or its own, is refused. How: random plans, read back token by token.

#include "engine/step_batch.h"

#include <catch2/catch.hpp>
#include <numeric>

#include "base/random.h"
#include "kernels/embed.h"

namespace triptych::engine {
namespace {

using scheduler::PlanRow;
using scheduler::StepId;
using scheduler::StepPlan;

constexpr BatchShape kShape{.vocab_size = 1000, .block_tokens = 4, .embedding_page_slots = 8};

PlanRow RandomRow(base::SeededRandom& random) {
  PlanRow row;
  row.token_begin = static_cast<int32_t>(random.Below(20));
  const auto count = static_cast<int32_t>(random.Below(3) == 0 ? 1 + random.Below(9) : 1);
  for (int32_t i = 0; i < count; ++i) {
    row.token_ids.push_back(static_cast<int32_t>(random.Below(1000)));
    row.positions.push_back({static_cast<int32_t>(random.Below(99)),
                             static_cast<int32_t>(random.Below(99)),
                             static_cast<int32_t>(random.Below(99))});
  }
  for (int32_t page = 0; page * 4 < row.token_begin + count; ++page) {
    row.pages.push_back(static_cast<int32_t>(random.Below(500)));
  }
  if (random.Below(2) == 0) row.sample = scheduler::SampleSpec{};
  return row;
}

struct Packed {
  explicit Packed(const StepPlan& plan, const SampledRing& ring = SampledRing(64))
      : block(StepBlockBytes(LimitsOf(plan)) / 4), at(StepArraysAt(LimitsOf(plan), block.data())) {
    batch = PackStep(plan, kShape, ring, at);
  }
  std::vector<int32_t> block;
  StepArrays at;
  StepBatch batch;
};

// Row `r` of the batch says what `row` says.
void CheckRow(const Packed& packed, int32_t r, const PlanRow& row, int32_t index, int64_t tokens) {
  const StepArrays& at = packed.at;
  REQUIRE(at.token_begin[r] == row.token_begin);
  const int32_t begin = at.query_begin[r];
  REQUIRE(at.query_begin[r + 1] - begin == static_cast<int32_t>(row.token_ids.size()));
  REQUIRE(std::vector<int32_t>(at.pages + at.page_begin[r], at.pages + at.page_begin[r + 1]) ==
          row.pages);
  for (size_t i = 0; i < row.token_ids.size(); ++i) {
    const int64_t token = begin + static_cast<int64_t>(i);
    const auto place = static_cast<int32_t>(row.token_begin + i);
    REQUIRE(at.inputs[token] == row.token_ids[i]);
    REQUIRE(at.row_of_token[token] == index);
    REQUIRE(at.positions[token] == row.positions[i].t);
    REQUIRE(at.positions[tokens + token] == row.positions[i].h);
    REQUIRE(at.positions[2 * tokens + token] == row.positions[i].w);
    REQUIRE(at.slots[token] == row.pages[place / 4] * 4 + place % 4);
  }
}

TEST_CASE("StepBatch: arrays say what the plan says, rows of one query first", "[engine]") {
  base::SeededRandom random(Catch::rngSeed());
  INFO("seed " << Catch::rngSeed());
  for (int round = 0; round < 200; ++round) {
    StepPlan plan;
    const uint64_t rows = random.Below(12);
    for (uint64_t i = 0; i < rows; ++i) plan.rows.push_back(RandomRow(random));
    const Packed packed(plan);
    const BatchLimits size = LimitsOf(plan);
    REQUIRE(packed.batch.tokens == size.tokens);
    REQUIRE(packed.batch.rows == static_cast<int32_t>(rows));
    REQUIRE(packed.batch.pages == size.pages);
    REQUIRE(packed.batch.sampled == size.sampled);
    int32_t batch_row = 0, sampled = 0;
    for (const bool decode : {true, false}) {
      for (uint64_t i = 0; i < rows; ++i) {
        if ((plan.rows[i].token_ids.size() == 1) != decode) continue;
        CheckRow(packed, batch_row++, plan.rows[i], static_cast<int32_t>(i), size.tokens);
      }
      if (decode) REQUIRE(packed.batch.decode_rows == batch_row);
    }
    for (uint64_t i = 0; i < rows; ++i) {
      if (!plan.rows[i].sample.has_value()) continue;
      const int32_t token = packed.at.logits_tokens[sampled++];
      REQUIRE(packed.at.row_of_token[token] == static_cast<int32_t>(i));
      REQUIRE((token + 1 == size.tokens ||
               packed.at.row_of_token[token + 1] != static_cast<int32_t>(i)));
    }
  }
}

TEST_CASE("StepBatch: visual tokens are named by slot, through the item's pages", "[engine]") {
  PlanRow row{.token_begin = 0, .token_ids = {5, -7, -7, -7, 6}, .positions = {}, .pages = {0, 1}};
  row.positions.resize(5);
  row.embeddings.push_back({.row_offset = 1, .count = 3, .item_begin = 6, .pages = {9, 4}});
  StepPlan plan;
  plan.rows.push_back(row);
  const Packed packed(plan);
  const std::vector<int32_t> inputs(packed.at.inputs, packed.at.inputs + 5);
  CHECK(inputs == std::vector<int32_t>{5, kernels::EmbedSlot(1000, 9 * 8 + 6),
                                       kernels::EmbedSlot(1000, 9 * 8 + 7),
                                       kernels::EmbedSlot(1000, 4 * 8), 6});
}

StepPlan Sampling(uint64_t id, const std::vector<bool>& rows) {
  StepPlan plan{.id = StepId(id)};
  for (const bool sampled : rows) {
    PlanRow& row = plan.rows.emplace_back();
    row.token_ids = {1};
    row.positions.resize(1);
    row.pages = {0};
    if (sampled) row.sample = scheduler::SampleSpec{};
  }
  return plan;
}

TEST_CASE("StepBatch: a row finds the token of a recent step by its row of that plan", "[engine]") {
  SampledRing ring(8);
  CHECK(ring.Note(Sampling(1, {false, true, true})) == 0);
  CHECK(ring.Note(Sampling(2, {true})) == 8);
  CHECK(ring.IndexOf({StepId(1), 1}) == 0);
  CHECK(ring.IndexOf({StepId(1), 2}) == 1);
  CHECK(ring.IndexOf({StepId(2), 0}) == 8);
  StepPlan next = Sampling(3, {true, true});
  next.rows[1].sampled_by = scheduler::SampledBy{StepId(1), 2};
  const Packed packed(next, ring);
  CHECK(packed.at.inputs[0] == 1);
  CHECK(packed.at.inputs[1] == kernels::EmbedSampled(1));
  for (uint64_t id = 3; id <= 5; ++id) ring.Note(Sampling(id, {true}));
  CHECK(ring.IndexOf({StepId(5), 0}) == 0);  // step 1's place has come round
}

TEST_CASE("StepBatch: a row may name no other step, and no row that samples nothing", "[engine]") {
  SampledRing ring(8);
  CHECK(ring.Find({StepId(1), 0}) == -1);
  for (uint64_t id = 1; id <= 3; ++id) ring.Note(Sampling(id, {false, true}));
  CHECK(ring.Find({StepId(3), 1}) == 16);
  CHECK(ring.Find({StepId(2), 1}) == 8);
  CHECK(ring.Find({StepId(1), 1}) == -1);  // two steps ago
  CHECK(ring.Find({StepId(4), 1}) == -1);  // its own
  CHECK(ring.Find({StepId(3), 0}) == -1);
  for (const int32_t row : {-1, 2}) CHECK(ring.Find({StepId(3), row}) == -1);
}

TEST_CASE("StepBatch: each row's biases and counts follow the row before's", "[engine]") {
  SampledRing ring(8);
  ring.Note(Sampling(1, {true, true}));
  StepPlan plan = Sampling(2, {true, false, true});
  plan.rows[0].sample->params.biases = {{7, -1.0f}, {9, 2.0f}};
  plan.rows[0].sampled_by = scheduler::SampledBy{StepId(1), 1};
  scheduler::SampleSpec& penalised = *plan.rows[2].sample;
  penalised.params.presence_penalty = 0.5f;
  penalised.params.biases = {{3, 1.0f}};
  penalised.uses = {{5, 2, 1}};
  plan.rows[2].sampled_by = scheduler::SampledBy{StepId(1), 1};
  const Packed packed(plan, ring);
  const kernels::SampleRow &first = packed.at.sampling[0], &second = packed.at.sampling[1];
  CHECK(first.bias_begin == 0);
  CHECK(first.bias_end == 2);
  CHECK(first.count_end == 0);
  CHECK(first.uncounted == -1);  // without a penalty nobody counts
  CHECK(second.bias_begin == 2);
  CHECK(second.bias_end == 3);
  CHECK(second.count_begin == 0);
  CHECK(second.count_end == 1);
  CHECK(second.uncounted == 1);
  CHECK(packed.at.biases[1].id == 9);
  CHECK(packed.at.biases[2].bias == 1.0f);
  CHECK(packed.at.counts[0].in_answer == 2);
}

}  // namespace
}  // namespace triptych::engine
