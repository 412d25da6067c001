#include "engine/cpu/piece_copier.h"

#include <cstring>

#include "base/check.h"
#include "base/checksum.h"

namespace triptych::engine {

using scheduler::TransferKind;

// The pages of `range` in the pool against `buffer`.
kernels::PageCopyArgs PieceCopier::PageCopyOf(const scheduler::CacheRange& range,
                                              const std::vector<scheduler::BlockId>& pages,
                                              absl::Span<uint8_t> buffer) const {
  const int32_t layers = range.layer_end - range.layer_begin;
  const int32_t tokens = range.token_end - range.token_begin;
  CHECK_TRUE(range.layer_begin >= 0 && layers >= 0 && range.token_begin >= 0 && tokens >= 0);
  CHECK_LE(range.layer_end, static_cast<int32_t>(kv_.layers().size()));
  CHECK_LE(range.token_end, static_cast<int64_t>(pages.size()) * kv_.layout().block_tokens);
  CHECK_EQ(kernels::PageCopyBytes(kv_.layout(), layers, tokens),
           static_cast<int64_t>(buffer.size()));
  return {.layer_pages = kv_.layers().subspan(range.layer_begin, layers),
          .num_blocks = kv_.num_blocks(),
          .block_ids = pages.data(),
          .first_token = range.token_begin,
          .tokens = tokens,
          .layout = kv_.layout(),
          .buffer = buffer.data()};
}

void PieceCopier::Import(const scheduler::ImportSpec& spec) {
  const absl::Span<uint8_t> bytes = regions_.Landing(spec.buffer).HostBytes();
  if (spec.range.kind == TransferKind::kKv) {
    CHECK_OK(kernels::ScatterPages(PageCopyOf(spec.range, spec.pages, bytes), {}));
    return;
  }
  const int32_t tokens = spec.range.token_end - spec.range.token_begin;
  CHECK_EQ(tokens * token_bytes_, static_cast<int64_t>(bytes.size()));
  embeddings_.ForRuns(spec.pages, spec.range.token_begin, tokens,
                      [&](float* values, int32_t offset, int32_t count) {
                        std::memcpy(values, bytes.data() + offset * token_bytes_,
                                    count * token_bytes_);
                      });
}

scheduler::ExportResult PieceCopier::Export(const scheduler::ExportSpec& spec) {
  const absl::Span<uint8_t> bytes = regions_.Staging(spec.buffer).HostBytes();
  if (spec.range.kind == TransferKind::kKv) {
    CHECK_OK(kernels::GatherPages(PageCopyOf(spec.range, spec.pages, bytes), {}));
  } else {
    const int32_t tokens = spec.range.token_end - spec.range.token_begin;
    CHECK_EQ(tokens * token_bytes_, static_cast<int64_t>(bytes.size()));
    embeddings_.ForRuns(spec.pages, spec.range.token_begin, tokens,
                        [&](const float* values, int32_t offset, int32_t count) {
                          std::memcpy(bytes.data() + offset * token_bytes_, values,
                                      count * token_bytes_);
                        });
  }
  return {.buffer = spec.buffer.id, .checksum = base::Checksum64(bytes.data(), bytes.size())};
}

uint64_t PieceCopier::ChecksumLanded(const scheduler::PieceBuffer& buffer) const {
  const absl::Span<const uint8_t> bytes = regions_.Landing(buffer).HostBytes();
  return base::Checksum64(bytes.data(), bytes.size());
}

}  // namespace triptych::engine
