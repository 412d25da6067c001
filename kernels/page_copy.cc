#include "kernels/page_copy.h"

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kernels/op_status.h"

namespace triptych::kernels {
namespace {

absl::Status Check(const PageCopyArgs& args) {
  const KvLayout& layout = args.layout;
  if (layout.block_tokens < 1 || layout.kv_heads < 1 || layout.head_dim < 1 ||
      args.num_blocks < 1 || args.token_begin < 0 || args.tokens < 0 || args.halves < 1 ||
      args.halves > 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "page copy: block_tokens ", layout.block_tokens, ", kv_heads ", layout.kv_heads,
        ", head_dim ", layout.head_dim, ", num_blocks ", args.num_blocks, ", token_begin ",
        args.token_begin, ", tokens ", args.tokens, ", halves ", args.halves));
  }
  if (args.tokens == 0 || args.layer_pages.empty()) return absl::OkStatus();
  bool missing = args.block_ids == nullptr || args.buffer == nullptr;
  for (const void* pages : args.layer_pages) missing = missing || pages == nullptr;
  if (missing) return absl::InvalidArgumentError("page copy: a pointer is missing");
  return absl::OkStatus();
}

absl::Status CheckBlocks(const PageCopyArgs& args) {
  const int64_t last = (args.token_begin + args.tokens - 1) / args.layout.block_tokens;
  for (int64_t b = args.token_begin / args.layout.block_tokens; b <= last; ++b) {
    if (args.block_ids[b] < 0 || args.block_ids[b] >= args.num_blocks) {
      return absl::InvalidArgumentError(absl::StrCat("page copy: entry ", b, " is block ",
                                                     args.block_ids[b], " of ", args.num_blocks));
    }
  }
  return absl::OkStatus();
}

absl::Status Copy(const PageCopyArgs& args, internal::PageCopyDirection direction,
                  const Stream& stream) {
  RETURN_IF_ERROR(Check(args));
  if (args.tokens == 0 || args.layer_pages.empty()) return absl::OkStatus();
  if (stream.device == Device::kCpu) {
    RETURN_IF_ERROR(CheckBlocks(args));
    internal::PageCopyCpu(args, direction, stream.pool);
    return absl::OkStatus();
  }
#ifdef TRIPTYCH_CUDA_SIDE
  return CudaStatus("page copy", internal::PageCopyCuda(args, direction, stream));
#else
  return NoCudaSide("page copy");
#endif
}

}  // namespace

int64_t PageCopyBytes(const KvLayout& layout, int64_t layers, int64_t tokens, int halves) {
  return layers * halves * tokens * layout.token_elements() * SizeOf(layout.dtype);
}

absl::Status GatherPages(const PageCopyArgs& args, const Stream& stream) {
  return Copy(args, internal::PageCopyDirection::kGather, stream);
}

absl::Status ScatterPages(const PageCopyArgs& args, const Stream& stream) {
  return Copy(args, internal::PageCopyDirection::kScatter, stream);
}

}  // namespace triptych::kernels
