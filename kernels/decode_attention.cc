#include "kernels/decode_attention.h"

#include <algorithm>

#include "base/check.h"

namespace triptych::kernels {

bool DecodeAttentionServes(const KvLayout& layout, int heads) {
  return layout.dtype == DType::kBFloat16 && layout.head_dim == 128 && layout.block_tokens == 16 &&
         layout.kv_heads > 0 && heads % layout.kv_heads == 0 && heads / layout.kv_heads <= 8;
}

void PlanDecodeParts(absl::Span<const int32_t> lengths, absl::Span<const int32_t> page_begin,
                     int block_tokens, const DecodeAttentionChoice& choice,
                     absl::Span<DecodePart> parts) {
  CHECK_GE(parts.size(), lengths.size());
  int64_t total = 0;
  for (const int32_t length : lengths) total += (length + block_tokens - 1) / block_tokens;
  // A page for each warp, at least.
  const int64_t least = int64_t{kDecodeAttentionWarps} * choice.cluster;
  const int64_t ideal = std::max(least, (total + choice.target - 1) / choice.target);
  size_t used = 0;
  size_t left = lengths.size();  // rows that still need a part each
  for (size_t row = 0; row < lengths.size(); ++row, --left) {
    const int32_t pages = (lengths[row] + block_tokens - 1) / block_tokens;
    if (pages == 0) continue;
    const int64_t room = static_cast<int64_t>(parts.size() - used - left) + 1;
    const int64_t wanted = (2 * pages + ideal) / (2 * ideal);  // rounded
    const int32_t count = static_cast<int32_t>(
        std::clamp<int64_t>(wanted, 1, std::min<int64_t>({room, pages, kMaxDecodeParts})));
    const int32_t first_slot = static_cast<int32_t>(used);
    for (int32_t part = 0; part < count; ++part) {
      const int32_t begin = static_cast<int32_t>(int64_t{pages} * part / count);
      const int32_t end = static_cast<int32_t>(int64_t{pages} * (part + 1) / count);
      const bool last = part == count - 1;
      parts[used] = {.row = static_cast<int32_t>(row),
                     .first_page = page_begin[row] + begin,
                     .pages = end - begin,
                     .tokens = last ? lengths[row] - (pages - 1) * block_tokens : 0,
                     .parts = count,
                     .slot = static_cast<int32_t>(used),
                     .first_slot = first_slot};
      ++used;
    }
  }
  std::fill(parts.begin() + static_cast<std::ptrdiff_t>(used), parts.end(), DecodePart{});
}

}  // namespace triptych::kernels
