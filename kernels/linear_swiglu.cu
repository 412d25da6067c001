// gate_up and SwiGLU in one kernel for many rows: a product whose tiles hold 128 columns of gate
// and the same 128 of up, so that the thread which has a gate has its up, and only their product is
// written. Persistent, warp-specialised: one warp feeds four stages of shared memory through the
// copy engine, two warpgroups multiply with wgmma. Two blocks of a cluster have the same columns;
// each fetches half of the weights for both.

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/linear_swiglu.h"

namespace triptych::kernels {
namespace {

constexpr int kRows = 128;     // of a tile
constexpr int kColumns = 128;  // of a tile's result; twice as many outputs
constexpr int kDepth = 64;     // elements of k in a stage: the 128 bytes of the swizzle
constexpr int kStages = 4;
constexpr int kConsumers = 2;  // warpgroups of 64 rows
constexpr int kThreads = 128 * (1 + kConsumers);
constexpr int kPair = 2;  // blocks of a cluster
constexpr int kRowsBytes = kRows * kDepth * 2, kColumnsBytes = kColumns * kDepth * 2;
constexpr int kStageBytes = kRowsBytes + 2 * kColumnsBytes;
// Pairs of row tiles that are walked together, for all columns, so that both stay in the L2.
constexpr int kPairsTogether = 8;

struct Launched {
  CUtensorMap x, weight;
  const __nv_bfloat16* bias;  // null, or [2n]
  __nv_bfloat16* out;
  int64_t out_stride;
  int rows, n, depth_steps;
  int pairs, column_tiles;
};

struct Shared {
  alignas(1024) uint8_t stages[kStages][kStageBytes];
  uint64_t full[kStages], empty[kStages];
};

__device__ inline uint32_t AddressOf(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ inline void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(AddressOf(barrier)), "r"(arrivals));
}
__device__ inline void Wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra end;\n"
      "bra again;\n"
      "end:\n"
      "}" ::"r"(AddressOf(barrier)),
      "r"(parity)
      : "memory");
}
__device__ inline void Expect(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(AddressOf(barrier)),
               "r"(bytes)
               : "memory");
}
// On the same barrier of block `rank` of the cluster. It orders no memory: what was read of a stage
// was read by wgmma, which has ended. An arrival that released memory would wait for the device.
__device__ inline void ArriveAt(uint64_t* barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(AddressOf(barrier)),
      "r"(rank)
      : "memory");
}
__device__ inline void Load(const CUtensorMap* map, void* to, int column, int row,
                            uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(AddressOf(to)),
      "l"(map), "r"(column), "r"(row), "r"(AddressOf(barrier))
      : "memory");
}
// To the same place of every block of the cluster, with the barrier of each.
__device__ inline void LoadForBoth(const CUtensorMap* map, void* to, int column, int row,
                                   uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(AddressOf(to)),
      "l"(map), "r"(column), "r"(row), "r"(AddressOf(barrier)),
      "h"(static_cast<uint16_t>((1 << kPair) - 1))
      : "memory");
}

// Rows of 128 bytes in groups of 8 that lie 1,024 bytes apart, swizzled.
__device__ inline uint64_t Describe(uint32_t address) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | (uint64_t{1} << 16) |
         (uint64_t{64} << 32) | (uint64_t{1} << 62);
}

// d[64, 256] = or += a[64, 16] b[256, 16]^T, both in shared memory.
__device__ inline void MultiplyAsync(float (&d)[128], uint64_t a, uint64_t b, int keep) {
  asm volatile(
      "{ .reg .pred keep; setp.ne.b32 keep, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "
      "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "
      "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, "
      "%66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "
      "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, "
      "%98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "
      "%125, %126, %127"
      "}, %128, %129, keep, 1, 1, 0, 0; }"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),
        "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
        "+f"(d[63]), "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]),
        "+f"(d[70]), "+f"(d[71]), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]),
        "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]),
        "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]),
        "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]),
        "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]),
        "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]),
        "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]),
        "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]),
        "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
      : "l"(a), "l"(b), "r"(keep));
}

// Keeps what is done with results behind the wait for them: no register of theirs ties them to it.
__device__ inline void Settle(float (&d)[128]) {
#pragma unroll
  for (int i = 0; i < 128; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Where a cluster's turn `work` lies.
struct Tile {
  int row, column;  // first of this block
};

__device__ inline Tile TileAt(const Launched& in, int work, int rank) {
  const int group = work / (kPairsTogether * in.column_tiles);
  const int first = group * kPairsTogether, pairs = min(kPairsTogether, in.pairs - first);
  const int rest = work - group * kPairsTogether * in.column_tiles;
  return {((first + rest % pairs) * kPair + rank) * kRows, rest / pairs * kColumns};
}

__device__ void Produce(const Launched& in, Shared& shared, int rank, int works) {
  int stage = 0;
  uint32_t parity = 1;  // a fresh barrier counts as passed
  for (int work = static_cast<int>(blockIdx.x) / kPair; work < works;
       work += static_cast<int>(gridDim.x) / kPair) {
    const Tile tile = TileAt(in, work, rank);
    for (int step = 0; step < in.depth_steps; ++step) {
      Wait(&shared.empty[stage], parity);
      uint64_t* full = &shared.full[stage];
      uint8_t* to = shared.stages[stage];
      Expect(full, kStageBytes);
      Load(&in.x, to, step * kDepth, tile.row, full);
      // Block 0 brings the gates, block 1 the ups.
      LoadForBoth(&in.weight, to + kRowsBytes + rank * kColumnsBytes, step * kDepth,
                  tile.column + rank * in.n, full);
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
}

__device__ inline float Silu(float x) { return __fdividef(x, 1 + __expf(-x)); }

__device__ inline uint32_t PackPair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Lane q of a quad has word q of columns 8 i of four vectors i; it gets the whole of vector q.
__device__ inline uint4 TransposeQuad(uint32_t (&v)[4], int quad) {
  const bool odd = quad & 1, upper = quad & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t got = __shfl_xor_sync(~0u, odd ? v[i] : v[i + 1], 1);
    (odd ? v[i] : v[i + 1]) = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t got = __shfl_xor_sync(~0u, upper ? v[i] : v[i + 2], 2);
    (upper ? v[i] : v[i + 2]) = got;
  }
  return {v[0], v[1], v[2], v[3]};
}

__device__ void Store(const Launched& in, const Tile& tile, int consumer, const float (&d)[128]) {
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4,
            lane = static_cast<int>(threadIdx.x) % 32;
  const int quad = lane % 4, first_row = tile.row + consumer * 64 + warp * 16 + lane / 4;
#pragma unroll
  for (int group = 0; group < kColumns / 32; ++group) {
    float bias[2][4][2] = {};
    if (in.bias != nullptr) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = tile.column + group * 32 + i * 8 + quad * 2;
        if (column >= in.n) continue;
        LoadPack(in.bias + column, bias[0][i]);
        LoadPack(in.bias + in.n + column, bias[1][i]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = (group * 4 + i) * 4 + half * 2;
        float value[2];
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          // Rounded as a product that is stored would be.
          const float gate = Widen(Narrow<__nv_bfloat16>(d[at + k] + bias[0][i][k]));
          const float up = Widen(Narrow<__nv_bfloat16>(d[64 + at + k] + bias[1][i][k]));
          value[k] = Silu(gate) * up;
        }
        words[i] = PackPair(value[0], value[1]);
      }
      const uint4 vector = TransposeQuad(words, quad);
      const int row = first_row + half * 8, column = tile.column + group * 32 + quad * 8;
      if (row >= in.rows || column >= in.n) continue;
      *reinterpret_cast<uint4*>(in.out + row * in.out_stride + column) = vector;
    }
  }
}

__device__ void Consume(const Launched& in, Shared& shared, int rank, int works) {
  const int consumer = static_cast<int>(threadIdx.x) / 128 - 1;
  const bool speaks = threadIdx.x % 128 == 0;
  float d[128];
  int stage = 0;
  uint32_t parity = 0;
  for (int work = static_cast<int>(blockIdx.x) / kPair; work < works;
       work += static_cast<int>(gridDim.x) / kPair) {
    int before = -1;  // the stage whose product may still run
    for (int step = 0; step < in.depth_steps; ++step) {
      Wait(&shared.full[stage], parity);
      const uint32_t base = AddressOf(shared.stages[stage]);
      const uint64_t a = Describe(base + consumer * (kRowsBytes / kConsumers));
      const uint64_t b = Describe(base + kRowsBytes);
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) MultiplyAsync(d, a + 2 * k, b + 2 * k, step | k);
      asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
      asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
      if (before >= 0 && speaks) {
        for (int block = 0; block < kPair; ++block) ArriveAt(&shared.empty[before], block);
      }
      before = stage;
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    Settle(d);
    if (speaks) {
      for (int block = 0; block < kPair; ++block) ArriveAt(&shared.empty[before], block);
    }
    Store(in, TileAt(in, work, rank), consumer, d);
  }
}

__global__ void __cluster_dims__(kPair, 1, 1) __launch_bounds__(kThreads, 1)
    SwiGluProductKernel(const __grid_constant__ Launched in) {
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - AddressOf(memory) % 1024) % 1024);
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      InitBarrier(&shared.full[stage], 1);
      InitBarrier(&shared.empty[stage], kPair * kConsumers);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
  const int works = in.pairs * in.column_tiles;
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 0) Produce(in, shared, static_cast<int>(rank), works);
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    Consume(in, shared, static_cast<int>(rank), works);
  }
  // Nobody leaves while the other may write to it.
  asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
}

using Encode = decltype(&cuTensorMapEncodeTiled);

// From the driver that the runtime has loaded, so that nothing links libcuda.
Encode FindEncode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<Encode>(function);
}

// Boxes of 128 rows by kDepth columns of a row-major matrix; zeros outside it.
bool MakeMap(const void* matrix, int64_t rows, int64_t columns, int64_t stride, CUtensorMap* map) {
  static const Encode encode = FindEncode();
  if (encode == nullptr) return false;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[2] = {kDepth, kRows};
  const cuuint32_t steps[2] = {1, 1};
  return encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(matrix), sizes, strides,
                box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace

int internal::SwiGluProductCuda(const SwiGluProductArgs& args, const Stream& on) {
  static_assert(kRows == kColumns, "one box for both");
  if (args.rows > INT32_MAX / 2 || args.n > INT32_MAX / 4 || args.n % 8 != 0 ||
      args.out_stride % 8 != 0 || !IsAligned(args.out, 16)) {
    return cudaErrorInvalidValue;
  }
  Launched in = {};
  if (!MakeMap(args.x, args.rows, args.inputs, args.x_stride, &in.x) ||
      !MakeMap(args.weight, 2 * args.n, args.inputs, args.inputs, &in.weight)) {
    return cudaErrorInvalidValue;
  }
  in.bias = static_cast<const __nv_bfloat16*>(args.bias);
  in.out = static_cast<__nv_bfloat16*>(args.out);
  in.out_stride = args.out_stride;
  in.rows = static_cast<int>(args.rows);
  in.n = static_cast<int>(args.n);
  in.depth_steps = static_cast<int>((args.inputs + kDepth - 1) / kDepth);
  in.pairs = (in.rows + kPair * kRows - 1) / (kPair * kRows);
  in.column_tiles = (in.n + kColumns - 1) / kColumns;
  constexpr int kBytes = sizeof(Shared) + 1024;
  cudaError_t error = cudaFuncSetAttribute(SwiGluProductKernel,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  int device = 0, multiprocessors = 0;
  if ((error = cudaGetDevice(&device)) != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const int clusters = std::min(multiprocessors / kPair, in.pairs * in.column_tiles);
  SwiGluProductKernel<<<clusters * kPair, kThreads, kBytes,
                        static_cast<cudaStream_t>(CudaStreamOf(on))>>>(in);
  return cudaPeekAtLastError();
}

}  // namespace triptych::kernels
