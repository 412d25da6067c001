#pragma once

// Pieces between the pools and the transfer regions, and their checksums, on the calling thread. It
// may run beside a StepRunner: a plan never lets two of them use the same tokens at once.

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/executor.h"
#include "engine/memory/paged_pool.h"
#include "kernels/page_copy.h"

namespace triptych::engine {

class PieceCopier {
 public:
  // Borrows all three. A spec that names memory outside of them is a CHECK: the planner is ours,
  // and bytes from peers were checked before they got here.
  PieceCopier(const PagedPool& kv, const PagedPool& embeddings, const TransferRegions& regions)
      : kv_(kv), embeddings_(embeddings), regions_(regions) {}

  void Import(const scheduler::ImportSpec& spec);
  scheduler::ExportResult Export(const scheduler::ExportSpec& spec);
  uint64_t ChecksumLanded(const scheduler::PieceBuffer& buffer) const;

 private:
  kernels::PageCopyArgs PageCopyOf(const scheduler::CacheRange& range,
                                   const std::vector<scheduler::BlockId>& pages,
                                   absl::Span<uint8_t> buffer) const;

  const PagedPool& kv_;
  const PagedPool& embeddings_;
  const TransferRegions& regions_;
};

}  // namespace triptych::engine
