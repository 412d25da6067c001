#pragma once

// The kernel of linear_decode.h, for linear_decode.cu alone.
//
// One warpgroup multiplies, one thread copies. The batch is the 64 rows of the warpgroup's product
// and lies in registers, where the norm's weights and the sum of squares are applied to it; the
// weights are its columns and go from the ring straight into the tensor cores. The copying thread
// fills the ring with weights before the previous kernel has ended, so that memory is not idle
// between two kernels.

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/hopper.cuh"
#include "kernels/linear_decode.h"
#include "kernels/wgmma.cuh"

namespace triptych::kernels {
namespace {

constexpr int kConsumers = 128;
constexpr int kThreads = kConsumers + 32;
constexpr int kBoxInputs = 64;  // 128 bytes: the width of the swizzle
constexpr int kBoxRowBytes = 128;
constexpr int kMaxRows = static_cast<int>(kMaxDecodeRows);
constexpr int kMaxStages = 16;
constexpr int kConsumerBarrier = 1;
constexpr int kMaxItems = 6;  // of four outputs that a thread stores of a shared tile

// What a launch carries beside the maps.
struct Launched {
  const __nv_bfloat16* bias;
  const __nv_bfloat16* residual;
  const __nv_bfloat16* norm;
  void* y;
  int64_t y_stride;
  int rows;
  int inputs;
  int outputs;  // of y
  int float_output;
  int x_rows;  // rows of the input's box: `rows` up to a multiple of 8
  int tiles;
  int steps;  // stages that cover all inputs
  int split;
  int stages;
  int trigger;
  int second_half;  // SwiGLU: row of the weights where the second half begins; else 0
  float eps;
};

// Offsets in a block's shared memory.
struct Layout {
  int stage_bytes;
  int weight_bytes;  // of a stage; the input's boxes follow
  int norm;
  int barriers;
  int squares;
  int scales;
  int total;
};

__host__ __device__ inline Layout LayoutOf(const Launched& in, int tile_rows, int boxes) {
  Layout layout;
  layout.weight_bytes = boxes * tile_rows * kBoxRowBytes;
  layout.stage_bytes = layout.weight_bytes + boxes * in.x_rows * kBoxRowBytes;
  layout.norm = in.stages * layout.stage_bytes;
  const int norm_inputs = ((in.steps + in.split - 1) / in.split + 1) * boxes * kBoxInputs;
  layout.barriers = layout.norm + (in.norm != nullptr ? norm_inputs * 2 : 0);
  layout.squares = layout.barriers + 2 * kMaxStages * 8;
  layout.scales = layout.squares + kMaxRows * 4;
  layout.total = layout.scales + kMaxRows * 4;
  return layout;
}

__device__ inline float Low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float High(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ inline uint32_t PackPair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline uint32_t Times(uint32_t a, uint32_t b) {
  const __nv_bfloat162 product = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&a),
                                         *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const uint32_t*>(&product);
}
__device__ inline float Silu(float x) { return x / (1.0f + __expf(-x)); }

// The part of the steps that block `rank` of a cluster sums.
struct StepRange {
  int first;
  int count;
};
__device__ inline StepRange StepsOf(const Launched& in, int rank) {
  const int first = in.steps * rank / in.split;
  return {first, in.steps * (rank + 1) / in.split - first};
}

// --- The copying thread ----------------------------------------------------------------------

template <int kChunk, int kChunks, int kBoxes>
struct Producer {
  static constexpr int kTileRows = kChunk * kChunks;

  const CUtensorMap* weights;
  const CUtensorMap* x;
  const Launched& in;
  const Layout& layout;
  uint32_t shared;
  uint32_t full;
  uint32_t empty;
  StepRange steps;
  int first_tile;
  int tile_stride;

  __device__ void Weights(int load, int stage, uint64_t policy) const {
    const int tile = first_tile + load / steps.count * tile_stride;
    const int step = steps.first + load % steps.count;
    const uint32_t to = shared + stage * layout.stage_bytes;
    const uint32_t barrier = full + 8 * stage;
    ArriveExpecting(barrier, layout.stage_bytes);
#pragma unroll
    for (int box = 0; box < kBoxes; ++box) {
      const int column = (step * kBoxes + box) * kBoxInputs;
      const uint32_t at = to + box * kTileRows * kBoxRowBytes;
      const int row = tile * (in.second_half == 0 ? kTileRows : kChunk);
      LoadBox(at, weights, column, row, barrier, policy);
      if constexpr (kChunks == 2) {
        const int second = row + (in.second_half == 0 ? kChunk : in.second_half);
        LoadBox(at + kChunk * kBoxRowBytes, weights, column, second, barrier, policy);
      }
    }
  }

  __device__ void Input(int load, int stage, uint64_t policy) const {
    const int step = steps.first + load % steps.count;
    const uint32_t to = shared + stage * layout.stage_bytes + layout.weight_bytes;
#pragma unroll
    for (int box = 0; box < kBoxes; ++box) {
      LoadBox(to + box * in.x_rows * kBoxRowBytes, x, (step * kBoxes + box) * kBoxInputs, 0,
              full + 8 * stage, policy);
    }
  }

  __device__ void Run() const {
    const int tiles = (in.tiles - first_tile + tile_stride - 1) / tile_stride;
    const int loads = tiles * steps.count;
    const int ahead = min(loads, in.stages);
    const uint64_t once = EvictFirst();
    const uint64_t often = EvictLast();
    for (int load = 0; load < ahead; ++load) Weights(load, load, once);
    WaitForPreviousKernels();
    for (int load = 0; load < ahead; ++load) Input(load, load, often);
    const int trigger = max(ahead, loads - in.trigger);
    int stage = 0, parity = 0;
    for (int load = ahead; load < loads; ++load) {
      if (load == trigger) LetNextKernelStart();
      WaitBarrier(empty + 8 * stage, parity);
      Weights(load, stage, once);
      Input(load, stage, often);
      if (++stage == in.stages) {
        stage = 0;
        parity ^= 1;
      }
    }
    LetNextKernelStart();
  }
};

// --- The multiplying warpgroup ---------------------------------------------------------------

template <int kChunk, int kChunks, int kBoxes>
struct Consumer {
  static constexpr int kTileRows = kChunk * kChunks;
  static constexpr int kSlices = kBoxes * 4;  // of 16 inputs in a stage
  // Registers for the input of two stages, where they suffice.
  static constexpr bool kTwoInputs = kBoxes <= 2 && !(kBoxes == 2 && kTileRows > 112);

  const Launched& in;
  const Layout& layout;
  uint32_t shared;
  uint32_t full;
  uint32_t empty;
  const uint32_t* norm;  // pairs of weights in shared memory, from this block's first input
  int warp;
  int lane;
  // State of the ring.
  int stage = 0;
  int parity = 0;
  int busy = -1;  // the stage that products still read
  float acc[kChunks][kChunk / 2];
  float squares[2];

  // This warp's 16 rows of the stage's input, into `a`; the norm's weights multiplied in.
  __device__ void LoadInput(int step, uint32_t (&a)[kSlices][4]) {
    const uint32_t x = shared + stage * layout.stage_bytes + layout.weight_bytes;
    int row = warp * 16 + lane % 16;
    if (row >= in.x_rows) row -= 8;  // the upper half of a warp with 8 rows: computed, not stored
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      const int unit = slice % 4 * 2 + lane / 16;
      LoadMatrices(
          x + slice / 4 * in.x_rows * kBoxRowBytes + row * kBoxRowBytes + ((unit ^ (row & 7)) << 4),
          a[slice]);
    }
    if (norm == nullptr) return;
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      const int pair = (step * kBoxes * kBoxInputs + slice * 16) / 2 + lane % 4;
      const uint32_t low = norm[pair], high = norm[pair + 4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float first = Low(a[slice][i]), second = High(a[slice][i]);
        squares[i % 2] = fmaf(first, first, fmaf(second, second, squares[i % 2]));
        a[slice][i] = Times(a[slice][i], i < 2 ? low : high);
      }
    }
  }

  __device__ void Release() {
    if (busy >= 0 && lane == 0) Arrive(empty + 8 * busy);
  }

  // One stage: its input is loaded while the products of the stage before, with `before`, run. The
  // empty assembly keeps their registers from being used for anything else until then.
  __device__ void Step(int step, uint32_t (&a)[kSlices][4], uint32_t (&before)[kSlices][4]) {
    WaitBarrier(full + 8 * stage, parity);
    if (kTwoInputs && warp * 16 < in.x_rows) LoadInput(step, a);
    WarpgroupWait();
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
#pragma unroll
      for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(before[slice][i])::"memory");
    }
    __syncwarp();
    Release();
    if (!kTwoInputs && warp * 16 < in.x_rows) LoadInput(step, a);
    const uint32_t weights = shared + stage * layout.stage_bytes;
    WarpgroupFence();
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        MultiplyWarpgroup<kChunk>(
            acc[chunk], a[slice],
            SwizzledRows(weights + (slice / 4 * kTileRows + chunk * kChunk) * kBoxRowBytes +
                         slice % 4 * 32),
            step + slice > 0);
      }
    }
    WarpgroupCommit();
    busy = stage;
    if (++stage == in.stages) {
      stage = 0;
      parity ^= 1;
    }
  }

  // Sums a tile's products over `count` stages into `acc`.
  __device__ void Multiply(int count) {
    uint32_t even[kSlices][4] = {}, odd[kSlices][4] = {};
    squares[0] = squares[1] = 0;
    if constexpr (kTwoInputs) {
      for (int step = 0; step < count; step += 2) {
        Step(step, even, odd);
        if (step + 1 < count) Step(step + 1, odd, even);
      }
    } else {
      for (int step = 0; step < count; ++step) Step(step, even, even);
    }
    WarpgroupWait();
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (int i = 0; i < kChunk / 2; ++i) asm volatile("" : "+f"(acc[chunk][i])::"memory");
    }
    __syncwarp();
    Release();
    busy = -1;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      squares[half] += __shfl_xor_sync(~0u, squares[half], 1);
      squares[half] += __shfl_xor_sync(~0u, squares[half], 2);
    }
  }

  __device__ float Scale(float sum) const {
    return in.norm == nullptr ? 1.0f : rsqrtf(sum / static_cast<float>(in.inputs) + in.eps);
  }

  // Two neighbouring outputs of a row.
  __device__ void StorePair(int row, int column, float first, float second) const {
    if (column >= in.outputs) return;
    const int64_t at = row * in.y_stride + column;
    if (in.bias != nullptr) {
      first += __bfloat162float(in.bias[column]);
      second += __bfloat162float(in.bias[column + 1]);
    }
    if (in.residual != nullptr) {
      const uint32_t pair = *reinterpret_cast<const uint32_t*>(in.residual + at);
      first += Low(pair);
      second += High(pair);
    }
    if (in.float_output != 0) {
      *reinterpret_cast<float2*>(static_cast<float*>(in.y) + at) = {first, second};
    } else {
      *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(in.y) + at) =
          PackPair(first, second);
    }
  }

  // A tile that this block summed alone.
  __device__ void Finish(int tile) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp * 16 + half * 8 + lane / 4;
      if (row >= in.rows) continue;
      const float scale = Scale(squares[half]);
#pragma unroll
      for (int j = 0; j < kChunk / 8; ++j) {
        const int within = j * 8 + lane % 4 * 2;
        const int i = 4 * j + 2 * half;
        if constexpr (kChunks == 2) {
          if (in.second_half != 0) {
            StorePair(row, tile * kChunk + within, Silu(acc[0][i] * scale) * (acc[1][i] * scale),
                      Silu(acc[0][i + 1] * scale) * (acc[1][i + 1] * scale));
            continue;
          }
        }
#pragma unroll
        for (int chunk = 0; chunk < kChunks; ++chunk) {
          StorePair(row, tile * kTileRows + chunk * kChunk + within, acc[chunk][i] * scale,
                    acc[chunk][i + 1] * scale);
        }
      }
    }
  }

  // What FinishTogether adds to this thread's outputs, read before they are there.
  struct Extra {
    uint2 residual;
    uint2 bias;
  };

  // Item `index` of this thread: four neighbouring columns of a row.
  struct Item {
    int row;
    int quad;
    int column;  // of y
  };
  __device__ Item ItemOf(int index, int tile, int rank) const {
    const int quads = kTileRows / 4 / in.split;
    const int item = index * kConsumers + warp * 32 + lane;
    const int row = item / quads;
    return {row, item % quads, tile * kTileRows + (rank * quads + item % quads) * 4};
  }

  __device__ void LoadExtra(int tile, int rank, Extra (&extra)[kMaxItems]) const {
#pragma unroll
    for (int i = 0; i < kMaxItems; ++i) {
      const Item item = ItemOf(i, tile, rank);
      extra[i] = {{0, 0}, {0, 0}};
      if (item.row >= in.rows || item.column >= in.outputs) continue;
      if (in.bias != nullptr) {
        extra[i].bias = *reinterpret_cast<const uint2*>(in.bias + item.column);
      }
      if (in.residual != nullptr) {
        extra[i].residual = __ldcg(
            reinterpret_cast<const uint2*>(in.residual + item.row * in.y_stride + item.column));
      }
    }
  }

  // A tile whose sum is spread over the cluster: each block adds up its share of the columns.
  __device__ void FinishTogether(int tile, int rank) const {
    constexpr int kPitch = kTileRows + 8;  // rows 8 or 24 words apart modulo 32: no bank conflicts
    const uint32_t sums = shared;          // over the ring, which is used up
    NamedBarrier(kConsumerBarrier, kConsumers);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp * 16 + half * 8 + lane / 4;
      if (row >= in.rows) continue;
      if (lane % 4 == 0) StoreShared(shared + layout.squares + 4 * row, squares[half]);
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
        for (int j = 0; j < kChunk / 8; ++j) {
          const int column = chunk * kChunk + j * 8 + lane % 4 * 2;
          StoreShared2(sums + 4 * (row * kPitch + column), acc[chunk][4 * j + 2 * half],
                       acc[chunk][4 * j + 2 * half + 1]);
        }
      }
    }
    __syncwarp();
    ClusterArrive();
    Extra extra[kMaxItems];
    LoadExtra(tile, rank, extra);  // arrives while the blocks wait for each other
    ClusterWait();
    const int thread = warp * 32 + lane;
    if (in.norm != nullptr && thread < in.rows) {
      float square = 0;
      for (int peer = 0; peer < in.split; ++peer) {
        square += LoadCluster(ClusterAddress(shared + layout.squares + 4 * thread, peer));
      }
      StoreShared(shared + layout.scales + 4 * thread, Scale(square));
    }
    float4 sum[kMaxItems];
#pragma unroll
    for (int i = 0; i < kMaxItems; ++i) sum[i] = {0, 0, 0, 0};
    for (int peer = 0; peer < in.split; peer += 2) {  // two peers' loads in flight
      float4 part[2][kMaxItems];
      const uint32_t from[2] = {ClusterAddress(sums, peer), ClusterAddress(sums, peer + 1)};
#pragma unroll
      for (int i = 0; i < kMaxItems; ++i) {
        const Item item = ItemOf(i, tile, rank);
        if (item.row >= in.rows) break;
        const int at = 4 * (item.row * kPitch + item.column - tile * kTileRows);
        part[0][i] = LoadCluster4(from[0] + at);
        part[1][i] = LoadCluster4(from[1] + at);
      }
#pragma unroll
      for (int i = 0; i < kMaxItems; ++i) {
        if (ItemOf(i, tile, rank).row >= in.rows) break;
        sum[i] = {sum[i].x + part[0][i].x + part[1][i].x, sum[i].y + part[0][i].y + part[1][i].y,
                  sum[i].z + part[0][i].z + part[1][i].z, sum[i].w + part[0][i].w + part[1][i].w};
      }
    }
    __syncwarp();
    ClusterArrive();  // waited for at the end: a peer may still read this block's sums
    if (in.norm != nullptr) NamedBarrier(kConsumerBarrier, kConsumers);
#pragma unroll
    for (int i = 0; i < kMaxItems; ++i) {
      const Item item = ItemOf(i, tile, rank);
      if (item.row >= in.rows) break;
      if (item.column >= in.outputs) continue;
      const float scale =
          in.norm == nullptr ? 1.0f : LoadShared(shared + layout.scales + 4 * item.row);
      StoreQuad(item, sum[i], scale, extra[i]);
    }
    __syncwarp();
    ClusterWait();
  }

  // Asks for what FinishTogether will touch, early: memory that nothing has touched since the layer
  // before costs its address translation too.
  __device__ void Touch(int tile, int rank) const {
#pragma unroll
    for (int i = 0; i < kMaxItems; ++i) {
      const Item item = ItemOf(i, tile, rank);
      if (item.row >= in.rows || item.column >= in.outputs) break;
      if (in.bias != nullptr) PrefetchLine(in.bias + item.column);
      PrefetchLine(static_cast<const char*>(in.y) +
                   (item.row * in.y_stride + item.column) * (in.float_output != 0 ? 4 : 2));
    }
  }

  __device__ void StoreQuad(const Item& item, const float4& sum, float scale,
                            const Extra& extra) const {
    const float x = sum.x * scale + Low(extra.bias.x) + Low(extra.residual.x);
    const float y = sum.y * scale + High(extra.bias.x) + High(extra.residual.x);
    const float z = sum.z * scale + Low(extra.bias.y) + Low(extra.residual.y);
    const float w = sum.w * scale + High(extra.bias.y) + High(extra.residual.y);
    const int64_t at = item.row * in.y_stride + item.column;
    if (in.float_output != 0) {
      *reinterpret_cast<float4*>(static_cast<float*>(in.y) + at) = {x, y, z, w};
    } else {
      *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(in.y) + at) = {PackPair(x, y),
                                                                           PackPair(z, w)};
    }
  }
};

template <int kChunk, int kChunks, int kBoxes>
__global__ void __launch_bounds__(kThreads, kChunk* kChunks > 176 ? 1 : 2)
    DecodeLinearKernel(const __grid_constant__ CUtensorMap weights,
                       const __grid_constant__ CUtensorMap x, const __grid_constant__ Launched in) {
  extern __shared__ uint8_t unaligned[];
  const uint32_t shared = (SharedAddress(unaligned) + 1023) & ~1023u;
  const Layout layout = LayoutOf(in, kChunk * kChunks, kBoxes);
  const uint32_t full = shared + layout.barriers;
  const uint32_t empty = full + 8 * kMaxStages;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int rank = static_cast<int>(blockIdx.x) % in.split;
  const int first_tile = static_cast<int>(blockIdx.x) / in.split;
  const int tile_stride = static_cast<int>(gridDim.x) / in.split;
  const StepRange steps = StepsOf(in, rank);

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < in.stages; ++stage) {
      InitBarrier(full + 8 * stage, 1);
      InitBarrier(empty + 8 * stage, kConsumers / 32);
    }
    FenceBarrierInit();
  }
  uint32_t* const norm =
      reinterpret_cast<uint32_t*>(unaligned + (shared - SharedAddress(unaligned)) + layout.norm);
  __syncthreads();
  if (warp == kConsumers / 32) {
    if (lane == 0) {
      PrefetchMap(&weights);
      PrefetchMap(&x);
      Producer<kChunk, kChunks, kBoxes>{&weights, &x,    in,    layout,     shared,
                                        full,     empty, steps, first_tile, tile_stride}
          .Run();
    }
    return;
  }
  if (in.norm != nullptr) {  // constant, so read before the previous kernel has ended
    const int first = steps.first * kBoxes * kBoxInputs;
    const int pairs = steps.count * kBoxes * kBoxInputs / 2;
    for (int i = static_cast<int>(threadIdx.x); i < pairs; i += kConsumers) {
      const bool inside = first + 2 * i < in.inputs;
      norm[i] = inside ? reinterpret_cast<const uint32_t*>(in.norm + first)[i] : 0;
    }
    NamedBarrier(kConsumerBarrier, kConsumers);
  }
  Consumer<kChunk, kChunks, kBoxes> consumer{
      in, layout, shared, full, empty, in.norm != nullptr ? norm : nullptr, warp, lane};
  if (in.split > 1) consumer.Touch(first_tile, rank);
  WaitForPreviousKernels();
  if (in.split > 1) {
    consumer.Multiply(steps.count);
    consumer.FinishTogether(first_tile, rank);
  } else {
    for (int tile = first_tile; tile < in.tiles; tile += tile_stride) {
      consumer.Multiply(steps.count);
      consumer.Finish(tile);
    }
  }
}

}  // namespace
}  // namespace triptych::kernels
