// Defends: no block is handed out twice or lost, whatever the order of allocations and
// releases; checked against a plain set under seeded random use.

#include <catch2/catch.hpp>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "base/random.h"
#include "scheduler/cache/block_pool.h"
#include "scheduler/cache/block_table.h"

namespace triptych::scheduler {
namespace {

TEST_CASE("BlockPool: a released block is reused first", "[scheduler][cache]") {
  BlockPool pool(8);
  BlockHandle kept = pool.Allocate(3);
  BlockHandle released = pool.Allocate(2);
  const std::vector<BlockId> ids(released.ids().begin(), released.ids().end());
  released.Reset();
  BlockHandle again = pool.Allocate(2);
  CHECK(std::vector<BlockId>(again.ids().begin(), again.ids().end()) == ids);
  CHECK(pool.num_held() == 5);
}

TEST_CASE("BlockPool: an allocation that does not fit takes nothing", "[scheduler][cache]") {
  BlockPool pool(3);
  CHECK(pool.Allocate(4).size() == 0);
  CHECK(pool.num_free() == 3);
}

TEST_CASE("BlockPool: a moved handle gives its blocks back once", "[scheduler][cache]") {
  BlockPool pool(4);
  {
    BlockHandle first = pool.Allocate(2);
    BlockHandle second = std::move(first);
    second = pool.Allocate(1);
    CHECK(pool.num_held() == 1);
    second.Append(pool.Allocate(3));
    CHECK(pool.num_free() == 0);
  }
  CHECK(pool.num_free() == 4);
}

TEST_CASE("BlockTable: grows block by block and stays as it was when the pool is empty",
          "[scheduler][cache]") {
  BlockPool pool(2);
  BlockTable table(&pool, 16);
  CHECK(table.Reserve(1));
  CHECK(table.Reserve(16));
  CHECK(table.num_blocks() == 1);
  CHECK(table.Reserve(17));
  CHECK_FALSE(table.Reserve(33));
  CHECK(table.capacity() == 32);
  CHECK(table.Pages(16).size() == 1);
  CHECK(table.Pages(17).size() == 2);
  BlockHandle taken = table.TakeBlocks();
  CHECK(table.num_blocks() == 0);
  CHECK(pool.num_held() == 2);
}

TEST_CASE("BlockPool: random use neither loses a block nor gives one twice", "[scheduler][cache]") {
  const uint64_t seed = 20240611;
  INFO("seed " << seed);
  base::SeededRandom random(seed);
  BlockPool pool(40);
  std::vector<BlockHandle> held;
  for (int i = 0; i < 5000; ++i) {
    if (random.Next() % 2 == 0) {
      BlockHandle got = pool.Allocate(1 + static_cast<int32_t>(random.Next() % 6));
      if (got.size() > 0) held.push_back(std::move(got));
    } else if (!held.empty()) {
      std::swap(held[random.Next() % held.size()], held.back());
      held.pop_back();
    }
    std::set<BlockId> out;
    int32_t count = 0;
    for (const BlockHandle& handle : held) {
      out.insert(handle.ids().begin(), handle.ids().end());
      count += handle.size();
    }
    REQUIRE(static_cast<int32_t>(out.size()) == count);
    REQUIRE(pool.num_held() == count);
    for (BlockId block : out) REQUIRE_FALSE(pool.IsFree(block));
  }
}

}  // namespace
}  // namespace triptych::scheduler
