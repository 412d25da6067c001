#include "kernels/attention_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kernels/op_status.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

// Queries that share one pass over the keys: enough to pay for transposing each tile of keys.
constexpr int32_t kQueriesPerSlice = 48;

absl::Status CheckArrays(const AttentionRows& rows) {
  const AttentionRows::Arrays& host = rows.host;
  if (rows.rows < 0 || rows.decode_rows < 0 || rows.decode_rows > rows.rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("attention: ", rows.decode_rows, " decode rows of ", rows.rows));
  }
  if (rows.rows == 0) return absl::OkStatus();
  for (const AttentionRows::Arrays& arrays : {rows.host, rows.device}) {
    if (arrays.query_begin == nullptr || arrays.token_begin == nullptr ||
        arrays.page_begin == nullptr || arrays.pages == nullptr) {
      return absl::InvalidArgumentError("attention: an array is missing");
    }
  }
  if (host.query_begin[0] != 0 || host.page_begin[0] != 0 ||
      host.query_begin[rows.rows] != rows.tokens || host.page_begin[rows.rows] != rows.pages) {
    return absl::InvalidArgumentError("attention: ranges that do not match their counts");
  }
  return absl::OkStatus();
}

}  // namespace

AttentionPlan::AttentionPlan() = default;

AttentionPlan::~AttentionPlan() {
  if (cuda_.data != nullptr) cuda_.free(cuda_.data);
}

absl::Status AttentionPlan::Make(const AttentionRows& rows, const KvLayout& layout,
                                 int64_t num_blocks, int heads, const Stream& stream) {
  rows_ = rows;
  layout_ = layout;
  num_blocks_ = num_blocks;
  heads_ = heads;
  slices_.clear();
  RETURN_IF_ERROR(Check());
  if (stream.device == Device::kCpu) {
    CutForCpu(NumThreads(stream.pool));
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("AttentionPlan", internal::PlanAttentionCuda(this, stream));
#else
  return NoCudaSide("AttentionPlan");
#endif
}

absl::Status AttentionPlan::Check() const {
  if (layout_.kv_heads < 1 || heads_ < 1 || heads_ % layout_.kv_heads != 0 ||
      layout_.block_tokens < 1 || layout_.head_dim < 1 || !IsActivation(layout_.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "attention: ", heads_, " heads on ", layout_.kv_heads, " of ", layout_.head_dim, ", ",
        layout_.block_tokens, " tokens a block, ", DTypeName(layout_.dtype)));
  }
  RETURN_IF_ERROR(CheckArrays(rows_));
  const AttentionRows::Arrays& host = rows_.host;
  for (int32_t r = 0; r < rows_.rows; ++r) {
    const int64_t count = int64_t{host.query_begin[r + 1]} - host.query_begin[r];
    const int64_t pages = int64_t{host.page_begin[r + 1]} - host.page_begin[r];
    const int64_t end = host.token_begin[r] + count;
    if (count < 0 || host.token_begin[r] < 0 || (r < rows_.decode_rows && count != 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("attention: row ", r, " has ", count, " queries"));
    }
    const int64_t needed = (end + layout_.block_tokens - 1) / layout_.block_tokens;
    if (pages < needed) {
      return absl::InvalidArgumentError(
          absl::StrCat("attention: row ", r, " has ", pages, " pages, ", needed, " needed"));
    }
    for (int64_t p = 0; p < needed; ++p) {
      const int32_t page = host.pages[host.page_begin[r] + p];
      if (page < 0 || page >= num_blocks_) {
        return absl::InvalidArgumentError(
            absl::StrCat("attention: row ", r, " names block ", page, " of ", num_blocks_));
      }
    }
  }
  return absl::OkStatus();
}

void AttentionPlan::CutForCpu(int threads) {
  const AttentionRows::Arrays& host = rows_.host;
  const int32_t group = heads_ / layout_.kv_heads;
  int64_t whole = 0;
  for (int32_t r = 0; r < rows_.rows; ++r) {
    const int32_t count = host.query_begin[r + 1] - host.query_begin[r];
    whole += (count + kQueriesPerSlice - 1) / kQueriesPerSlice * layout_.kv_heads;
  }
  if (whole == 0) return;
  // Slices of whole KV heads read each key once; where they are fewer than the threads, the heads
  // of a group go apart.
  const int32_t parts =
      whole >= threads
          ? 1
          : static_cast<int32_t>(std::min<int64_t>(group, (threads + whole - 1) / whole));
  for (int32_t r = 0; r < rows_.rows; ++r) {
    const int32_t count = host.query_begin[r + 1] - host.query_begin[r];
    for (int32_t kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
      for (int32_t begin = 0; begin < count; begin += kQueriesPerSlice) {
        const int32_t queries = std::min(kQueriesPerSlice, count - begin);
        for (int32_t part = 0; part < parts; ++part) {
          const int32_t head = group * part / parts, end = group * (part + 1) / parts;
          slices_.push_back({r, begin, queries, kv_head, head, end - head});
        }
      }
    }
  }
}

}  // namespace triptych::kernels
