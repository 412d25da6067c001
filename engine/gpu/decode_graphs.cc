#include "engine/gpu/decode_graphs.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "base/cuda.h"
#include "base/status.h"

namespace triptych::engine {
namespace {

constexpr int32_t kBuckets[] = {1, 2, 4, 8, 16, 24, 32, 48, 64};

absl::StatusOr<void*> CaptureOne(cudaStream_t stream,
                                 absl::FunctionRef<absl::Status(int32_t)> enqueue, int32_t rows) {
  RETURN_IF_ERROR(base::CudaStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                                   "begin a capture"));
  const absl::Status enqueued = enqueue(rows);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  cudaGraphExec_t executable = nullptr;
  cudaError_t made = cudaSuccess;
  if (enqueued.ok() && ended == cudaSuccess) made = cudaGraphInstantiate(&executable, graph, 0);
  if (graph != nullptr) (void)cudaGraphDestroy(graph);
  RETURN_IF_ERROR(enqueued);
  RETURN_IF_ERROR(base::CudaStatus(ended, "end a capture"));
  RETURN_IF_ERROR(base::CudaStatus(made, "instantiate a graph"));
  return executable;
}

}  // namespace

std::vector<int32_t> DecodeGraphs::Buckets(int32_t max_rows) {
  std::vector<int32_t> buckets;
  for (auto bucket = std::rbegin(kBuckets); bucket != std::rend(kBuckets); ++bucket) {
    if (*bucket <= max_rows) buckets.push_back(*bucket);
  }
  return buckets;
}

absl::StatusOr<std::unique_ptr<DecodeGraphs>> DecodeGraphs::Capture(
    int32_t max_rows, void* stream, absl::FunctionRef<absl::Status(int32_t rows)> enqueue) {
  std::unique_ptr<DecodeGraphs> graphs(new DecodeGraphs());
  for (int32_t bucket : Buckets(max_rows)) {
    ASSIGN_OR_RETURN(void* const executable,
                     CaptureOne(static_cast<cudaStream_t>(stream), enqueue, bucket));
    graphs->graphs_.insert(graphs->graphs_.begin(), {bucket, executable});
  }
  return graphs;
}

DecodeGraphs::~DecodeGraphs() {
  for (const Graph& graph : graphs_) {
    (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph.executable));
  }
}

int32_t DecodeGraphs::BucketFor(int32_t rows) const {
  for (const Graph& graph : graphs_) {
    if (graph.rows >= rows) return graph.rows;
  }
  return 0;
}

absl::Status DecodeGraphs::Launch(int32_t bucket, void* stream) const {
  for (const Graph& graph : graphs_) {
    if (graph.rows != bucket) continue;
    return base::CudaStatus(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph.executable),
                                            static_cast<cudaStream_t>(stream)),
                            "launch a decode graph");
  }
  return absl::InternalError("no such decode graph");
}

}  // namespace triptych::engine
