#pragma once

// Pieces between the pools of a CUDA device and the transfer regions, on a stream of its own.
// Regions on the device are gathered into and scattered from in place; those in pinned host memory
// are reached through one contiguous buffer of the device, since a bus moves one large piece faster
// than many small ones. One thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cuda.h"
#include "engine/executor.h"
#include "engine/gpu/completion_queue.h"
#include "engine/gpu/device_lane.h"
#include "engine/gpu/gpu_pools.h"
#include "kernels/page_copy.h"

namespace triptych::engine {

class CopyLane {
 public:
  struct Config {
    int device = 0;
    int64_t max_piece_bytes = 0;
    int64_t max_pages = 0;  // of one piece
    int max_in_flight = 64;
  };
  // Borrows pools, regions and the queue.
  static absl::StatusOr<std::unique_ptr<CopyLane>> Create(const Config& config,
                                                          const GpuPools& pools,
                                                          const TransferRegions& regions,
                                                          CompletionQueue* completions);

  using OnChecksum = std::function<void(uint64_t)>;

  // Enqueue; `done` is called on the queue's thread when the bytes are where they belong, an
  // export's with their checksum (base::Checksum64). At most max_in_flight are under way (the stage
  // scheduler's bound). A spec that names memory outside the pools is a CHECK. Errors of the
  // device.
  absl::Status Import(const scheduler::ImportSpec& spec, CompletionQueue::OnDone done);
  absl::Status Export(const scheduler::ExportSpec& spec, OnChecksum done);

  // What comes later starts after this event.
  absl::Status Wait(const base::CudaEvent& event) { return lane_->cuda().Wait(event); }

 private:
  CopyLane(const Config& config, const GpuPools& pools, const TransferRegions& regions,
           CompletionQueue* completions)
      : config_(config), pools_(pools), regions_(regions), completions_(*completions) {}
  bool in_place() const { return regions_.staging.space == base::MemorySpace::kCuda; }
  // The piece's pages against `buffer` on the device, all of it; uploads the page list.
  absl::StatusOr<kernels::PageCopyArgs> ArgsOf(const scheduler::CacheRange& range,
                                               const std::vector<scheduler::BlockId>& pages,
                                               const base::MemoryRef& buffer);
  absl::Status ExportInPlace(const base::MemoryRef& staging, OnChecksum done);

  const Config config_;
  const GpuPools& pools_;
  const TransferRegions& regions_;
  CompletionQueue& completions_;
  std::unique_ptr<DeviceLane> lane_;
  base::DeviceMemory piece_;             // one piece: they follow each other. Not where in place
  base::PinnedMemory page_lists_;        // [max_in_flight + 1, max_pages]
  base::DeviceMemory device_pages_;      // likewise
  base::PinnedMemory checksums_;         // [max_in_flight + 1]; where in place
  base::DeviceMemory device_checksums_;  // likewise
  int64_t submitted_ = 0;
};

}  // namespace triptych::engine
