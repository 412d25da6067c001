#pragma once

// One GPU for a benchmark that runs ops one after another: a stream with its context, memory that
// lives until the end, random contents, and times by events. Ends the process when a call fails.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "bench/gpu/timed_graph.h"
#include "kernels/cuda_context.h"
#include "kernels/stream.h"
#include "kernels/workspace.h"

namespace triptych::bench {

// Ends the process with the status' text when it is not OK.
void CheckStatus(const absl::Status& status, const char* what);

class BenchDevice {
 public:
  explicit BenchDevice(int64_t workspace_bytes);

  kernels::Stream stream();
  cudaStream_t cuda_stream() const { return stream_; }

  void* Allocate(int64_t bytes);
  // bf16 in [-scale, scale], the same numbers over and over from another start each time.
  void* RandomBFloat16(int64_t elements, float scale);
  template <typename T>
  T* Upload(const std::vector<T>& values) {
    void* memory = Allocate(static_cast<int64_t>(values.size() * sizeof(T)));
    Copy(memory, values.data(), static_cast<int64_t>(values.size() * sizeof(T)));
    return static_cast<T*>(memory);
  }
  // bf16 on the device as double; waits for the stream.
  std::vector<double> Download(const void* from, int64_t first, int64_t count);
  void Copy(void* to, const void* from, int64_t bytes);

  // Milliseconds of what `enqueue` enqueues.
  double Time(const std::function<void()>& enqueue);

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  kernels::CudaContext context_;
  kernels::Workspace workspace_;
  std::map<float, uint16_t*> numbers_;  // by scale
  int64_t next_ = 0;
};

double Median(std::vector<double> values);

}  // namespace triptych::bench
