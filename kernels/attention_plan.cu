// Cuts the chunks of a step among the multiprocessors and copies the cut. The memory that travels
// belongs to the plan, so a plan must not be made again before its step has ended.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "kernels/attention_plan.h"
#include "kernels/attention_plan_cuda.h"
#include "kernels/cuda_context.h"
#include "kernels/prefill_attention.h"

namespace triptych::kernels {
namespace {

using internal::CudaAttentionPlan;

void FreePlan(void* data) {
  auto* plan = static_cast<CudaAttentionPlan*>(data);
  cudaFreeHost(plan->pinned);
  cudaFree(plan->device);
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
  cuda->cut.works = 0;
  cuda->first_prefill_row = 0;
  if (cuda->first_prefill_row == rows.rows) return cudaSuccess;
  cuda->first_prefill_token = rows.host.query_begin[cuda->first_prefill_row];
  cuda->fresh =
      std::all_of(rows.host.first_token + cuda->first_prefill_row,
                  rows.host.first_token + rows.rows, [](int32_t token) { return token == 0; });
  const int32_t tile_queries = PrefillTileQueries(plan->layout().head_dim);
  if (tile_queries == 0 || plan->layout().dtype != DType::kBFloat16) return cudaErrorNotSupported;
  int workers = 0;
  if (const cudaError_t error = CountWorkers(&workers)) return error;
  CutPrefill(rows, cuda->first_prefill_row, plan->heads(), tile_queries, workers, &cuda->cut);
  const auto ints = static_cast<int64_t>(cuda->cut.block.size());
  if (const cudaError_t error = Reserve(cuda, ints)) return error;
  std::copy(cuda->cut.block.begin(), cuda->cut.block.end(), cuda->pinned);
  return cudaMemcpyAsync(cuda->device, cuda->pinned, ints * sizeof(int32_t), cudaMemcpyHostToDevice,
                         static_cast<cudaStream_t>(CudaStreamOf(on)));
}

}  // namespace triptych::kernels
