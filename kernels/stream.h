#pragma once

// Where an operation runs: handed to every op beside its pointers. An op on a CUDA stream enqueues
// and does not synchronise; on the CPU it returns when the result is there.

namespace triptych::kernels {

struct CudaContext;
class ThreadPool;
class Workspace;

enum class Device { kCpu, kCuda };

// A borrowed handle; copy freely.
struct Stream {
  Device device = Device::kCpu;
  // CPU: the workers an op may use; null means the calling thread alone. Never changes a result.
  ThreadPool* pool = nullptr;
  // CUDA: the stream and what belongs to it; null is the default stream without libraries.
  CudaContext* cuda = nullptr;
  // Memory of `device` for what ops keep between their own steps. Ops say when they need it.
  Workspace* workspace = nullptr;
};

}  // namespace triptych::kernels
