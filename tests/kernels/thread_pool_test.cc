// What is defended: every index runs exactly once, over many short loops in a row.

#include "kernels/thread_pool.h"

#include <catch2/catch.hpp>

namespace triptych::kernels {

TEST_CASE("ThreadPool: every index runs exactly once", "[kernels][threads]") {
  ThreadPool pool(3);
  for (int64_t count = 0; count < 300; ++count) {
    std::vector<std::atomic<int>> runs(count);
    pool.ParallelFor(count, [&](int64_t i) { runs[i].fetch_add(1); });
    for (const std::atomic<int>& run : runs) CHECK(run.load() == 1);
  }
}

}  // namespace triptych::kernels
