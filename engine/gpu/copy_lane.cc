#include "engine/gpu/copy_lane.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/checksum.h"
#include "base/status.h"
#include "kernels/checksum.h"
#include "kernels/page_copy.h"

namespace triptych::engine {

using scheduler::TransferKind;

absl::StatusOr<std::unique_ptr<CopyLane>> CopyLane::Create(const Config& config,
                                                           const GpuPools& pools,
                                                           const TransferRegions& regions,
                                                           CompletionQueue* completions) {
  std::unique_ptr<CopyLane> lane(new CopyLane(config, pools, regions, completions));
  ASSIGN_OR_RETURN(lane->lane_, DeviceLane::Create(config.device, base::CudaPriority::kHigh, 0));
  if (lane->in_place()) {
    const int64_t sums = (config.max_in_flight + 1) * int64_t{sizeof(uint64_t)};
    ASSIGN_OR_RETURN(lane->checksums_, base::PinnedMemory::Allocate(sums));
    ASSIGN_OR_RETURN(lane->device_checksums_, base::DeviceMemory::Allocate(config.device, sums));
  } else {
    ASSIGN_OR_RETURN(lane->piece_,
                     base::DeviceMemory::Allocate(config.device, config.max_piece_bytes));
  }
  const int64_t lists = (config.max_in_flight + 1) * config.max_pages * int64_t{sizeof(int32_t)};
  ASSIGN_OR_RETURN(lane->page_lists_, base::PinnedMemory::Allocate(lists));
  ASSIGN_OR_RETURN(lane->device_pages_, base::DeviceMemory::Allocate(config.device, lists));
  return lane;
}

absl::StatusOr<kernels::PageCopyArgs> CopyLane::ArgsOf(const scheduler::CacheRange& range,
                                                       const std::vector<scheduler::BlockId>& pages,
                                                       const base::MemoryRef& buffer) {
  const bool kv = range.kind == TransferKind::kKv;
  const kernels::KvLayout& layout = kv ? pools_.kv_layout : pools_.embedding_layout;
  const int32_t tokens = range.token_end - range.token_begin;
  const int32_t layers = kv ? range.layer_end - range.layer_begin : 1;
  const int halves = kv ? 2 : 1;
  CHECK_TRUE(range.token_begin >= 0 && tokens >= 0 && range.layer_begin >= 0 && layers >= 0);
  CHECK_LE(range.token_end, static_cast<int64_t>(pages.size()) * layout.block_tokens);
  if (kv) CHECK_LE(static_cast<size_t>(range.layer_end), pools_.kv_layers.size());
  CHECK_EQ(kernels::PageCopyBytes(layout, layers, tokens, halves), buffer.bytes);
  CHECK_LE(buffer.bytes, config_.max_piece_bytes);
  CHECK_LE(static_cast<int64_t>(pages.size()), config_.max_pages);
  const int64_t list = submitted_++ % (config_.max_in_flight + 1);
  const int64_t size = static_cast<int64_t>(pages.size() * sizeof(int32_t));
  const int64_t offset = list * config_.max_pages * int64_t{sizeof(int32_t)};
  const base::MemoryRef host = page_lists_.ref().Sub(offset, size);
  const base::MemoryRef device = device_pages_.ref().Sub(offset, size);
  std::copy(pages.begin(), pages.end(), static_cast<int32_t*>(host.data));
  RETURN_IF_ERROR(lane_->cuda().Copy(device, host));
  const absl::Span<void* const> all =
      kv ? absl::MakeConstSpan(pools_.kv_layers) : absl::MakeConstSpan(&pools_.embeddings, 1);
  return kernels::PageCopyArgs{
      .layer_pages =
          kv ? all.subspan(static_cast<size_t>(range.layer_begin), static_cast<size_t>(layers))
             : all,
      .num_blocks = kv ? pools_.kv_blocks : pools_.embedding_pages,
      .block_ids = static_cast<const int32_t*>(device.data),
      .token_begin = range.token_begin,
      .tokens = tokens,
      .layout = layout,
      .halves = halves,
      .buffer = buffer.data};
}

absl::Status CopyLane::Import(const scheduler::ImportSpec& spec, CompletionQueue::OnDone done) {
  const base::MemoryRef landing = regions_.Landing(spec.buffer);
  const base::MemoryRef buffer = in_place() ? landing : piece_.ref().Sub(0, landing.bytes);
  ASSIGN_OR_RETURN(const kernels::PageCopyArgs args, ArgsOf(spec.range, spec.pages, buffer));
  if (!in_place()) RETURN_IF_ERROR(lane_->cuda().Copy(buffer, landing));
  RETURN_IF_ERROR(kernels::ScatterPages(args, lane_->stream()));
  completions_.Push(lane_->cuda().get(), std::move(done));
  return absl::OkStatus();
}

absl::Status CopyLane::Export(const scheduler::ExportSpec& spec, OnChecksum done) {
  const base::MemoryRef staging = regions_.Staging(spec.buffer);
  const base::MemoryRef buffer = in_place() ? staging : piece_.ref().Sub(0, staging.bytes);
  ASSIGN_OR_RETURN(const kernels::PageCopyArgs args, ArgsOf(spec.range, spec.pages, buffer));
  RETURN_IF_ERROR(kernels::GatherPages(args, lane_->stream()));
  if (in_place()) return ExportInPlace(staging, std::move(done));
  RETURN_IF_ERROR(lane_->cuda().Copy(staging, buffer));
  completions_.Push(lane_->cuda().get(), [staging, done = std::move(done)] {
    const absl::Span<uint8_t> bytes = staging.HostBytes();
    done(base::Checksum64(bytes.data(), bytes.size()));
  });
  return absl::OkStatus();
}

// After the gather: the checksum on the device, and 8 bytes to the host.
absl::Status CopyLane::ExportInPlace(const base::MemoryRef& staging, OnChecksum done) {
  const int64_t slot = submitted_ % (config_.max_in_flight + 1);
  const int64_t at = slot * int64_t{sizeof(uint64_t)};
  const base::MemoryRef sum = device_checksums_.ref().Sub(at, sizeof(uint64_t));
  const base::MemoryRef told = checksums_.ref().Sub(at, sizeof(uint64_t));
  RETURN_IF_ERROR(kernels::Checksum(
      {.data = staging.data, .bytes = staging.bytes, .checksum = static_cast<uint64_t*>(sum.data)},
      lane_->stream()));
  RETURN_IF_ERROR(lane_->cuda().Copy(told, sum));
  completions_.Push(lane_->cuda().get(), [told, done = std::move(done)] {
    done(*static_cast<const uint64_t*>(told.data));
  });
  return absl::OkStatus();
}

}  // namespace triptych::engine
