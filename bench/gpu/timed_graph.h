#pragma once

// Times GPU work by replaying a captured graph between two events: no launch gaps, no host clock.

#include <cuda_runtime_api.h>

#include <functional>

namespace triptych::bench {

// Ends the process with the error's text when a CUDA call failed.
void CheckCuda(cudaError_t error, const char* what);

struct Timing {
  double median_us = 0;  // of one call
  double low_us = 0;     // 10th percentile
  double high_us = 0;    // 90th percentile
};

// Captures enqueue(stream, 0) ... enqueue(stream, calls - 1) into one graph and replays it
// `replays` times after 5 warm-ups. Call i should use its own memory, so that together they are
// several times the L2 cache.
Timing TimeGraph(int calls, int replays, const std::function<void(cudaStream_t, int)>& enqueue);

}  // namespace triptych::bench
