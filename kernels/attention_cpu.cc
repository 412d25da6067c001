#include "kernels/attention.h"
#include "kernels/attention_scratch.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels::internal {
namespace {

// Addresses of keys and values [0, count) of a row's KV head, block by block.
void NameKeys(const AttentionArgs& args, const AttentionPlan::Slice& slice, int32_t count,
              AttentionScratch* scratch) {
  const KvLayout& layout = args.layout;
  const AttentionRows::Arrays& host = args.plan->rows().host;
  const int32_t* pages = host.pages + host.page_begin[slice.row];
  const int64_t size = SizeOf(layout.dtype);
  const int64_t row_bytes = layout.token_elements() * size;
  const int64_t to_value = layout.half_block_elements() * size;
  const auto* head =
      static_cast<const uint8_t*>(args.pool) + int64_t{slice.kv_head} * layout.head_dim * size;
  for (int32_t j = 0; j < count; ++pages) {
    const uint8_t* key = head + *pages * layout.block_bytes();
    for (int i = 0; i < layout.block_tokens && j < count; ++i, ++j, key += row_bytes) {
      scratch->keys[j] = key;
      scratch->values[j] = key + to_value;
    }
  }
}

void RunSlice(const AttentionArgs& args, const AttentionPlan::Slice& slice) {
  const AttentionRows::Arrays& host = args.plan->rows().host;
  const int head_dim = args.layout.head_dim;
  const int rows = slice.queries * slice.heads;
  const int32_t first = host.token_begin[slice.row] + slice.query_begin;
  AttentionScratch& scratch = ThreadAttentionScratch();
  scratch.Prepare(rows, head_dim, first + slice.queries);
  NameKeys(args, slice, first + slice.queries, &scratch);
  const int64_t query = host.query_begin[slice.row] + slice.query_begin;
  const int group = args.heads / args.layout.kv_heads;
  const int64_t column = (int64_t{slice.kv_head} * group + slice.head_begin) * head_dim;
  for (int i = 0; i < rows; ++i) {
    const int64_t at =
        (query + i / slice.heads) * args.qkv_stride + column + i % slice.heads * head_dim;
    scratch.limits[i] = first + i / slice.heads + 1;
    scratch.LoadQuery(i, head_dim, args.qkv, at, args.dtype);
  }
  scratch.Run(rows, head_dim, args.layout.dtype);
  for (int i = 0; i < rows; ++i) {
    const int64_t at =
        (query + i / slice.heads) * args.out_stride + column + i % slice.heads * head_dim;
    scratch.StoreOutput(i, head_dim, args.out, at, args.dtype);
  }
}

}  // namespace

void PagedAttentionCpu(const AttentionArgs& args, ThreadPool* pool) {
  const absl::Span<const AttentionPlan::Slice> slices = args.plan->slices();
  ParallelFor(pool, static_cast<int64_t>(slices.size()),
              [&](int64_t i) { RunSlice(args, slices[i]); });
}

}  // namespace triptych::kernels::internal
