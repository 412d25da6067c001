#include "kernels/attention.h"

namespace triptych::kernels {
namespace {

absl::Status CheckRow(const AttentionRow& row, const PagedAttentionArgs& args) {
  const int64_t end = int64_t{row.first_token} + row.count;
  if (row.first_token < 0 || row.count < 1) {
    return absl::InvalidArgumentError("PagedAttention: an empty or negative token range");
  }
  const int64_t needed = (end + args.layout.block_tokens - 1) / args.layout.block_tokens;
  if (static_cast<int64_t>(row.pages.size()) < needed) {
    return absl::InvalidArgumentError("PagedAttention: the page table is too short");
  }
  for (int32_t page : row.pages.subspan(0, needed)) {
    if (page < 0 || page >= args.num_blocks) {
      return absl::InvalidArgumentError("PagedAttention: a page outside the pool");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PagedAttention(const PagedAttentionArgs& args, const Stream& stream) {
  if (stream.device != Device::kCpu) {
    return absl::UnimplementedError("PagedAttention runs on the CPU only");
  }
  if (args.rows.empty()) return absl::OkStatus();
  if (args.q == nullptr || args.out == nullptr || args.pool == nullptr) {
    return absl::InvalidArgumentError("PagedAttention: null pointer");
  }
  if (args.layout.kv_heads < 1 || args.heads < 1 || args.heads % args.layout.kv_heads != 0) {
    return absl::InvalidArgumentError("PagedAttention: heads are no multiple of KV heads");
  }
  for (const AttentionRow& row : args.rows) {
    if (absl::Status status = CheckRow(row, args); !status.ok()) return status;
  }
  internal::PagedAttentionCpu(args, stream.pool);
  return absl::OkStatus();
}

absl::Status SegmentAttention(const SegmentAttentionArgs& args, const Stream& stream) {
  if (stream.device != Device::kCpu) {
    return absl::UnimplementedError("SegmentAttention runs on the CPU only");
  }
  if (args.ends.empty()) return absl::OkStatus();
  if (args.qkv == nullptr || args.out == nullptr || args.heads < 1 || args.head_dim < 1) {
    return absl::InvalidArgumentError("SegmentAttention: null pointer or size below 1");
  }
  int32_t begin = 0;
  for (int32_t end : args.ends) {
    if (end < begin) return absl::InvalidArgumentError("SegmentAttention: ends do not ascend");
    begin = end;
  }
  internal::SegmentAttentionCpu(args, stream.pool);
  return absl::OkStatus();
}

}  // namespace triptych::kernels
