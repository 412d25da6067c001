#pragma once

// Pieces between the pools and the transfer regions, and their checksums, on the calling thread. It
// may run beside a StepRunner: a plan never lets two of them use the same tokens at once.

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/executor.h"
#include "engine/memory/cpu_pools.h"
#include "kernels/page_copy.h"

namespace triptych::engine {

class PieceCopier {
 public:
  // Borrows the pools. A spec that names memory outside of them is a CHECK: the planner is ours,
  // and bytes from peers were checked before they got here.
  PieceCopier(CpuKvPool& kv, CpuEmbeddingPool& embeddings, const TransferRegions& regions,
              int64_t embedding_bytes_per_token)
      : kv_(kv),
        embeddings_(embeddings),
        regions_(regions),
        token_bytes_(embedding_bytes_per_token) {}

  void Import(const scheduler::ImportSpec& spec);
  scheduler::ExportResult Export(const scheduler::ExportSpec& spec);
  uint64_t ChecksumLanded(const scheduler::PieceBuffer& buffer) const;

 private:
  kernels::PageCopyArgs PageCopyOf(const scheduler::CacheRange& range,
                                   const std::vector<scheduler::BlockId>& pages,
                                   absl::Span<uint8_t> buffer) const;

  CpuKvPool& kv_;
  CpuEmbeddingPool& embeddings_;
  const TransferRegions& regions_;
  const int64_t token_bytes_;  // of an embedding
};

}  // namespace triptych::engine
