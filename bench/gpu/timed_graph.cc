#include "bench/gpu/timed_graph.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace triptych::bench {
namespace {

constexpr int kWarmUps = 5;

cudaGraphExec_t Capture(cudaStream_t stream, int calls,
                        const std::function<void(cudaStream_t, int)>& enqueue) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replayable = nullptr;
  CheckCuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin capture");
  for (int i = 0; i < calls; ++i) enqueue(stream, i);
  CheckCuda(cudaStreamEndCapture(stream, &graph), "end capture");
  CheckCuda(cudaGraphInstantiate(&replayable, graph, 0), "instantiate");
  CheckCuda(cudaGraphDestroy(graph), "destroy graph");
  return replayable;
}

}  // namespace

void CheckCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

Timing TimeGraph(int calls, int replays, const std::function<void(cudaStream_t, int)>& enqueue) {
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  CheckCuda(cudaStreamCreate(&stream), "stream");
  CheckCuda(cudaEventCreate(&begin), "event");
  CheckCuda(cudaEventCreate(&end), "event");
  const cudaGraphExec_t graph = Capture(stream, calls, enqueue);
  std::vector<double> times_us;
  for (int i = 0; i < kWarmUps + replays; ++i) {
    float elapsed_ms = 0;
    CheckCuda(cudaEventRecord(begin, stream), "record");
    CheckCuda(cudaGraphLaunch(graph, stream), "launch");
    CheckCuda(cudaEventRecord(end, stream), "record");
    CheckCuda(cudaEventSynchronize(end), "synchronize");
    CheckCuda(cudaEventElapsedTime(&elapsed_ms, begin, end), "elapsed");
    if (i >= kWarmUps) times_us.push_back(elapsed_ms * 1e3 / calls);
  }
  CheckCuda(cudaGraphExecDestroy(graph), "destroy");
  CheckCuda(cudaEventDestroy(begin), "destroy");
  CheckCuda(cudaEventDestroy(end), "destroy");
  CheckCuda(cudaStreamDestroy(stream), "destroy");
  std::sort(times_us.begin(), times_us.end());
  const size_t count = times_us.size();
  return {times_us[count / 2], times_us[count / 10], times_us[count * 9 / 10]};
}

}  // namespace triptych::bench
