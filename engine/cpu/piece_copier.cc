#include "engine/cpu/piece_copier.h"

#include "base/check.h"
#include "base/checksum.h"

namespace triptych::engine {

using scheduler::TransferKind;

// The pages of `range` in its pool against `buffer`.
kernels::PageCopyArgs PieceCopier::PageCopyOf(const scheduler::CacheRange& range,
                                              const std::vector<scheduler::BlockId>& pages,
                                              absl::Span<uint8_t> buffer) const {
  const bool is_kv = range.kind == TransferKind::kKv;
  const PagedPool& pool = is_kv ? kv_ : embeddings_;
  const int32_t first_layer = is_kv ? range.layer_begin : 0;
  const int32_t layers = is_kv ? range.layer_end - range.layer_begin : 1;
  const int32_t tokens = range.token_end - range.token_begin;
  CHECK_TRUE(first_layer >= 0 && layers >= 0 && range.token_begin >= 0 && tokens >= 0);
  CHECK_LE(first_layer + layers, static_cast<int32_t>(pool.layers().size()));
  CHECK_LE(range.token_end, static_cast<int64_t>(pages.size()) * pool.layout().block_tokens);
  CHECK_EQ(kernels::PageCopyBytes(pool.layout(), layers, tokens, pool.halves()),
           static_cast<int64_t>(buffer.size()));
  return {.layer_pages = pool.layers().subspan(first_layer, layers),
          .num_blocks = pool.num_blocks(),
          .block_ids = pages.data(),
          .token_begin = range.token_begin,
          .tokens = tokens,
          .layout = pool.layout(),
          .halves = pool.halves(),
          .buffer = buffer.data()};
}

void PieceCopier::Import(const scheduler::ImportSpec& spec) {
  const absl::Span<uint8_t> bytes = regions_.Landing(spec.buffer).HostBytes();
  CHECK_OK(kernels::ScatterPages(PageCopyOf(spec.range, spec.pages, bytes), {}));
}

scheduler::ExportResult PieceCopier::Export(const scheduler::ExportSpec& spec) {
  const absl::Span<uint8_t> bytes = regions_.Staging(spec.buffer).HostBytes();
  CHECK_OK(kernels::GatherPages(PageCopyOf(spec.range, spec.pages, bytes), {}));
  return {.buffer = spec.buffer.id, .checksum = base::Checksum64(bytes.data(), bytes.size())};
}

uint64_t PieceCopier::ChecksumLanded(const scheduler::PieceBuffer& buffer) const {
  const absl::Span<const uint8_t> bytes = regions_.Landing(buffer).HostBytes();
  return base::Checksum64(bytes.data(), bytes.size());
}

}  // namespace triptych::engine
