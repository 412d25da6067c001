#include "kernels/prefill_cut.h"

#include <algorithm>
#include <utility>

namespace triptych::kernels {
namespace {

// What starting and ending a tile costs, in keys.
constexpr int64_t kTileOverhead = 128;

struct Tile {
  int32_t row;
  int32_t index;
  int64_t cost;
};

std::vector<Tile> TilesOf(const AttentionRows& rows, int32_t first_row, int32_t tile_queries) {
  std::vector<Tile> tiles;
  for (int32_t row = first_row; row < rows.rows; ++row) {
    const int32_t count = rows.host.query_begin[row + 1] - rows.host.query_begin[row];
    for (int32_t begin = 0, index = 0; begin < count; begin += tile_queries, ++index) {
      const int32_t last = std::min(begin + tile_queries, count);
      tiles.push_back({row, index, int64_t{rows.host.token_begin[row]} + last + kTileOverhead});
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(),
                   [](const Tile& a, const Tile& b) { return a.cost > b.cost; });
  return tiles;
}

// The worker of each (tile, head), tiles in the given order.
std::vector<int32_t> Deal(const std::vector<Tile>& tiles, int heads, int32_t workers) {
  using Load = std::pair<int64_t, int32_t>;  // work so far, worker
  const auto later = std::greater<Load>();
  std::vector<Load> heap;
  for (int32_t worker = 0; worker < workers; ++worker) heap.push_back({0, worker});
  std::vector<int32_t> worker_of;
  worker_of.reserve(tiles.size() * heads);
  for (const Tile& tile : tiles) {
    for (int head = 0; head < heads; ++head) {
      std::pop_heap(heap.begin(), heap.end(), later);
      worker_of.push_back(heap.back().second);
      heap.back().first += tile.cost;
      std::push_heap(heap.begin(), heap.end(), later);
    }
  }
  return worker_of;
}

}  // namespace

void CutPrefill(const AttentionRows& rows, int32_t first_row, int heads, int32_t tile_queries,
                int32_t workers, PrefillCut* cut) {
  const std::vector<Tile> tiles = TilesOf(rows, first_row, tile_queries);
  const std::vector<int32_t> worker_of = Deal(tiles, heads, workers);
  cut->works = static_cast<int32_t>(worker_of.size());
  cut->workers = workers;
  cut->block.assign(workers + 1 + int64_t{7} * cut->works, 0);
  int32_t* block = cut->block.data();
  for (int32_t worker : worker_of) ++block[worker + 1];
  for (int32_t worker = 0; worker < workers; ++worker) block[worker + 1] += block[worker];
  std::vector<int32_t> next(block, block + workers);
  const AttentionRows::Arrays& host = rows.host;
  for (size_t i = 0; i < worker_of.size(); ++i) {
    const Tile& tile = tiles[i / heads];
    const int32_t at = next[worker_of[i]]++;
    const int32_t count = host.query_begin[tile.row + 1] - host.query_begin[tile.row];
    block[cut->tile() + at] = tile.index;
    block[cut->query_begin() + at] = host.query_begin[tile.row];
    block[cut->page_begin() + at] = host.page_begin[tile.row];
    block[cut->queries() + at] = count;
    block[cut->keys() + at] = host.token_begin[tile.row] + count;
    block[cut->head() + at] = static_cast<int32_t>(i % heads);
    block[cut->row() + at] = tile.row;
  }
}

}  // namespace triptych::kernels
