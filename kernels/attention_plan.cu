// Cuts the decode rows and the chunks of a step among the multiprocessors and copies the cuts. The
// memory that travels belongs to the plan, so a plan must not be made again before its step has
// ended.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/attention_plan.h"
#include "kernels/attention_plan_cuda.h"
#include "kernels/cuda_context.h"
#include "kernels/decode_choices.h"
#include "kernels/prefill_attention.h"

namespace triptych::kernels {
namespace {

using internal::CudaAttentionPlan;
using internal::DecodeCut;

// Enough for 64 rows however they are cut: what a captured graph names never moves then.
constexpr int64_t kDecodeParts = 1024;

void FreeDecode(DecodeCut* cut) {
  cudaFreeHost(cut->pinned);
  cudaFree(cut->device);
  cudaFree(cut->partial);
  cudaFree(cut->arrived);
  *cut = {};
}

void FreePlan(void* data) {
  auto* plan = static_cast<CudaAttentionPlan*>(data);
  cudaFreeHost(plan->pinned);
  cudaFree(plan->device);
  FreeDecode(&plan->decode);
  delete plan;
}

// Room for `ints`; grows to twice, so that a process soon stops growing.
cudaError_t Reserve(CudaAttentionPlan* plan, int64_t ints) {
  if (ints <= plan->capacity) return cudaSuccess;
  const int64_t capacity = std::max<int64_t>(2 * ints, 1 << 14);
  cudaFreeHost(plan->pinned);
  cudaFree(plan->device);
  plan->pinned = plan->device = nullptr;
  plan->capacity = 0;
  const size_t bytes = capacity * sizeof(int32_t);
  if (const cudaError_t error = cudaMallocHost(&plan->pinned, bytes)) return error;
  if (const cudaError_t error = cudaMalloc(&plan->device, bytes)) return error;
  plan->capacity = capacity;
  return cudaSuccess;
}

cudaError_t ReserveDecode(DecodeCut* cut, int64_t parts, int kv_heads) {
  if (parts <= cut->capacity) return cudaSuccess;
  FreeDecode(cut);
  const int64_t capacity = std::max(parts, kDecodeParts);
  const size_t bytes = capacity * sizeof(DecodePart), counters = capacity * kv_heads * sizeof(int);
  if (const cudaError_t error = cudaMallocHost(&cut->pinned, bytes)) return error;
  if (const cudaError_t error = cudaMalloc(&cut->device, bytes)) return error;
  if (const cudaError_t error = cudaMalloc(&cut->partial, DecodePartialBytes(capacity, kv_heads))) {
    return error;
  }
  if (const cudaError_t error = cudaMalloc(&cut->arrived, counters)) return error;
  cut->capacity = capacity;
  return cudaMemset(cut->arrived, 0, counters);
}

// Rows [0, decode_rows) for the kernel that knows their shape.
cudaError_t PlanDecode(const AttentionPlan& plan, int sm_count, const GemmChoices* choices,
                       cudaStream_t stream, DecodeCut* cut) {
  const AttentionRows& rows = plan.rows();
  const AttentionChoiceKey key = {plan.heads(), plan.layout().kv_heads};
  std::vector<int32_t> lengths(rows.decode_rows);
  int64_t context = rows.decode_context;
  for (int32_t row = 0; row < rows.decode_rows; ++row) {
    lengths[row] = rows.host.token_begin[row] + 1;
    if (rows.decode_context == 0) context += lengths[row];
  }
  if (rows.decode_context == 0) context /= rows.decode_rows;
  const DecodeAttentionChoice* tuned =
      choices == nullptr ? nullptr : choices->Find(key, rows.decode_rows, context);
  const DecodeAttentionChoice choice =
      tuned != nullptr ? *tuned : RuleForAttention(key, rows.decode_rows, context, sm_count);
  const int32_t used = choice.target + rows.decode_rows;
  if (const cudaError_t error = ReserveDecode(cut, used, key.kv_heads)) return error;
  cut->choice = choice;
  cut->used = used;
  PlanDecodeParts(lengths, {rows.host.page_begin, static_cast<size_t>(rows.decode_rows) + 1},
                  plan.layout().block_tokens, choice, {cut->pinned, static_cast<size_t>(used)});
  return cudaMemcpyAsync(cut->device, cut->pinned, used * sizeof(DecodePart),
                         cudaMemcpyHostToDevice, stream);
}

// FlashInfer launches one worker a multiprocessor of the device, whatever else is known of it.
cudaError_t CountWorkers(int* workers) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  return cudaDeviceGetAttribute(workers, cudaDevAttrMultiProcessorCount, device);
}

}  // namespace

int internal::PlanAttentionCuda(AttentionPlan* plan, const Stream& on) {
  if (plan->cuda().data == nullptr) {
    plan->cuda() = {std::make_unique<CudaAttentionPlan>().release(), FreePlan};
  }
  auto* cuda = static_cast<CudaAttentionPlan*>(plan->cuda().data);
  const AttentionRows& rows = plan->rows();
  const auto stream = static_cast<cudaStream_t>(CudaStreamOf(on));
  const GemmChoices* const choices = on.cuda == nullptr ? nullptr : on.cuda->choices;
  int workers = 0;
  if (const cudaError_t error = CountWorkers(&workers)) return error;
  cuda->cut.works = 0;
  cuda->decode.used = 0;
  cuda->first_prefill_row = 0;
  if (rows.decode_rows > 0 && DecodeAttentionServes(plan->layout(), plan->heads())) {
    cuda->first_prefill_row = rows.decode_rows;
    if (const cudaError_t error = PlanDecode(*plan, workers, choices, stream, &cuda->decode)) {
      return error;
    }
  }
  if (cuda->first_prefill_row == rows.rows) return cudaSuccess;
  cuda->first_prefill_token = rows.host.query_begin[cuda->first_prefill_row];
  cuda->fresh =
      std::all_of(rows.host.token_begin + cuda->first_prefill_row,
                  rows.host.token_begin + rows.rows, [](int32_t token) { return token == 0; });
  const int32_t tile_queries = PrefillTileQueries(plan->layout().head_dim);
  if (tile_queries == 0 || plan->layout().dtype != DType::kBFloat16) return cudaErrorNotSupported;
  CutPrefill(rows, cuda->first_prefill_row, plan->heads(), tile_queries, workers, &cuda->cut);
  const auto ints = static_cast<int64_t>(cuda->cut.block.size());
  if (const cudaError_t error = Reserve(cuda, ints)) return error;
  std::copy(cuda->cut.block.begin(), cuda->cut.block.end(), cuda->pinned);
  return cudaMemcpyAsync(cuda->device, cuda->pinned, ints * sizeof(int32_t), cudaMemcpyHostToDevice,
                         stream);
}

}  // namespace triptych::kernels
