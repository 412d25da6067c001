// One block a part of a row's pages and KV head; one warp a page at a time. Along head_dim any
// order of summation will do, so that 16 bytes of a key are four fragments of one thread, and
// values are paired by token with byte permutations: pages go from memory straight into the
// registers of the matrix instructions, the next one while one is computed, the first before the
// previous kernel has ended. Query heads are the eight columns of every product.

#include <cuda_runtime.h>

#include "kernels/decode_attention.h"
#include "kernels/hopper.cuh"
#include "kernels/rope_append_angle.h"

namespace triptych::kernels {
namespace {

constexpr int kWarps = kDecodeAttentionWarps;
constexpr int kThreads = kWarps * 32;
constexpr int kHeadDim = 128;
constexpr int kHalf = kHeadDim / 2;
constexpr int kPage = 16;
constexpr int kMaxCluster = 8;
constexpr int kGroup = 8;  // query heads of a KV head, at most
constexpr int kQPitch = kHeadDim + 8;
constexpr int kSumPitch = kHeadDim + 4;
constexpr float kNothing = -1e30f;  // below any score, and its differences stay finite

struct Launched {
  const __nv_bfloat16* qkv;
  __nv_bfloat16* out;
  __nv_bfloat16* pool;
  const int32_t* positions;
  const int32_t* slots;
  const int32_t* pages;
  const DecodePart* parts;
  float* partial;
  int* arrived;
  int64_t qkv_stride;
  int64_t out_stride;
  int64_t positions_stride;
  int64_t num_blocks;
  int heads;
  int kv_heads;
  int group;
  int early;
  int cluster;
  float scale;  // of scores, times log2(e)
  float inv_freq[kHalf];
  uint8_t axis[kHalf];
};

struct Shared {
  alignas(16) __nv_bfloat16 q[kGroup * kQPitch];
  alignas(16) __nv_bfloat16 new_key[kHeadDim];
  alignas(16) __nv_bfloat16 new_value[kHeadDim];
  SineCosine angles[kHalf];
  alignas(16) float sums[kWarps][kGroup][kSumPitch];
  float2 stats[kWarps][kGroup];  // largest, sum
  // Of the query heads that this block adds up, what each block of the cluster has.
  alignas(16) float block_sums[kGroup][kHeadDim];
  float2 block_stats[kGroup];
  alignas(8) uint64_t received;
  int last;
};

// One page of one KV head, as a warp holds it: lane = 4 g + t.
struct PageRegisters {
  uint4 key[2][4];    // token g and g + 8; elements 32 c + 8 t ...
  uint4 value[4][2];  // tokens 2 t, 2 t + 1, 2 t + 8, 2 t + 9; elements 64 s + 8 g ...
};

__device__ inline uint32_t Word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
__device__ inline uint32_t PackPair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline uint4 LoadOnce(const __nv_bfloat16* from, uint64_t policy) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from), "l"(policy));
  return v;
}

__device__ inline void LoadPage(const Launched& in, int block, int kv_head, int lane,
                                PageRegisters& page) {
  const int64_t token_elements = int64_t{in.kv_heads} * kHeadDim;
  const __nv_bfloat16* key = in.pool + block * (2 * kPage * token_elements) + kv_head * kHeadDim;
  const __nv_bfloat16* value = key + kPage * token_elements;
  const int g = lane / 4, t = lane % 4;
  const uint64_t once = EvictFirst();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      page.key[half][c] = LoadOnce(key + (g + 8 * half) * token_elements + 32 * c + 8 * t, once);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int token = 2 * t + i % 2 + i / 2 * 8;
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      page.value[i][s] = LoadOnce(value + token * token_elements + 64 * s + 8 * g, once);
    }
  }
}

// Puts the newest token, whose key and value lie in shared memory, into its row of the page, and
// zeros the values of rows past it: 0 times what was never written must be 0.
__device__ inline void PatchPage(const __nv_bfloat16* new_key, const __nv_bfloat16* new_value,
                                 int newest, int lane, PageRegisters& page) {
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (g + 8 * half == newest) {
        page.key[half][c] = *reinterpret_cast<const uint4*>(new_key + 32 * c + 8 * t);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int token = 2 * t + i % 2 + i / 2 * 8;
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      if (token == newest) {
        page.value[i][s] = *reinterpret_cast<const uint4*>(new_value + 64 * s + 8 * g);
      } else if (token > newest) {
        page.value[i][s] = {0, 0, 0, 0};
      }
    }
  }
}

// Running softmax of a warp: for heads 2 t and 2 t + 1.
struct Running {
  float largest[2] = {kNothing, kNothing};
  float sum[2] = {0, 0};    // of this thread's tokens alone
  float out[2][4][4] = {};  // [s][j]: elements 64 s + 8 g + 2 j and the next, by head
};

__device__ inline void AttendPage(const PageRegisters& page, const uint4 (&q)[4], int tokens,
                                  float scale, int lane, Running& run) {
  const int g = lane / 4;
  float score[4] = {0, 0, 0, 0}, other[4] = {0, 0, 0, 0};  // two chains of products
#pragma unroll
  for (int c = 0; c < 4; ++c) {
#pragma unroll
    for (int h = 0; h < 4; h += 2) {
      MultiplyTile(h == 0 ? score : other, Word(page.key[0][c], h), Word(page.key[1][c], h),
                   Word(page.key[0][c], h + 1), Word(page.key[1][c], h + 1), Word(q[c], h),
                   Word(q[c], h + 1));
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) score[i] += other[i];
  const bool low = g < tokens, high = g + 8 < tokens;
  float factor[2], weight[4];
#pragma unroll
  for (int head = 0; head < 2; ++head) {
    const float first = low ? score[head] * scale : kNothing;
    const float second = high ? score[2 + head] * scale : kNothing;
    float top = fmaxf(first, second);
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 4));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 8));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 16));
    top = fmaxf(top, run.largest[head]);
    factor[head] = exp2f(run.largest[head] - top);
    run.largest[head] = top;
    weight[head] = low ? exp2f(first - top) : 0.0f;
    weight[2 + head] = high ? exp2f(second - top) : 0.0f;
    run.sum[head] = run.sum[head] * factor[head] + weight[head] + weight[2 + head];
  }
  if (__any_sync(~0u, factor[0] != 1.0f || factor[1] != 1.0f)) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int n = 0; n < 4; ++n) run.out[i / 4][i % 4][n] *= factor[n % 2];
    }
  }
  const uint32_t b0 = TransposeMatrix(PackPair(weight[0], weight[1]));
  const uint32_t b1 = TransposeMatrix(PackPair(weight[2], weight[3]));
#pragma unroll
  for (int s = 0; s < 2; ++s) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float(&out)[4] = run.out[s][j];
      const uint32_t v0 = Word(page.value[0][s], j), v1 = Word(page.value[1][s], j);
      const uint32_t v2 = Word(page.value[2][s], j), v3 = Word(page.value[3][s], j);
      MultiplyTile(out, __byte_perm(v0, v1, 0x5410), __byte_perm(v0, v1, 0x7632),
                   __byte_perm(v2, v3, 0x5410), __byte_perm(v2, v3, 0x7632), b0, b1);
    }
  }
}

// Rotates the row's query heads and its new key into shared memory, one warp a head at a time; the
// part that has the newest token also stores key and value.
__device__ inline void PrepareRow(const Launched& in, const DecodePart& part, int kv_head,
                                  bool newest, Shared& shared) {
  constexpr int kTurns = (kGroup + 2 + kWarps - 1) / kWarps;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const __nv_bfloat16* row = in.qkv + part.row * in.qkv_stride;
  const int32_t slot = newest ? in.slots[part.row] : -1;
  const bool stored = slot >= 0 && slot < in.num_blocks * kPage;
  const int64_t token_elements = int64_t{in.kv_heads} * kHeadDim;
  __nv_bfloat16* key =
      in.pool + (stored ? int64_t{slot / kPage} * 2 * kPage + slot % kPage : 0) * token_elements +
      kv_head * kHeadDim;
  uint32_t low[kTurns], high[kTurns];
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int i = warp + turn * kWarps;  // query heads, then the key, then the value
    const int head = i < in.group    ? kv_head * in.group + i
                     : i == in.group ? in.heads + kv_head
                                     : in.heads + in.kv_heads + kv_head;
    low[turn] = high[turn] = 0;
    if (i > in.group + 1 || (i >= in.group && !newest)) continue;
    const uint32_t* from = reinterpret_cast<const uint32_t*>(row + head * kHeadDim);
    low[turn] = __ldcg(from + lane);
    high[turn] = __ldcg(from + 32 + lane);
  }
  const SineCosine a0 = shared.angles[2 * lane], a1 = shared.angles[2 * lane + 1];
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int i = warp + turn * kWarps;
    if (i > in.group + 1 || (i >= in.group && !newest)) continue;
    uint32_t first = low[turn], second = high[turn];
    if (i <= in.group) {
      const float x0 = __uint_as_float(first << 16), x1 = __uint_as_float(first & 0xffff0000u);
      const float y0 = __uint_as_float(second << 16), y1 = __uint_as_float(second & 0xffff0000u);
      first = PackPair(x0 * a0.cosine - y0 * a0.sine, x1 * a1.cosine - y1 * a1.sine);
      second = PackPair(y0 * a0.cosine + x0 * a0.sine, y1 * a1.cosine + x1 * a1.sine);
    }
    __nv_bfloat16* to = i < in.group    ? shared.q + i * kQPitch
                        : i == in.group ? shared.new_key
                                        : shared.new_value;
    reinterpret_cast<uint32_t*>(to)[lane] = first;
    reinterpret_cast<uint32_t*>(to)[32 + lane] = second;
    if (i < in.group || !stored) continue;
    uint32_t* page =
        reinterpret_cast<uint32_t*>(i == in.group ? key : key + kPage * token_elements);
    page[lane] = first;
    page[32 + lane] = second;
  }
  // Columns of heads that do not exist.
  for (int i = in.group * kQPitch + static_cast<int>(threadIdx.x); i < kGroup * kQPitch;
       i += kThreads) {
    shared.q[i] = __float2bfloat16_rn(0.0f);
  }
}

// What was summed of one query head: `lane` holds elements 4 lane ... + 3.
struct HeadSum {
  float4 out = {0, 0, 0, 0};
  float largest = kNothing;
  float sum = 0;
};

// Adds up to kCount sums, the first `count` of them, in their order; all but the last steps of it
// side by side.
template <int kCount>
__device__ inline void AddSums(const float4 (&out)[kCount], const float2 (&stats)[kCount],
                               int count, HeadSum& to) {
  float top = to.largest, factor[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i < count) top = fmaxf(top, stats[i].x);
  }
  const float keep = exp2f(to.largest - top);
#pragma unroll
  for (int i = 0; i < kCount; ++i) factor[i] = i < count ? exp2f(stats[i].x - top) : 0.0f;
  to.largest = top;
  to.sum *= keep;
  to.out = {to.out.x * keep, to.out.y * keep, to.out.z * keep, to.out.w * keep};
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i >= count) break;
    to.sum = fmaf(stats[i].y, factor[i], to.sum);
    to.out.x = fmaf(out[i].x, factor[i], to.out.x);
    to.out.y = fmaf(out[i].y, factor[i], to.out.y);
    to.out.z = fmaf(out[i].z, factor[i], to.out.z);
    to.out.w = fmaf(out[i].w, factor[i], to.out.w);
  }
}

__device__ inline void StoreHead(const Launched& in, int row, int head, int lane,
                                 const HeadSum& from) {
  const float scale = 1.0f / from.sum;
  const uint2 packed = {PackPair(from.out.x * scale, from.out.y * scale),
                        PackPair(from.out.z * scale, from.out.w * scale)};
  *reinterpret_cast<uint2*>(in.out + row * in.out_stride + head * kHeadDim + 4 * lane) = packed;
}

// A part's results in `partial`: kGroup rows of kHeadDim sums, then kGroup pairs (largest, sum).
constexpr int kPartFloats = kGroup * kHeadDim + kGroup * 2;

__device__ inline float* PartOf(const Launched& in, int slot, int kv_head) {
  return in.partial + (int64_t{slot} * in.kv_heads + kv_head) * kPartFloats;
}

// The block that arrives last adds up all parts of its row and KV head, in their order.
__device__ inline void MergeParts(const Launched& in, const DecodePart& part, int kv_head) {
  constexpr int kAtOnce = 16;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int head = warp; head < in.group; head += kWarps) {
    HeadSum merged;
    for (int from = 0; from < part.parts; from += kAtOnce) {
      float4 out[kAtOnce];
      float2 stats[kAtOnce];
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) {
        if (from + n >= part.parts) break;
        const float* theirs = PartOf(in, part.first_slot + from + n, kv_head);
        out[n] = __ldcg(reinterpret_cast<const float4*>(theirs + head * kHeadDim + 4 * lane));
        stats[n] = __ldcg(reinterpret_cast<const float2*>(theirs + kGroup * kHeadDim + 2 * head));
      }
      AddSums(out, stats, part.parts - from, merged);
    }
    StoreHead(in, part.row, kv_head * in.group + head, lane, merged);
  }
}

// Stores a head of a part: into the output if the part is all of its row, else for MergeParts.
__device__ inline void StorePart(const Launched& in, const DecodePart& part, int kv_head, int head,
                                 int lane, const HeadSum& merged) {
  if (part.parts == 1) {
    StoreHead(in, part.row, kv_head * in.group + head, lane, merged);
    return;
  }
  float* mine = PartOf(in, part.slot, kv_head);
  *reinterpret_cast<float4*>(mine + head * kHeadDim + 4 * lane) = merged.out;
  if (lane == 0) {
    *reinterpret_cast<float2*>(mine + kGroup * kHeadDim + 2 * head) = {merged.largest, merged.sum};
  }
}

__device__ inline HeadSum MergeWarps(const Shared& shared, int head, int lane) {
  float4 out[kWarps];
  float2 stats[kWarps];
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    out[w] = *reinterpret_cast<const float4*>(&shared.sums[w][head][4 * lane]);
    stats[w] = shared.stats[w][head];
  }
  HeadSum merged;
  AddSums(out, stats, kWarps, merged);
  return merged;
}

// Query heads that block `rank` of a cluster adds up: rank, rank + cluster, ...
__device__ inline int OwnedHeads(const Launched& in, int rank) {
  return (in.group - rank + in.cluster - 1) / in.cluster;
}

// The blocks of a cluster have something of every head: each sends it to the head's owner.
__device__ inline void MergeCluster(const Launched& in, const DecodePart& part, int kv_head,
                                    int rank, Shared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t received = SharedAddress(&shared.received);
  ClusterWait();  // every block has its barrier by now
  for (int head = warp; head < in.group; head += kWarps) {
    const HeadSum merged = MergeWarps(shared, head, lane);
    const int owner = head % in.cluster;
    const int slot = head / in.cluster * in.cluster + rank;
    const uint32_t barrier = ClusterAddress(received, owner);
    SendCluster4(ClusterAddress(SharedAddress(&shared.block_sums[slot][4 * lane]), owner),
                 merged.out, barrier);
    if (lane < 2) {
      SendCluster(ClusterAddress(SharedAddress(&shared.block_stats[slot]), owner) + 4 * lane,
                  lane == 0 ? merged.largest : merged.sum, barrier);
    }
  }
  WaitBarrier(received, 0);
  for (int own = warp; own < OwnedHeads(in, rank); own += kWarps) {
    float4 out[kMaxCluster];
    float2 stats[kMaxCluster];
#pragma unroll
    for (int peer = 0; peer < kMaxCluster; ++peer) {
      if (peer >= in.cluster) break;
      const int slot = own * in.cluster + peer;
      out[peer] = *reinterpret_cast<const float4*>(&shared.block_sums[slot][4 * lane]);
      stats[peer] = shared.block_stats[slot];
    }
    HeadSum merged;
    AddSums(out, stats, in.cluster, merged);
    StorePart(in, part, kv_head, own * in.cluster + rank, lane, merged);
  }
}

__device__ inline void FinishPart(const Launched& in, const DecodePart& part, int kv_head, int rank,
                                  Shared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (in.cluster > 1) {
    MergeCluster(in, part, kv_head, rank, shared);
  } else {
    for (int head = warp; head < in.group; head += kWarps) {
      StorePart(in, part, kv_head, head, lane, MergeWarps(shared, head, lane));
    }
  }
  if (part.parts == 1) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    int* arrived = in.arrived + part.row * in.kv_heads + kv_head;
    shared.last = atomicAdd(arrived, 1) == part.parts * in.cluster - 1;
    if (shared.last) *arrived = 0;
  }
  __syncthreads();
  if (shared.last == 0) return;
  __threadfence();
  MergeParts(in, part, kv_head);
}

__device__ inline void PrepareAngles(const Launched& in, int row, Shared& shared) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= kHalf) return;
  const int32_t position = in.positions[in.axis[i] * in.positions_stride + row];
  shared.angles[i] = RopeSineCosine(static_cast<float>(position) * in.inv_freq[i]);
}

// A warp's running sums, for FinishPart.
__device__ inline void StoreRunning(const Running& run, int warp, int lane, Shared& shared) {
#pragma unroll
  for (int head = 0; head < 2; ++head) {
    float sum = run.sum[head];
    sum += __shfl_xor_sync(~0u, sum, 4);
    sum += __shfl_xor_sync(~0u, sum, 8);
    sum += __shfl_xor_sync(~0u, sum, 16);
    const int column = lane % 4 * 2 + head;
    if (lane < 4) shared.stats[warp][column] = {run.largest[head], sum};
#pragma unroll
    for (int s = 0; s < 2; ++s) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float2* to =
            reinterpret_cast<float2*>(&shared.sums[warp][column][64 * s + lane / 4 * 8 + 2 * j]);
        *to = {run.out[s][j][head], run.out[s][j][2 + head]};
      }
    }
  }
}

__global__ void __launch_bounds__(kThreads, 2)
    DecodeAttentionKernel(const __grid_constant__ Launched in) {
  __shared__ Shared shared;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const DecodePart part = in.parts[blockIdx.x / in.cluster];
  if (part.row < 0) return;
  const int rank = static_cast<int>(blockIdx.x) % in.cluster;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int stride = kWarps * in.cluster;  // pages between two of a warp
  const bool newest = part.tokens > 0 && (part.pages - 1) % stride / kWarps == rank;
  // Everything but the new token was there before the previous kernel began.
  const int32_t* ids = in.pages + part.first_page;
  int at = rank * kWarps + warp;
  int id = at + lane * stride < part.pages ? ids[at + lane * stride] : 0;
  PageRegisters page[2];
  if (at < part.pages) LoadPage(in, __shfl_sync(~0u, id, 0), kv_head, lane, page[0]);
  PrepareAngles(in, part.row, shared);
  if (in.cluster > 1) {
    if (threadIdx.x == 0) {
      InitBarrier(SharedAddress(&shared.received), 1);
      ArriveExpecting(SharedAddress(&shared.received),
                      OwnedHeads(in, rank) * in.cluster * (kHeadDim * 4 + 8));
      FenceBarrierInit();
    }
    __syncwarp();
    ClusterArriveRelaxed();
  }
  __syncthreads();
  WaitForPreviousKernels();
  if (in.early != 0) LetNextKernelStart();
  PrepareRow(in, part, kv_head, newest, shared);
  __syncthreads();
  uint4 q[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    q[c] = *reinterpret_cast<const uint4*>(shared.q + lane / 4 * kQPitch + 32 * c + 8 * (lane % 4));
  }
  Running run;
  int turn = 0;
  // One page; the one after it is on its way into the other registers meanwhile.
  const auto attend = [&](PageRegisters& now, PageRegisters& after) {
    const int next = at + stride;
    if (next < part.pages) {
      if (++turn % 32 == 0) {
        id = next + lane * stride < part.pages ? ids[next + lane * stride] : 0;
      }
      LoadPage(in, __shfl_sync(~0u, id, turn % 32), kv_head, lane, after);
    }
    int tokens = kPage;
    if (newest && at == part.pages - 1) {
      tokens = part.tokens;
      PatchPage(shared.new_key, shared.new_value, tokens - 1, lane, now);
    }
    AttendPage(now, q, tokens, in.scale, lane, run);
    at = next;
  };
  while (at < part.pages) {
    attend(page[0], page[1]);
    if (at < part.pages) attend(page[1], page[0]);
  }
  LetNextKernelStart();
  StoreRunning(run, warp, lane, shared);
  __syncthreads();
  FinishPart(in, part, kv_head, rank, shared);
}

}  // namespace

int64_t DecodePartialBytes(int capacity, int kv_heads) {
  return int64_t{capacity} * kv_heads * kPartFloats * 4;
}

int internal::DecodeAttentionCuda(const DecodeAttentionArgs& args,
                                  const DecodeAttentionChoice& choice, bool pdl, void* stream) {
  const KvLayout& layout = args.layout;
  if (!DecodeAttentionServes(layout, args.heads) || choice.cluster < 1 ||
      choice.cluster > kMaxCluster) {
    return cudaErrorInvalidValue;
  }
  Launched in = {.qkv = static_cast<const __nv_bfloat16*>(args.qkv),
                 .out = static_cast<__nv_bfloat16*>(args.out),
                 .pool = static_cast<__nv_bfloat16*>(args.pool),
                 .positions = args.positions,
                 .slots = args.slots,
                 .pages = args.pages,
                 .parts = args.parts,
                 .partial = args.partial,
                 .arrived = args.arrived,
                 .qkv_stride = args.qkv_stride,
                 .out_stride = args.out_stride,
                 .positions_stride = args.positions_stride,
                 .num_blocks = args.num_blocks,
                 .heads = args.heads,
                 .kv_heads = layout.kv_heads,
                 .group = args.heads / layout.kv_heads,
                 .early = choice.early ? 1 : 0,
                 .cluster = choice.cluster,
                 .scale = 0.08838834764831845f * 1.4426950408889634f,
                 .inv_freq = {},
                 .axis = {}};
  for (int i = 0; i < kHalf; ++i) {
    in.inv_freq[i] = args.rope->inv_freq[i];
    in.axis[i] = args.rope->axis[i];
  }
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (pdl && choice.beside) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (choice.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {static_cast<unsigned>(choice.cluster), 1, 1};
  }
  const cudaLaunchConfig_t config = {
      .gridDim = dim3(static_cast<unsigned>(args.capacity * choice.cluster),
                      static_cast<unsigned>(layout.kv_heads)),
      .blockDim = dim3(kThreads),
      .dynamicSmemBytes = 0,
      .stream = static_cast<cudaStream_t>(stream),
      .attrs = attributes,
      .numAttrs = count};
  return cudaLaunchKernelEx(&config, DecodeAttentionKernel, in);
}

}  // namespace triptych::kernels
