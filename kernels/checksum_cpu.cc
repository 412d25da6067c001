#include <algorithm>
#include <atomic>

#include "base/checksum.h"
#include "kernels/checksum.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {

void internal::ChecksumCpu(const ChecksumArgs& args, ThreadPool* pool) {
  constexpr int64_t kBlocksPerSlice = 64;
  constexpr int64_t kBytesPerSlice = kBlocksPerSlice * int64_t{base::kChecksumBlock};
  const auto* data = static_cast<const uint8_t*>(args.data);
  std::atomic<uint64_t> sum = 0;
  ParallelFor(pool, (args.bytes + kBytesPerSlice - 1) / kBytesPerSlice, [&](int64_t slice) {
    const int64_t begin = slice * kBytesPerSlice;
    const int64_t size = std::min(kBytesPerSlice, args.bytes - begin);
    sum += base::ChecksumBlocks(data + begin, size, slice * kBlocksPerSlice);
  });
  *args.checksum = base::FinishChecksum(sum, args.bytes);
}

}  // namespace triptych::kernels
