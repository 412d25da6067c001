// A warp takes a block of 4 KiB: its threads read 16 bytes each, eight stripes at a time, and hold
// two of the eight lanes for every eighth stripe; the parts of a lane are added across the warp.

#include <cuda_runtime.h>

#include <algorithm>

#pragma nv_diag_suppress 1675  // a pragma of GCC's in the header
#include "base/checksum.h"
#pragma nv_diag_default 1675
#include "kernels/checksum.h"
#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"

namespace triptych::kernels {
namespace {

using base::internal::kChecksumLane;
using base::internal::kChecksumPlace;
using base::internal::kChecksumStripe;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kBlockBytes = static_cast<int>(base::kChecksumBlock);
constexpr int kLoads = kBlockBytes / (32 * 16);

// base::MixBits; constexpr functions of the host are not the device's.
__device__ inline uint64_t Mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

__device__ inline uint64_t Sum(uint64_t value, int first_offset, int last_offset) {
  for (int offset = first_offset; offset <= last_offset; offset *= 2) {
    value += __shfl_xor_sync(~0u, value, offset);
  }
  return value;
}

// 16 bytes at `at` of `size`; zeros behind the end.
template <bool kAligned>
__device__ inline ulonglong2 Load(const uint8_t* data, int64_t at, int64_t size) {
  if (kAligned && at + 16 <= size) return *reinterpret_cast<const ulonglong2*>(data + at);
  uint64_t word[2] = {};
  for (int i = 0; i < 16 && at + i < size; ++i) {
    word[i / 8] |= uint64_t{data[at + i]} << (i % 8 * 8);
  }
  return {word[0], word[1]};
}

__device__ inline uint64_t Product(uint64_t word, uint64_t key) {
  const uint64_t x = word ^ key;
  return (x & 0xffffffff) * (x >> 32);
}

template <bool kAligned>
__global__ void __launch_bounds__(kThreads)
    ChecksumKernel(const uint8_t* data, int64_t size, unsigned long long* sum) {
  const int thread = static_cast<int>(threadIdx.x) % 32, lane = thread % 4 * 2;
  const uint64_t key_low = Mix(kChecksumLane * (lane + 1)) + kChecksumStripe * (thread / 4);
  const uint64_t key_high = Mix(kChecksumLane * (lane + 2)) + kChecksumStripe * (thread / 4);
  const int64_t blocks = (size + kBlockBytes - 1) / kBlockBytes;
  uint64_t total = 0;
  for (int64_t block = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; block < blocks;
       block += int64_t{gridDim.x} * kWarps) {
    ulonglong2 in[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      in[i] = Load<kAligned>(data, block * kBlockBytes + (i * 32 + thread) * 16, size);
    }
    uint64_t low = 0, high = 0;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      low += in[i].y + Product(in[i].x, key_low + kChecksumStripe * 8 * i);
      high += in[i].x + Product(in[i].y, key_high + kChecksumStripe * 8 * i);
    }
    low = Sum(low, 4, 16);
    high = Sum(high, 4, 16);
    const uint64_t hash =
        Mix(low ^ (kChecksumLane * (lane + 1))) + Mix(high ^ (kChecksumLane * (lane + 2)));
    total += Mix(Sum(hash, 1, 2) + kChecksumPlace * (block + 1));
  }
  if (thread == 0 && total != 0) atomicAdd(sum, total);
}

__global__ void FinishKernel(uint64_t size, uint64_t* sum) {
  *sum = Mix(*sum ^ Mix(size + kChecksumPlace));
}

}  // namespace

int internal::ChecksumCuda(const ChecksumArgs& args, const Stream& on) {
  const auto stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  const auto* data = static_cast<const uint8_t*>(args.data);
  auto* sum = reinterpret_cast<unsigned long long*>(args.checksum);
  if (const cudaError_t error = cudaMemsetAsync(sum, 0, sizeof(*sum), stream)) return error;
  const int64_t blocks = (args.bytes + kBlockBytes - 1) / kBlockBytes;
  constexpr int64_t kMostBlocks = 132 * 8;  // as many as an H200 runs at once
  const auto grid =
      static_cast<unsigned>(std::clamp<int64_t>((blocks + kWarps - 1) / kWarps, 1, kMostBlocks));
  if (IsAligned(data, 16)) {
    ChecksumKernel<true><<<grid, kThreads, 0, stream>>>(data, args.bytes, sum);
  } else {
    ChecksumKernel<false><<<grid, kThreads, 0, stream>>>(data, args.bytes, sum);
  }
  FinishKernel<<<1, 1, 0, stream>>>(static_cast<uint64_t>(args.bytes), args.checksum);
  return cudaPeekAtLastError();
}

}  // namespace triptych::kernels
