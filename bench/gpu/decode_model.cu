#include <cuda_bf16.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>

#include "bench/gpu/decode_model.h"
#include "bench/gpu/timed_graph.h"
#include "kernels/hopper.cuh"

namespace triptych::bench {
namespace {

constexpr int kHeadDim = 128;
constexpr int kPage = 16;
constexpr int64_t kMaxParts = 1024;

__device__ uint32_t Scramble(uint64_t v) {
  v ^= v >> 33;
  v *= 0xff51afd7ed558ccdull;
  v ^= v >> 33;
  v *= 0xc4ceb9fe1a85ec53ull;
  return static_cast<uint32_t>(v >> 32);
}

// Uniform in offset +- scale.
__global__ void FillKernel(__nv_bfloat16* to, int64_t count, uint32_t seed, float scale,
                           float offset) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const float unit = static_cast<float>(Scramble(i * 4096 + seed)) * (2.0f / 4294967296.0f) - 1;
    to[i] = __float2bfloat16_rn(offset + scale * unit);
  }
}

__global__ void EmbedKernel(const __nv_bfloat16* table, const int32_t* tokens, int hidden,
                            __nv_bfloat16* x) {
  kernels::WaitForPreviousKernels();
  kernels::LetNextKernelStart();
  const uint4* from = reinterpret_cast<const uint4*>(table + int64_t{tokens[blockIdx.x]} * hidden);
  uint4* to = reinterpret_cast<uint4*>(x + int64_t{blockIdx.x} * hidden);
  for (int i = static_cast<int>(threadIdx.x); i < hidden / 8; i += static_cast<int>(blockDim.x)) {
    to[i] = from[i];
  }
}

// Larger values first, then smaller ids.
__device__ uint64_t Rank(float value, int id) {
  uint32_t bits = __float_as_uint(value);
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<uint64_t>(bits) << 32) | static_cast<uint32_t>(~id);
}

__global__ void __launch_bounds__(256)
    ArgMaxKernel(const float* logits, int vocab, uint64_t* best, int* arrived, int32_t* tokens) {
  __shared__ uint64_t warps[8];
  kernels::WaitForPreviousKernels();
  const float4* row = reinterpret_cast<const float4*>(logits + int64_t{blockIdx.y} * vocab);
  uint64_t top = 0;
  const int step = static_cast<int>(gridDim.x * blockDim.x);
#pragma unroll 4
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < vocab / 4; i += step) {
    const float4 v = row[i];
    top = max(max(max(top, Rank(v.x, 4 * i)), Rank(v.y, 4 * i + 1)),
              max(Rank(v.z, 4 * i + 2), Rank(v.w, 4 * i + 3)));
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    top = max(top, __shfl_xor_sync(~0u, top, offset));
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = top;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 0; w < 8; ++w) top = max(top, warps[w]);
  atomicMax(reinterpret_cast<unsigned long long*>(best + blockIdx.y), top);
  __threadfence();
  if (atomicAdd(arrived + blockIdx.y, 1) != static_cast<int>(gridDim.x) - 1) return;
  __threadfence();
  tokens[blockIdx.y] = static_cast<int32_t>(~static_cast<uint32_t>(
      atomicExch(reinterpret_cast<unsigned long long*>(best + blockIdx.y), 0ull)));
  arrived[blockIdx.y] = 0;
}

template <typename... Params, typename... Args>
void LaunchAfter(bool pdl, dim3 grid, int threads, cudaStream_t stream, void (*kernel)(Params...),
                 Args... args) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  const cudaLaunchConfig_t config = {.gridDim = grid,
                                     .blockDim = dim3(static_cast<unsigned>(threads)),
                                     .dynamicSmemBytes = 0,
                                     .stream = stream,
                                     .attrs = &attribute,
                                     .numAttrs = pdl ? 1u : 0u};
  CheckCuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), "launch");
}

// Everything small lies together, as in an engine's arenas: pages that were not touched for long
// cost microseconds of address translation.
void* TakeSmall(int64_t bytes) {
  static char* arena = nullptr;
  static int64_t used = 0;
  constexpr int64_t kArena = 256 << 20;
  if (arena == nullptr) {
    CheckCuda(cudaMalloc(reinterpret_cast<void**>(&arena), kArena), "malloc");
    CheckCuda(cudaMemset(arena, 0, kArena), "clear");
  }
  void* taken = arena + used;
  used += (bytes + 255) / 256 * 256;
  if (used > kArena) std::abort();
  return taken;
}

template <typename T>
T* Allocate(int64_t count) {
  return static_cast<T*>(TakeSmall(count * static_cast<int64_t>(sizeof(T))));
}

template <typename T>
void Upload(T* to, const std::vector<T>& from) {
  CheckCuda(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
}

}  // namespace

int64_t ModelShape::weight_bytes() const {
  const int64_t layer =
      qkv() * hidden + int64_t{heads} * kHeadDim * hidden + int64_t{3} * mlp * hidden;
  return 2 * (layers * layer + int64_t{vocab} * hidden);
}

ModelShape Shape7B() {
  return {.name = "7b",
          .layers = 28,
          .hidden = 3584,
          .heads = 28,
          .kv_heads = 4,
          .mlp = 18944,
          .vocab = 152064};
}
ModelShape Shape3B() {
  return {.name = "3b",
          .layers = 36,
          .hidden = 2048,
          .heads = 16,
          .kv_heads = 2,
          .mlp = 11008,
          .vocab = 151936};
}

void* DecodeModel::Random(int64_t elements, float scale, float offset) {
  __nv_bfloat16* memory = nullptr;
  if (elements < (1 << 18)) {
    memory = static_cast<__nv_bfloat16*>(TakeSmall(elements * 2));
  } else {
    CheckCuda(cudaMalloc(reinterpret_cast<void**>(&memory), elements * 2), "malloc");
  }
  FillKernel<<<2048, 256>>>(memory, elements, seed_++ * 7919u, scale, offset);
  CheckCuda(cudaGetLastError(), "fill");
  return memory;
}

DecodeModel::DecodeModel(const ModelShape& shape, int max_rows, int64_t max_tokens)
    : shape_(shape), max_rows_(max_rows) {
  cudaDeviceProp properties;
  CheckCuda(cudaGetDeviceProperties(&properties, 0), "device");
  sm_count_ = properties.multiProcessorCount;
  const int64_t hidden = shape.hidden, attended = int64_t{shape.heads} * kHeadDim;
  const auto matrix = [&](int64_t outputs, int64_t inputs) {
    return Random(outputs * inputs, std::sqrt(3.0f / static_cast<float>(inputs)), 0);
  };
  num_blocks_ = max_tokens / kPage + max_rows + 1;
  for (int l = 0; l < shape.layers; ++l) {
    layers_.push_back({.qkv = matrix(shape.qkv(), hidden),
                       .qkv_bias = Random(shape.qkv(), 0.5f, 0),
                       .o = matrix(hidden, attended),
                       .gate_up = matrix(2 * int64_t{shape.mlp}, hidden),
                       .down = matrix(hidden, shape.mlp),
                       .attention_norm = Random(hidden, 0.5f, 1),
                       .mlp_norm = Random(hidden, 0.5f, 1)});
    pools_.push_back(Random(pool_bytes() / 2, 1, 0));
  }
  head_ = matrix(shape.vocab, hidden);
  embedding_ = Random(shape.vocab * hidden, 1, 0);
  norm_ = Random(hidden, 0.5f, 1);
  x = Allocate<__nv_bfloat16>(max_rows * hidden);
  qkv = Allocate<__nv_bfloat16>(max_rows * shape.qkv());
  attention = Allocate<__nv_bfloat16>(max_rows * attended);
  mlp = Allocate<__nv_bfloat16>(max_rows * int64_t{shape.mlp});
  tokens = Allocate<int32_t>(max_rows);
  positions_ = Allocate<int32_t>(3 * max_rows);
  slots_ = Allocate<int32_t>(max_rows);
  token_begin_ = Allocate<int32_t>(max_rows);
  page_begin_ = Allocate<int32_t>(max_rows + 1);
  pages_ = Allocate<int32_t>(num_blocks_);
  parts_ = Allocate<kernels::DecodePart>(kMaxParts);
  partial_ = Allocate<float>(kernels::DecodePartialBytes(kMaxParts, shape.kv_heads) / 4);
  arrived_ = Allocate<int>(int64_t{max_rows} * shape.kv_heads);
  best_ = Allocate<uint64_t>(max_rows);
  best_arrived_ = Allocate<int>(max_rows);
  logits = Allocate<float>(max_rows * int64_t{shape.vocab});
  rope_ = *kernels::MakeRopeTable(kHeadDim, 1e6, {16, 24, 24});
  CheckCuda(cudaDeviceSynchronize(), "filling");
}

int64_t DecodeModel::pool_bytes() const {
  return num_blocks_ * 2 * kPage * shape_.kv_heads * kHeadDim * 2;
}

void DecodeModel::SetRows(const std::vector<int32_t>& lengths, const StepChoices& choices) {
  rows_ = static_cast<int>(lengths.size());
  if (lengths_ != lengths) {
    lengths_ = lengths;
    std::vector<int32_t> blocks(num_blocks_);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937(7));
    std::vector<int32_t> positions(3 * rows_), slots, token_begin, ids;
    host_page_begin_ = {0};
    for (int r = 0; r < rows_; ++r) {
      const int32_t newest = lengths[r] - 1;
      for (int axis = 0; axis < 3; ++axis) positions[axis * rows_ + r] = newest - 7 * axis;
      const int32_t begin = host_page_begin_.back();
      host_page_begin_.push_back(begin + (lengths[r] + kPage - 1) / kPage);
      slots.push_back(blocks[begin + newest / kPage] * kPage + newest % kPage);
      token_begin.push_back(newest);
      ids.push_back((r * 9973 + 17) % shape_.vocab);
    }
    if (host_page_begin_.back() > num_blocks_) std::abort();
    host_pages_.assign(blocks.begin(), blocks.begin() + host_page_begin_.back());
    Upload(positions_, positions);
    Upload(slots_, slots);
    Upload(token_begin_, token_begin);
    Upload(page_begin_, host_page_begin_);
    Upload(pages_, host_pages_);
    Upload(tokens, ids);
  }
  // Fixed a number of rows, as in an engine.
  capacity_ = choices.attention.target + rows_;
  std::vector<kernels::DecodePart> parts(capacity_);
  kernels::PlanDecodeParts(lengths_, host_page_begin_, kPage, choices.attention,
                           absl::MakeSpan(parts));
  Upload(parts_, parts);
}

int64_t DecodeModel::OpBytes(DecodeOp op) const {
  const kernels::DecodeLinearArgs args = Linear(op, 0, 1);
  return args.inputs * args.outputs * 2;
}

kernels::DecodeLinearArgs DecodeModel::Linear(DecodeOp op, int layer, int rows) const {
  const LayerWeights& w = layers_[layer];
  const int64_t hidden = shape_.hidden, attended = int64_t{shape_.heads} * kHeadDim;
  kernels::DecodeLinearArgs args = {
      .x = x, .rows = rows, .x_stride = hidden, .inputs = hidden, .y = x, .y_stride = hidden};
  if (op == kQkv) {
    args.weights = w.qkv;
    args.outputs = args.y_stride = shape_.qkv();
    args.bias = w.qkv_bias;
    args.norm = w.attention_norm;
    args.y = qkv;
  } else if (op == kO) {
    args.weights = w.o;
    args.x = attention;
    args.inputs = args.x_stride = attended;
    args.outputs = hidden;
    args.residual = x;
  } else if (op == kGateUp) {
    args.weights = w.gate_up;
    args.outputs = 2 * int64_t{shape_.mlp};
    args.norm = w.mlp_norm;
    args.swiglu = true;
    args.y = mlp;
    args.y_stride = shape_.mlp;
  } else if (op == kDown) {
    args.weights = w.down;
    args.x = mlp;
    args.inputs = args.x_stride = shape_.mlp;
    args.outputs = hidden;
    args.residual = x;
  } else {
    args.weights = head_;
    args.outputs = args.y_stride = shape_.vocab;
    args.norm = norm_;
    args.y = logits;
    args.float_output = true;
  }
  return args;
}

void DecodeModel::EnqueueLinear(DecodeOp op, int layer, const StepChoices& choices,
                                cudaStream_t stream) {
  CheckCuda(static_cast<cudaError_t>(kernels::internal::DecodeLinearCuda(
                Linear(op, layer, rows_), choices.linear[op], sm_count_, choices.pdl, stream)),
            kOpNames[op]);
}

void DecodeModel::EnqueueAttention(int layer, const StepChoices& choices, cudaStream_t stream) {
  const kernels::DecodeAttentionArgs args = {.qkv = qkv,
                                             .qkv_stride = shape_.qkv(),
                                             .out = attention,
                                             .out_stride = int64_t{shape_.heads} * kHeadDim,
                                             .heads = shape_.heads,
                                             .pool = pools_[layer],
                                             .num_blocks = num_blocks_,
                                             .layout = {.block_tokens = kPage,
                                                        .kv_heads = shape_.kv_heads,
                                                        .head_dim = kHeadDim,
                                                        .dtype = kernels::DType::kBFloat16},
                                             .rope = &rope_,
                                             .positions = positions_,
                                             .positions_stride = rows_,
                                             .slots = slots_,
                                             .pages = pages_,
                                             .parts = parts_,
                                             .capacity = capacity_,
                                             .partial = partial_,
                                             .arrived = arrived_};
  CheckCuda(static_cast<cudaError_t>(kernels::internal::DecodeAttentionCuda(args, choices.attention,
                                                                            choices.pdl, stream)),
            "attention");
}

void DecodeModel::EnqueueTail(bool pdl, cudaStream_t stream) {
  const unsigned parts = static_cast<unsigned>(std::max(1, 2 * sm_count_ / rows_));
  LaunchAfter(pdl, dim3(parts, static_cast<unsigned>(rows_)), 256, stream, ArgMaxKernel, logits,
              shape_.vocab, best_, best_arrived_, tokens);
}

void DecodeModel::Enqueue(const StepChoices& choices, cudaStream_t stream) {
  LaunchAfter(false, dim3(static_cast<unsigned>(rows_)), 256, stream, EmbedKernel,
              static_cast<const __nv_bfloat16*>(embedding_), static_cast<const int32_t*>(tokens),
              shape_.hidden, static_cast<__nv_bfloat16*>(x));
  for (int l = 0; l < shape_.layers; ++l) {
    EnqueueLinear(kQkv, l, choices, stream);
    EnqueueAttention(l, choices, stream);
    EnqueueLinear(kO, l, choices, stream);
    EnqueueLinear(kGateUp, l, choices, stream);
    EnqueueLinear(kDown, l, choices, stream);
  }
  EnqueueLinear(kHead, 0, choices, stream);
  EnqueueTail(choices.pdl, stream);
}

}  // namespace triptych::bench
