#include <algorithm>
#include <vector>

#include "kernels/attention_scratch.h"
#include "kernels/segment_attention.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels::internal {
namespace {

constexpr int32_t kQueriesPerSlice = 48;

// Queries [begin, begin + kQueriesPerSlice) inside segment [first, end).
struct Slice {
  int32_t first, end, begin;
};

void RunSlice(const SegmentAttentionArgs& args, int head, const Slice& slice) {
  const int32_t count = std::min(kQueriesPerSlice, slice.end - slice.begin);
  const int64_t width = int64_t{args.heads} * args.head_dim;
  const int64_t column = int64_t{head} * args.head_dim;
  const int64_t size = SizeOf(args.dtype);
  AttentionScratch& scratch = ThreadAttentionScratch();
  scratch.Prepare(count, args.head_dim, slice.end - slice.first);
  for (int32_t j = slice.first; j < slice.end; ++j) {
    const auto* token = static_cast<const uint8_t*>(args.qkv) + (j * 3 * width + column) * size;
    scratch.keys[j - slice.first] = token + width * size;
    scratch.values[j - slice.first] = token + 2 * width * size;
  }
  for (int32_t i = 0; i < count; ++i) {
    scratch.limits[i] = slice.end - slice.first;
    scratch.LoadQuery(i, args.head_dim, args.qkv, (slice.begin + i) * 3 * width + column,
                      args.dtype);
  }
  scratch.Run(count, args.head_dim, args.dtype);
  for (int32_t i = 0; i < count; ++i) {
    scratch.StoreOutput(i, args.head_dim, args.out, (slice.begin + i) * width + column, args.dtype);
  }
}

}  // namespace

void SegmentAttentionCpu(const SegmentAttentionArgs& args, ThreadPool* pool) {
  std::vector<Slice> slices;
  for (size_t i = 1; i < args.offsets.size(); ++i) {
    const int32_t first = args.offsets[i - 1], end = args.offsets[i];
    for (int32_t begin = first; begin < end; begin += kQueriesPerSlice) {
      slices.push_back({first, end, begin});
    }
  }
  const int64_t count = static_cast<int64_t>(slices.size()) * args.heads;
  ParallelFor(pool, count, [&](int64_t i) {
    RunSlice(args, static_cast<int>(i % args.heads), slices[i / args.heads]);
  });
}

}  // namespace triptych::kernels::internal
