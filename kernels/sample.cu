// A cluster of eight blocks takes a row and keeps its values in shared memory, so the logits are
// read once; what the blocks must agree on travels through distributed shared memory. A threshold
// (top_k, top_p) is found by three histograms of the bits of the values, the second and third
// inside the bin where the one before crossed.

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include "kernels/cuda_context.h"
#include "kernels/float_types.cuh"
#include "kernels/gumbel.h"
#include "kernels/sample.h"

namespace triptych::kernels {
namespace {

namespace cg = cooperative_groups;

constexpr int kBlocks = 8;  // of a cluster: the most that every device can place
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kVector = 8;
constexpr int kRun = 64;  // ids whose random numbers are drawn together
constexpr int kBinBits = 11;
constexpr int kBins = 1 << kBinBits;
constexpr int kBlockBins = kBins / kBlocks;  // that a block adds up for the cluster
constexpr float kGreedyBelow = 1e-5f;

// What a launch carries.
struct Launched {
  SampleArgs args;
  int64_t slice;  // values of a block
  bool vectors;   // 16-byte loads are allowed
};

// An order-preserving image of a value that is no NaN.
__device__ inline uint32_t Ordered(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);  // -0 becomes 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float FromOrdered(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}

// Orders by value, ties to the lower id.
__device__ inline uint64_t Candidate(float value, uint32_t id) {
  return uint64_t{Ordered(value)} << 32 | (UINT32_MAX - id);
}
__device__ inline int32_t IdOf(uint64_t candidate) {
  return static_cast<int32_t>(UINT32_MAX - static_cast<uint32_t>(candidate));
}
__device__ inline float ValueOf(uint64_t candidate) {
  return FromOrdered(static_cast<uint32_t>(candidate >> 32));
}

// e^x with the operations of cpu_math_body.h, so a draw is the same token on both devices.
__device__ inline float ExpOf(float x) {
  const float clamped = fminf(88.0f, fmaxf(-87.0f, x));
  const float n = rintf(__fmul_rn(clamped, 1.44269504f));
  float r = __fmaf_rn(n, -0.693359375f, clamped);
  r = __fmaf_rn(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = __fmaf_rn(p, r, 1.3981999507e-3f);
  p = __fmaf_rn(p, r, 8.3334519073e-3f);
  p = __fmaf_rn(p, r, 4.1665795894e-2f);
  p = __fmaf_rn(p, r, 1.6666665459e-1f);
  p = __fmaf_rn(p, r, 5.0000001201e-1f);
  const float y = __fadd_rn(__fmaf_rn(p, __fmul_rn(r, r), r), 1.0f);
  const float power = __int_as_float((static_cast<int>(n) + 127) << 23);
  return x < -87.0f ? 0.0f : __fmul_rn(y, power);
}

struct Larger {
  __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a > b ? a : b; }
};
struct Added {
  __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a + b; }
};
struct AddedFloats {
  __device__ uint64_t operator()(uint64_t a, uint64_t b) const {
    return __double_as_longlong(__longlong_as_double(a) + __longlong_as_double(b));
  }
};

// Bins of a histogram of 64-bit sums, in words of 32 bits: those have an atomic addition.
struct Shared {
  uint32_t low[kBins], high[kBins];
  uint64_t merged[kBlockBins];
  uint64_t warp[kWarps];
  // What each block of the cluster says; two, used in turn, so that one barrier a turn is enough.
  uint64_t slots[2][kBlocks];
  uint64_t crossing[2];  // bin, sum above it
  int turn;
  int found;
};

// The row of one cluster, as a block sees it.
class Row {
 public:
  __device__ Row(const Launched& in, Shared* shared, float* values)
      : args_(in.args),
        cluster_(cg::this_cluster()),
        shared_(*shared),
        values_(values),
        rank_(cluster_.block_rank()),
        row_(blockIdx.x / kBlocks),
        params_(in.args.params[row_]),
        begin_(rank_ * in.slice),
        count_(static_cast<int>(max(int64_t{0}, min(in.slice, in.args.vocab - begin_)))) {}

  __device__ void Run(bool vectors);

 private:
  template <typename T>
  __device__ bool Load(bool vectors);
  __device__ void TopLogprobs(SampleResult* result);
  __device__ void Penalise();
  __device__ void ApplyPenalty(int32_t id, int32_t in_answer, bool in_prompt);
  __device__ uint32_t KeptFrom();
  template <bool kWeigh>
  __device__ uint32_t Threshold(uint32_t floor, double share);
  __device__ void Merge();
  __device__ void FindCrossing(uint64_t above, uint64_t target);
  __device__ uint64_t Draw(uint32_t kept_from);
  __device__ void Finish(uint64_t chosen, SampleResult* result);

  // The same in every thread of the cluster.
  template <typename Operation>
  __device__ uint64_t Reduce(uint64_t value, Operation operation);
  template <typename Operation>
  __device__ uint64_t ReduceBlock(uint64_t value, Operation operation);
  // Says `value` to every block and hears what each says.
  __device__ const uint64_t* Exchange(uint64_t value);

  template <typename Visit>
  __device__ void ForEach(Visit visit) {
    for (int i = static_cast<int>(threadIdx.x); i < count_; i += kThreads) {
      visit(values_[i], static_cast<uint32_t>(begin_ + i));
    }
  }
  __device__ bool BelowMinP(float value) const {
    return params_.min_p > 0 && value < largest_ && Weight(value) < params_.min_p;
  }
  // Relative to the largest value's.
  __device__ float Weight(float value) const {
    return ExpOf(__fmul_rn(__fsub_rn(value, largest_), scale_));
  }

  const SampleArgs& args_;
  cg::cluster_group cluster_;
  Shared& shared_;
  float* values_;
  const uint32_t rank_;
  const int64_t row_;
  const SampleRow& params_;
  const int64_t begin_;  // first id of this block
  const int count_;
  float largest_ = 0;  // value, penalties and biases in it
  float scale_ = 1;    // 1 / temperature
  float log_total_ = 0;
};

template <typename Operation>
__device__ uint64_t Row::ReduceBlock(uint64_t value, Operation operation) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value = operation(value, __shfl_xor_sync(~0u, value, offset));
  }
  if (threadIdx.x % 32 == 0) shared_.warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = shared_.warp[0];
  for (int warp = 1; warp < kWarps; ++warp) value = operation(value, shared_.warp[warp]);
  return value;
}

__device__ const uint64_t* Row::Exchange(uint64_t value) {
  const int turn = shared_.turn;
  if (threadIdx.x < kBlocks) {
    cluster_.map_shared_rank(&shared_, threadIdx.x)->slots[turn][rank_] = value;
  }
  cluster_.sync();
  if (threadIdx.x == 0) shared_.turn = 1 - turn;
  __syncthreads();
  return shared_.slots[turn];
}

template <typename Operation>
__device__ uint64_t Row::Reduce(uint64_t value, Operation operation) {
  const uint64_t* heard = Exchange(ReduceBlock(value, operation));
  value = heard[0];
  for (int block = 1; block < kBlocks; ++block) value = operation(value, heard[block]);
  return value;
}

// Logits into shared memory; false where one is not finite.
template <typename T>
__device__ bool Row::Load(bool vectors) {
  const T* logits = static_cast<const T*>(args_.logits) + row_ * args_.logits_stride + begin_;
  bool finite = true;
  const int whole = vectors ? count_ / kVector : 0;
  for (int v = static_cast<int>(threadIdx.x); v < whole; v += kThreads) {
    float value[kVector];
    LoadPack(logits + v * kVector, value);
#pragma unroll
    for (int i = 0; i < kVector; ++i) finite = finite && isfinite(value[i]);
    StorePack(value, values_ + v * kVector);
  }
  for (int i = whole * kVector + static_cast<int>(threadIdx.x); i < count_; i += kThreads) {
    values_[i] = Widen(logits[i]) + 0.0f;
    finite = finite && isfinite(values_[i]);
  }
  __syncthreads();
  return finite;
}

// Of the raw logits: the sum for every log probability, and the likeliest ids one after another.
__device__ void Row::TopLogprobs(SampleResult* result) {
  uint64_t best = 0;
  ForEach([&](float value, uint32_t id) { best = max(best, Candidate(value, id)); });
  best = Reduce(best, Larger{});
  const float largest = ValueOf(best);
  double sum = 0;
  ForEach([&](float value, uint32_t) { sum += expf(value - largest); });
  sum = __longlong_as_double(Reduce(__double_as_longlong(sum), AddedFloats{}));
  log_total_ = largest + static_cast<float>(log(sum));
  const int wanted = static_cast<int>(
      min(static_cast<int64_t>(min(params_.top_logprobs, kMaxTopLogprobs)), args_.vocab));
  for (int i = 0; i < wanted; ++i) {
    if (i > 0) {
      const uint64_t before = best;
      best = 0;
      ForEach([&](float value, uint32_t id) {
        const uint64_t candidate = Candidate(value, id);
        if (candidate < before) best = max(best, candidate);
      });
      best = Reduce(best, Larger{});
    }
    if (rank_ == 0 && threadIdx.x == 0) {
      result->top_ids[i] = IdOf(best);
      result->top_logprobs[i] = ValueOf(best) - log_total_;
    }
  }
  if (rank_ == 0 && threadIdx.x == 0) result->top_count = wanted;
}

__device__ void Row::ApplyPenalty(int32_t id, int32_t in_answer, bool in_prompt) {
  const int64_t at = id - begin_;
  if (at < 0 || at >= count_) return;
  float value = values_[at];
  if (in_answer > 0 || in_prompt) {
    value = value > 0 ? value / params_.repetition_penalty : value * params_.repetition_penalty;
  }
  if (in_answer > 0) {
    value = __fsub_rn(value, params_.presence_penalty);
    value = __fsub_rn(value, __fmul_rn(params_.frequency_penalty, static_cast<float>(in_answer)));
  }
  values_[at] = value;
}

__device__ void Row::Penalise() {
  const int32_t uncounted = params_.uncounted >= 0 && params_.uncounted < args_.sampled_size
                                ? args_.sampled[params_.uncounted]
                                : -1;
  if (threadIdx.x == 0) shared_.found = 0;
  __syncthreads();
  for (int32_t i = params_.count_begin + static_cast<int32_t>(threadIdx.x); i < params_.count_end;
       i += kThreads) {
    const TokenCount entry = args_.counts[i];
    const bool again = entry.id == uncounted;
    if (again) shared_.found = 1;
    ApplyPenalty(entry.id, entry.in_answer + again, entry.in_prompt != 0);
  }
  __syncthreads();
  if (threadIdx.x == 0 && uncounted >= 0 && shared_.found == 0) ApplyPenalty(uncounted, 1, false);
  __syncthreads();
  for (int32_t i = params_.bias_begin + static_cast<int32_t>(threadIdx.x); i < params_.bias_end;
       i += kThreads) {
    const int64_t at = args_.biases[i].id - begin_;
    if (at >= 0 && at < count_) values_[at] += args_.biases[i].bias;
  }
  __syncthreads();
}

// This block's share of the bins, added up over the cluster, into `merged`.
__device__ void Row::Merge() {
  cluster_.sync();
  if (threadIdx.x < kBlockBins) {
    const int bin = static_cast<int>(rank_) * kBlockBins + static_cast<int>(threadIdx.x);
    uint64_t sum = 0;
    for (int block = 0; block < kBlocks; ++block) {
      const Shared* other = cluster_.map_shared_rank(&shared_, block);
      sum += (uint64_t{other->high[bin]} << 32) + other->low[bin];
    }
    shared_.merged[threadIdx.x] = sum;
  }
  __syncthreads();
}

// By one warp of the block that owns it: the bin where the sum from the top reaches `target`, told
// to every block.
__device__ void Row::FindCrossing(uint64_t above, uint64_t target) {
  constexpr int kLaneBins = kBlockBins / 32;
  const int lane = static_cast<int>(threadIdx.x);
  const int top = kBlockBins - 1 - lane * kLaneBins;
  uint64_t mine = 0;
  for (int i = 0; i < kLaneBins; ++i) mine += shared_.merged[top - i];
  uint64_t until = mine;  // of this lane and those above
  for (int offset = 1; offset < 32; offset *= 2) {
    const uint64_t other = __shfl_up_sync(~0u, until, offset);
    if (lane >= offset) until += other;
  }
  const uint32_t crossed = __ballot_sync(~0u, above + until >= target);
  if (lane != (crossed == 0 ? 31 : __ffs(static_cast<int>(crossed)) - 1)) return;
  above += until - mine;
  int bin = top;
  while (bin > top - kLaneBins + 1 && above + shared_.merged[bin] < target) {
    above += shared_.merged[bin--];
  }
  for (int block = 0; block < kBlocks; ++block) {
    Shared* other = cluster_.map_shared_rank(&shared_, block);
    other->crossing[0] = rank_ * kBlockBins + static_cast<uint64_t>(bin);
    other->crossing[1] = above;
  }
}

// The largest key such that values from it on have at least `share` of the weight of what is kept
// from `floor` on; not weighed, such that they are at least `share` many.
template <bool kWeigh>
__device__ uint32_t Row::Threshold(uint32_t floor, double share) {
  constexpr float kOne = 0x1p40f;  // weights in fixed point: a sum of them has no order
  uint32_t prefix = 0;
  uint64_t above = 0, target = 0;
  for (int shift = 32 - kBinBits, bits = kBinBits; bits > 0;) {
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) {
      shared_.low[i] = shared_.high[i] = 0;
    }
    __syncthreads();
    const bool first = shift + bits == 32;
    ForEach([&](float value, uint32_t) {
      const uint32_t key = Ordered(value);
      if (key < floor || (!first && key >> (shift + bits) != prefix)) return;
      const uint32_t bin = key >> shift & ((1u << bits) - 1);
      const uint64_t weight = kWeigh ? static_cast<uint64_t>(Weight(value) * kOne) : 1;
      if (weight == 0) return;
      const uint32_t low = static_cast<uint32_t>(weight);
      const uint32_t before = atomicAdd(&shared_.low[bin], low);
      const uint32_t high = static_cast<uint32_t>(weight >> 32) + (before + low < before);
      if (high != 0) atomicAdd(&shared_.high[bin], high);
    });
    Merge();
    const uint64_t mine = threadIdx.x < kBlockBins ? shared_.merged[threadIdx.x] : 0;
    const uint64_t* sums = Exchange(ReduceBlock(mine, Added{}));
    if (first) {
      uint64_t total = 0;
      for (int block = 0; block < kBlocks; ++block) total += sums[block];
      const double wanted = kWeigh ? share * static_cast<double>(total) : share;
      target = min(max(static_cast<uint64_t>(wanted), uint64_t{1}), total);
    }
    int owner = kBlocks - 1;
    while (owner > 0 && above + sums[owner] < target) above += sums[owner--];
    if (static_cast<int>(rank_) == owner && threadIdx.x < 32) FindCrossing(above, target);
    cluster_.sync();
    prefix = prefix << bits | static_cast<uint32_t>(shared_.crossing[0]);
    above = shared_.crossing[1];
    bits = min(kBinBits, shift);
    shift -= bits;
  }
  return prefix;
}

// Values with this key and above are kept, but for min_p.
__device__ uint32_t Row::KeptFrom() {
  uint32_t floor = Ordered(-INFINITY) + 1;  // that of forbidden ids
  // Forbidden ids fill up what is short of top_k.
  if (params_.top_k > 0 && params_.top_k < args_.vocab) {
    floor = max(floor, Threshold<false>(0, params_.top_k));
  }
  if (params_.top_p < 1) {
    floor = max(floor, Threshold<true>(floor, fmaxf(params_.top_p, 0)));
  }
  return floor;
}

__device__ uint64_t Row::Draw(uint32_t kept_from) {
  uint64_t best = 0;
  // A thread draws the four ids of one Philox counter at once: i, i + 16, i + 32, i + 48 of a run
  // of 64 (GumbelGroup). Slices are whole runs.
  for (int g = static_cast<int>(threadIdx.x); g / 16 * kRun < count_; g += kThreads) {
    const int first = g / 16 * kRun + g % 16;
    uint32_t kept = 0;
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      const int i = first + 16 * word;
      if (i < count_ && Ordered(values_[i]) >= kept_from && !BelowMinP(values_[i])) {
        kept |= 1u << word;
      }
    }
    if (kept == 0) continue;
    const auto id = static_cast<int32_t>(begin_ + first);
    const PhiloxWords words = Philox(params_.seed, params_.index, GumbelGroup(id));
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      if ((kept >> word & 1) == 0) continue;
      const float distance = __fsub_rn(values_[first + 16 * word], largest_);
      const float score = __fmaf_rn(distance, scale_, GumbelOfWord(words.word[word]));
      best = max(best, Candidate(score, static_cast<uint32_t>(id + 16 * word)));
    }
  }
  return Reduce(best, Larger{});
}

__device__ void Row::Finish(uint64_t chosen, SampleResult* result) {
  if (rank_ != 0 || threadIdx.x != 0) return;
  const int32_t id = IdOf(chosen);
  result->id = id;
  result->error = 0;
  result->logprob = 0;
  if (params_.top_logprobs >= 0) {
    const int64_t at = row_ * args_.logits_stride + id;
    const float logit = args_.dtype == DType::kFloat32
                            ? static_cast<const float*>(args_.logits)[at]
                            : Widen(static_cast<const __nv_bfloat16*>(args_.logits)[at]);
    result->logprob = logit - log_total_;
  }
  if (args_.ids != nullptr) args_.ids[row_] = id;
}

__device__ void Row::Run(bool vectors) {
  SampleResult* result = args_.results + row_;
  const bool finite =
      args_.dtype == DType::kFloat32 ? Load<float>(vectors) : Load<__nv_bfloat16>(vectors);
  const bool failed = Reduce(finite ? 0 : 1, Larger{}) != 0;
  if (rank_ == 0 && threadIdx.x == 0) result->top_count = 0;
  uint64_t chosen = 0;
  if (!failed) {
    if (params_.top_logprobs >= 0) TopLogprobs(result);
    Penalise();
    ForEach([&](float value, uint32_t id) { chosen = max(chosen, Candidate(value, id)); });
    chosen = Reduce(chosen, Larger{});
    largest_ = ValueOf(chosen);
    scale_ = __fdiv_rn(1.0f, params_.temperature);
  }
  if (failed || !isfinite(largest_)) {
    if (rank_ == 0 && threadIdx.x == 0) {
      result->id = -1;
      result->logprob = 0;
      result->error = 1;
      result->top_count = 0;
      if (args_.ids != nullptr) args_.ids[row_] = -1;
    }
  } else {
    if (params_.temperature >= kGreedyBelow) chosen = Draw(KeptFrom());
    Finish(chosen, result);
  }
  cluster_.sync();  // nobody leaves while its memory may be read
}

__global__ void __cluster_dims__(kBlocks, 1, 1) __launch_bounds__(kThreads, 2)
    SampleKernel(const __grid_constant__ Launched in) {
  extern __shared__ __align__(16) float values[];
  __shared__ Shared shared;
  if (threadIdx.x == 0) shared.turn = 0;
  __syncthreads();
  Row(in, &shared, values).Run(in.vectors);
}

}  // namespace

int internal::SampleCuda(const SampleArgs& args, const Stream& on) {
  const int64_t size = SizeOf(args.dtype);
  const int64_t slice = ((args.vocab + kBlocks - 1) / kBlocks + kRun - 1) / kRun * kRun;
  const bool vectors =
      IsAligned(args.logits, 32) && args.logits_stride * size % (kVector * sizeof(float)) == 0;
  const Launched in = {args, slice, vectors};
  const int64_t bytes = slice * static_cast<int64_t>(sizeof(float));
  if (bytes > INT32_MAX || args.rows > INT32_MAX / kBlocks) return cudaErrorInvalidValue;
  // More than a block may have is an error here.
  const cudaError_t error = cudaFuncSetAttribute(
      SampleKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  SampleKernel<<<static_cast<unsigned>(args.rows * kBlocks), kThreads, bytes,
                 static_cast<cudaStream_t>(CudaStreamOf(on))>>>(in);
  return cudaPeekAtLastError();
}

}  // namespace triptych::kernels
