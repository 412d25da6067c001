// Both directions walk the buffer: K or V of a layer is one run of vectors there, cut into tiles of
// one block of threads each, and every vector finds its page by one division. All loads of a thread
// are issued before its first store.

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/page_copy.h"

namespace triptych::kernels {
namespace {

// Chosen among 13 variants: bench/gpu/README.md.
constexpr int kThreads = 256;
constexpr int kVectorsPerThread = 2;
constexpr int kTile = kThreads * kVectorsPerThread;
// Layers of one launch; their pool pointers travel in its parameters (1 KiB of at most 4).
constexpr int kMaxLayers = 128;

// Sizes in vectors.
struct Launched {
  char* pools[kMaxLayers];
  char* buffer;
  const int32_t* block_ids;
  int64_t num_blocks;
  int64_t half_layer;  // one layer's K in the buffer
  int64_t first;       // of the range, from the sequence's first token
  uint32_t half_block;
  uint32_t halves;
};

// Vector `index` of a K or V run in its page; null where the page table holds no block of the pool.
template <typename Vector>
__device__ Vector* PageVector(const Launched& in, Vector* pool, int half, int64_t index) {
  const int64_t position = in.first + index;
  const int64_t entry = position < UINT32_MAX ? static_cast<uint32_t>(position) / in.half_block
                                              : position / in.half_block;
  const int32_t block = __ldg(in.block_ids + entry);
  if (block < 0 || block >= in.num_blocks) return nullptr;
  return pool + (int64_t{block} * in.halves + half) * in.half_block +
         (position - entry * in.half_block);
}

template <typename Vector, internal::PageCopyDirection kDirection>
__global__ void __launch_bounds__(kThreads) PageCopyKernel(const __grid_constant__ Launched in) {
  const int half = static_cast<int>(blockIdx.y % in.halves);
  Vector* pool = reinterpret_cast<Vector*>(in.pools[blockIdx.y / in.halves]);
  Vector* run = reinterpret_cast<Vector*>(in.buffer) + blockIdx.y * in.half_layer;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile + threadIdx.x;
  Vector* page[kVectorsPerThread];
  Vector value[kVectorsPerThread];
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    const int64_t index = first + i * kThreads;
    page[i] = index < in.half_layer ? PageVector(in, pool, half, index) : nullptr;
  }
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    if (page[i] == nullptr) continue;
    value[i] = kDirection == internal::PageCopyDirection::kGather
                   ? __ldg(page[i])
                   : __ldg(run + first + i * kThreads);
  }
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    if (page[i] == nullptr) continue;
    if constexpr (kDirection == internal::PageCopyDirection::kGather) {
      run[first + i * kThreads] = value[i];
    } else {
      *page[i] = value[i];
    }
  }
}

template <typename Vector>
void Launch(const PageCopyArgs& args, internal::PageCopyDirection direction, cudaStream_t stream) {
  const int64_t size = sizeof(Vector);
  const int64_t token_vectors = args.layout.token_elements() * SizeOf(args.layout.dtype) / size;
  const int64_t layers = static_cast<int64_t>(args.layer_pages.size());
  Launched in = {};
  in.block_ids = args.block_ids;
  in.num_blocks = args.num_blocks;
  in.half_layer = args.tokens * token_vectors;
  in.first = args.token_begin * token_vectors;
  in.half_block = static_cast<uint32_t>(args.layout.block_tokens * token_vectors);
  in.halves = static_cast<uint32_t>(args.halves);
  const unsigned tiles = static_cast<unsigned>((in.half_layer + kTile - 1) / kTile);
  for (int64_t begin = 0; begin < layers; begin += kMaxLayers) {
    const int64_t count = std::min<int64_t>(kMaxLayers, layers - begin);
    for (int64_t l = 0; l < count; ++l) {
      in.pools[l] = static_cast<char*>(args.layer_pages[begin + l]);
    }
    in.buffer = static_cast<char*>(args.buffer) + begin * args.halves * in.half_layer * size;
    const dim3 grid(tiles, static_cast<unsigned>(args.halves * count));
    if (direction == internal::PageCopyDirection::kGather) {
      PageCopyKernel<Vector, internal::PageCopyDirection::kGather>
          <<<grid, kThreads, 0, stream>>>(in);
    } else {
      PageCopyKernel<Vector, internal::PageCopyDirection::kScatter>
          <<<grid, kThreads, 0, stream>>>(in);
    }
  }
}

}  // namespace

int internal::PageCopyCuda(const PageCopyArgs& args, PageCopyDirection direction,
                           const Stream& on) {
  const cudaStream_t stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  const int64_t token_bytes = args.layout.token_elements() * SizeOf(args.layout.dtype);
  if (args.layout.block_tokens * token_bytes > INT32_MAX) return cudaErrorInvalidValue;
  bool aligned = token_bytes % sizeof(uint4) == 0 && IsAligned(args.buffer, sizeof(uint4));
  for (const void* pool : args.layer_pages) aligned = aligned && IsAligned(pool, sizeof(uint4));
  if (aligned) {
    Launch<uint4>(args, direction, stream);
  } else if (SizeOf(args.layout.dtype) % sizeof(uint16_t) == 0) {
    Launch<uint16_t>(args, direction, stream);
  } else {
    Launch<uint8_t>(args, direction, stream);
  }
  return cudaPeekAtLastError();
}

}  // namespace triptych::kernels
