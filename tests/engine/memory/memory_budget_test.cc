// What is defended: a device's memory is never promised twice, and who asks too much is told every
// sum. By tables and by random sizes, whose parts must add up.

#include "engine/memory/memory_budget.h"

#include <catch2/catch.hpp>

#include "base/random.h"

namespace triptych::engine {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

TEST_CASE("MemoryBudget: KV blocks are what is left of the share", "[engine][memory]") {
  const ModelSizes sizes{.weights = 16 * kGiB,
                         .kv_per_token = 56 << 10,
                         .embedding_per_token = 7 << 10,
                         .scratch = 4 * kGiB,
                         .fixed = kGiB};
  const auto plan = PlanMemory(sizes, {.total = 140 * kGiB, .free = 140 * kGiB},
                               {.utilization = 0.5, .embedding_slots = 1 << 16});
  REQUIRE(plan.ok());
  CHECK(plan->embeddings == (int64_t{1} << 16) * (7 << 10));
  CHECK(plan->kv == int64_t{plan->kv_blocks} * 16 * (56 << 10));
  CHECK(plan->weights + plan->scratch + plan->fixed + plan->embeddings + plan->kv + plan->left ==
        70 * kGiB);
  CHECK(plan->left < 16 * (56 << 10));
}

TEST_CASE("MemoryBudget: what other processes hold is not ours", "[engine][memory]") {
  const ModelSizes sizes{.weights = 10 * kGiB, .kv_per_token = 1 << 10};
  const MemoryOptions options{.utilization = 0.5};
  const auto alone = PlanMemory(sizes, {.total = 100 * kGiB, .free = 100 * kGiB}, options);
  const auto shared = PlanMemory(sizes, {.total = 100 * kGiB, .free = 70 * kGiB}, options);
  REQUIRE(alone.ok());
  REQUIRE(shared.ok());
  CHECK(alone->kv - shared->kv == 30 * kGiB);
}

TEST_CASE("MemoryBudget: too little memory is refused with the sums", "[engine][memory]") {
  const ModelSizes sizes{.weights = 90 * kGiB, .kv_per_token = 1 << 20, .scratch = 20 * kGiB};
  const auto plan = PlanMemory(sizes, {.total = 100 * kGiB, .free = 100 * kGiB}, {});
  REQUIRE(plan.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(plan.status().message().find("weights 90.00 GiB") != std::string::npos);
  CHECK(plan.status().message().find("100.00 GiB") != std::string::npos);
  const auto asked = PlanMemory({.weights = 1, .kv_per_token = 1 << 20},
                                {.total = kGiB, .free = kGiB}, {.kv_blocks = 64});
  CHECK(asked.status().code() == absl::StatusCode::kResourceExhausted);
}

TEST_CASE("MemoryBudget: an encoder needs no KV and a decoder no slots", "[engine][memory]") {
  const auto encoder = PlanMemory({.weights = kGiB, .embedding_per_token = 7168},
                                  {.total = 10 * kGiB, .free = 10 * kGiB},
                                  {.kv_blocks = 100, .embedding_slots = 1024});
  REQUIRE(encoder.ok());
  CHECK(encoder->kv_blocks == 0);
  CHECK(encoder->embedding_slots == 1024);
  const auto decoder =
      PlanMemory({.weights = kGiB, .kv_per_token = 1 << 10},
                 {.total = 10 * kGiB, .free = 10 * kGiB}, {.embedding_slots = 1024});
  REQUIRE(decoder.ok());
  CHECK(decoder->embedding_slots == 0);
  CHECK(decoder->kv_blocks > 0);
}

TEST_CASE("MemoryBudget: a share outside (0, 1] is refused", "[engine][memory]") {
  for (double utilization : {0.0, -0.5, 1.5}) {
    CHECK(PlanMemory({}, {.total = kGiB, .free = kGiB}, {.utilization = utilization})
              .status()
              .code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("MemoryBudget: for random sizes the parts add up to the share", "[engine][memory]") {
  base::SeededRandom random(20261201);
  for (int i = 0; i < 2000; ++i) {
    const auto draw = [&](int64_t limit) { return static_cast<int64_t>(random.Below(limit)); };
    const ModelSizes sizes{.weights = draw(40 * kGiB),
                           .kv_per_token = draw(1 << 18),
                           .embedding_per_token = draw(1 << 14),
                           .scratch = draw(8 * kGiB),
                           .fixed = draw(kGiB)};
    const DeviceMemoryInfo device{.total = 80 * kGiB, .free = 40 * kGiB + draw(40 * kGiB)};
    const MemoryOptions options{.kv_blocks = draw(3) == 0 ? draw(1000) : 0,
                                .embedding_slots = draw(1 << 17)};
    const auto plan = PlanMemory(sizes, device, options);
    if (!plan.ok()) continue;
    const auto usable = static_cast<int64_t>(static_cast<double>(device.total) * 0.9) -
                        (device.total - device.free);
    REQUIRE(plan->left >= 0);
    REQUIRE(plan->weights + plan->scratch + plan->fixed + plan->embeddings + plan->kv +
                plan->left ==
            usable);
  }
}

}  // namespace
}  // namespace triptych::engine
