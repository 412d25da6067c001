#pragma once

// Where an operation runs: handed to every op beside its pointers. An op on a CUDA stream enqueues
// and does not synchronise; on the CPU it returns when the result is there.

namespace triptych::kernels {

class ThreadPool;

enum class Device { kCpu, kCuda };

// A borrowed handle; copy freely. `cuda_stream` is a cudaStream_t, so that no header needs CUDA.
struct Stream {
  Device device = Device::kCpu;
  // CPU: the workers an op may use; null means the calling thread alone. Never changes a result.
  ThreadPool* pool = nullptr;
  void* cuda_stream = nullptr;
};

}  // namespace triptych::kernels
