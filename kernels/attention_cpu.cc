#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu_math.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels::internal {
namespace {

// Queries that share one pass over the keys: enough to pay for transposing each tile of keys.
constexpr int32_t kQueriesPerPiece = 48;

// Buffers of one thread, grown and kept.
struct Scratch {
  std::vector<float> queries, output, work;
  std::vector<int32_t> limits;
  std::vector<const void*> keys, values;

  void Prepare(int64_t rows, int head_dim, int64_t num_keys) {
    queries.resize(rows * head_dim);
    output.resize(rows * PaddedLanes(head_dim));
    work.resize(AttentionScratchFloats(rows, head_dim));
    limits.resize(rows);
    keys.resize(num_keys);
    values.resize(num_keys);
  }

  void Run(int rows, int head_dim, DType type) {
    BestCpuMath().attend({.queries = queries.data(),
                          .rows = rows,
                          .head_dim = head_dim,
                          .limits = limits.data(),
                          .keys = keys.data(),
                          .values = values.data(),
                          .num_keys = static_cast<int32_t>(keys.size()),
                          .type = type,
                          .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
                          .output = output.data(),
                          .scratch = work.data()});
  }
};

Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

// Queries [begin, begin + count) of one row, one KV head and the query heads that share it.
struct Piece {
  const AttentionRow* row;
  int kv_head;
  int32_t begin;
  int32_t count;
};

void RunPiece(const PagedAttentionArgs& args, const Piece& piece) {
  const KvLayout& layout = args.layout;
  const int group = args.heads / layout.kv_heads;
  const int head_dim = layout.head_dim;
  const int rows = piece.count * group;
  const int32_t first = piece.row->first_token + piece.begin;
  Scratch& scratch = ThreadScratch();
  scratch.Prepare(rows, head_dim, first + piece.count);
  const auto* pool = static_cast<const uint8_t*>(args.pool);
  const int64_t size = SizeOf(layout.dtype);
  for (int32_t j = 0; j < first + piece.count; ++j) {
    const int64_t key =
        layout.KeyOffset(piece.row->pages[j / layout.block_tokens], j % layout.block_tokens) +
        int64_t{piece.kv_head} * head_dim;
    scratch.keys[j] = pool + key * size;
    scratch.values[j] = pool + (key + layout.half_block_elements()) * size;
  }
  const int64_t query = piece.row->query_begin + piece.begin;
  const int64_t column = int64_t{piece.kv_head} * group * head_dim;
  for (int i = 0; i < rows; ++i) {
    scratch.limits[i] = first + i / group + 1;
    std::memcpy(&scratch.queries[int64_t{i} * head_dim],
                args.q + (query + i / group) * args.q_stride + column + i % group * head_dim,
                head_dim * sizeof(float));
  }
  scratch.Run(rows, head_dim, layout.dtype);
  for (int i = 0; i < rows; ++i) {
    std::memcpy(args.out + (query + i / group) * args.out_stride + column + i % group * head_dim,
                &scratch.output[i * PaddedLanes(head_dim)], head_dim * sizeof(float));
  }
}

// Queries [begin, begin + count) of one head, inside segment [first, end).
void RunSegment(const SegmentAttentionArgs& args, int head, int32_t first, int32_t end,
                int32_t begin) {
  const int32_t count = std::min(kQueriesPerPiece, end - begin);
  const int64_t width = int64_t{args.heads} * args.head_dim;
  const int64_t column = int64_t{head} * args.head_dim;
  Scratch& scratch = ThreadScratch();
  scratch.Prepare(count, args.head_dim, end - first);
  for (int32_t j = first; j < end; ++j) {
    const float* token = args.qkv + j * 3 * width + column;
    scratch.keys[j - first] = token + width;
    scratch.values[j - first] = token + 2 * width;
  }
  for (int32_t i = 0; i < count; ++i) {
    scratch.limits[i] = end - first;
    std::memcpy(&scratch.queries[int64_t{i} * args.head_dim],
                args.qkv + (begin + i) * 3 * width + column, args.head_dim * sizeof(float));
  }
  scratch.Run(count, args.head_dim, DType::kFloat32);
  for (int32_t i = 0; i < count; ++i) {
    std::memcpy(args.out + (begin + i) * width + column,
                &scratch.output[i * PaddedLanes(args.head_dim)], args.head_dim * sizeof(float));
  }
}

}  // namespace

void PagedAttentionCpu(const PagedAttentionArgs& args, ThreadPool* pool) {
  std::vector<Piece> pieces;
  for (const AttentionRow& row : args.rows) {
    for (int head = 0; head < args.layout.kv_heads; ++head) {
      for (int32_t begin = 0; begin < row.count; begin += kQueriesPerPiece) {
        pieces.push_back({&row, head, begin, std::min(kQueriesPerPiece, row.count - begin)});
      }
    }
  }
  ParallelFor(pool, pieces.size(), [&](int64_t i) { RunPiece(args, pieces[i]); });
}

void SegmentAttentionCpu(const SegmentAttentionArgs& args, ThreadPool* pool) {
  struct Block {
    int32_t first, end, begin;
  };
  std::vector<Block> blocks;
  int32_t first = 0;
  for (int32_t end : args.ends) {
    for (int32_t begin = first; begin < end; begin += kQueriesPerPiece) {
      blocks.push_back({first, end, begin});
    }
    first = end;
  }
  const int64_t count = static_cast<int64_t>(blocks.size()) * args.heads;
  ParallelFor(pool, count, [&](int64_t i) {
    const Block& block = blocks[i / args.heads];
    RunSegment(args, static_cast<int>(i % args.heads), block.first, block.end, block.begin);
  });
}

}  // namespace triptych::kernels::internal
