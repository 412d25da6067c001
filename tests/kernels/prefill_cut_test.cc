// Defends the cut of prefill among the multiprocessors: every query of every chunk and head is in
// exactly one work, with its row's numbers, and no worker is left with much more than another.

#include "kernels/prefill_cut.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <tuple>

namespace triptych::kernels {
namespace {

struct Batch {
  std::vector<int32_t> query_begin = {0}, token_begin, page_begin = {0};

  void Add(int32_t first, int32_t count) {
    token_begin.push_back(first);
    query_begin.push_back(query_begin.back() + count);
    page_begin.push_back(page_begin.back() + (first + count + 15) / 16);
  }
  AttentionRows rows() const {
    return {.rows = static_cast<int32_t>(token_begin.size()),
            .tokens = query_begin.back(),
            .pages = page_begin.back(),
            .host = {query_begin.data(), token_begin.data(), page_begin.data(), nullptr}};
  }
};

// Keys that the queries of work `i` see, counted for the tile's last one.
int64_t KeysOf(const PrefillCut& cut, int32_t i, int32_t tile_queries) {
  const int32_t* block = cut.block.data();
  const int32_t queries = block[cut.queries() + i];
  const int32_t last = std::min(queries, (block[cut.tile() + i] + 1) * tile_queries);
  return block[cut.keys() + i] - queries + last;
}

TEST_CASE("PrefillCut: every tile of every chunk and head is dealt once", "[kernels][attention]") {
  std::mt19937 generator(11);
  PrefillCut cut;
  for (int round = 0; round < 20; ++round) {
    Batch batch;
    const int rows = 1 + static_cast<int>(generator() % 9);
    for (int r = 0; r < rows; ++r) {
      batch.Add(static_cast<int32_t>(generator() % 3000), static_cast<int32_t>(generator() % 700));
    }
    const int heads = 1 + static_cast<int>(generator() % 28);
    const int32_t first_row = static_cast<int32_t>(generator() % rows);
    CutPrefill(batch.rows(), first_row, heads, 128, 132, &cut);
    std::map<std::tuple<int32_t, int32_t, int32_t>, int> dealt;  // row, tile, head
    const int32_t* block = cut.block.data();
    REQUIRE(block[cut.work_begin() + cut.workers] == cut.works);
    CHECK(std::is_sorted(block, block + cut.workers + 1));
    for (int32_t i = 0; i < cut.works; ++i) {
      const int32_t row = block[cut.row() + i];
      ++dealt[{row, block[cut.tile() + i], block[cut.head() + i]}];
      CHECK(block[cut.query_begin() + i] == batch.query_begin[row]);
      CHECK(block[cut.page_begin() + i] == batch.page_begin[row]);
      CHECK(block[cut.queries() + i] == batch.query_begin[row + 1] - batch.query_begin[row]);
      CHECK(block[cut.keys() + i] == batch.token_begin[row] + block[cut.queries() + i]);
    }
    size_t want = 0;
    for (int32_t row = first_row; row < rows; ++row) {
      const int32_t count = batch.query_begin[row + 1] - batch.query_begin[row];
      for (int32_t tile = 0; tile * 128 < count; ++tile) {
        for (int32_t head = 0; head < heads; ++head) {
          CHECK(dealt.count({row, tile, head}) == 1);
          ++want;
        }
      }
    }
    CHECK(dealt.size() == want);
    CHECK(cut.works == static_cast<int32_t>(want));
  }
}

TEST_CASE("PrefillCut: workers end at about the same time", "[kernels][attention]") {
  Batch batch;
  batch.Add(0, 16384);
  PrefillCut cut;
  CutPrefill(batch.rows(), 0, 28, 128, 132, &cut);
  int64_t most = 0, all = 0;
  for (int32_t worker = 0; worker < cut.workers; ++worker) {
    int64_t keys = 0;
    for (int32_t i = cut.block[worker]; i < cut.block[worker + 1]; ++i) keys += KeysOf(cut, i, 128);
    most = std::max(most, keys);
    all += keys;
  }
  CHECK(static_cast<double>(most) < 1.02 * static_cast<double>(all) / cut.workers);
}

}  // namespace
}  // namespace triptych::kernels
