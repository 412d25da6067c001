#include "base/cuda.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace triptych::base {
namespace {

cudaStream_t StreamOf(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t EventOf(const CudaHandle& handle) { return static_cast<cudaEvent_t>(handle.get()); }

// An error while freeing has no one to tell; the next call reports a sticky one.
void FreeStream(void* stream) { (void)cudaStreamDestroy(StreamOf(stream)); }
void FreeEvent(void* event) { (void)cudaEventDestroy(static_cast<cudaEvent_t>(event)); }
void FreeDeviceMemory(void* memory) { (void)cudaFree(memory); }
void FreePinnedMemory(void* memory) { (void)cudaFreeHost(memory); }

}  // namespace

absl::Status CudaStatus(int cuda_error, absl::string_view what) {
  if (cuda_error == cudaSuccess) return absl::OkStatus();
  const cudaError_t error = static_cast<cudaError_t>(cuda_error);
  const std::string text = absl::StrCat(what, ": ", cudaGetErrorString(error), " (CUDA error ",
                                        cudaGetErrorName(error), ")");
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ||
      error == cudaErrorInvalidDevice || error == cudaErrorStubLibrary) {
    return absl::UnavailableError(text);
  }
  return absl::InternalError(text);
}

absl::Status UseCudaDevice(int device) {
  return CudaStatus(cudaSetDevice(device), absl::StrCat("CUDA device ", device));
}

absl::StatusOr<CudaDeviceInfo> DescribeCudaDevice(int device) {
  RETURN_IF_ERROR(UseCudaDevice(device));
  cudaDeviceProp properties;
  RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&properties, device), "device properties"));
  size_t free = 0, total = 0;
  RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "free device memory"));
  return CudaDeviceInfo{.name = properties.name,
                        .sm_count = properties.multiProcessorCount,
                        .capability = 10 * properties.major + properties.minor,
                        .free_bytes = static_cast<int64_t>(free),
                        .total_bytes = static_cast<int64_t>(total)};
}

absl::StatusOr<CudaEvent> CudaEvent::Create(CudaTiming timing) {
  const unsigned flags = cudaEventBlockingSync |
                         (timing == CudaTiming::kOff ? cudaEventDisableTiming : cudaEventDefault);
  cudaEvent_t event = nullptr;
  RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(&event, flags), "create an event"));
  return CudaEvent(CudaHandle(event, FreeEvent));
}

absl::Status CudaEvent::Record(void* stream) {
  return CudaStatus(cudaEventRecord(EventOf(handle_), StreamOf(stream)), "record an event");
}

absl::Status CudaEvent::Synchronize() const {
  return CudaStatus(cudaEventSynchronize(EventOf(handle_)), "wait for an event");
}

absl::StatusOr<float> CudaEvent::MillisecondsSince(const CudaEvent& begin) const {
  float milliseconds = 0;
  RETURN_IF_ERROR(
      CudaStatus(cudaEventElapsedTime(&milliseconds, EventOf(begin.handle_), EventOf(handle_)),
                 "time between events"));
  return milliseconds;
}

absl::StatusOr<CudaStream> CudaStream::Create(CudaPriority priority) {
  int low = 0, high = 0;
  RETURN_IF_ERROR(CudaStatus(cudaDeviceGetStreamPriorityRange(&low, &high), "stream priorities"));
  cudaStream_t stream = nullptr;
  RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                              priority == CudaPriority::kHigh ? high : low),
                 "create a stream"));
  return CudaStream(CudaHandle(stream, FreeStream));
}

absl::Status CudaStream::Wait(const CudaEvent& event) {
  return CudaStatus(cudaStreamWaitEvent(StreamOf(get()), static_cast<cudaEvent_t>(event.get()), 0),
                    "let a stream wait");
}

absl::Status CudaStream::Synchronize() const {
  return CudaStatus(cudaStreamSynchronize(StreamOf(get())), "wait for a stream");
}

absl::Status CudaStream::Copy(const MemoryRef& to, const MemoryRef& from) {
  CHECK_EQ(to.bytes, from.bytes);
  return CudaStatus(cudaMemcpyAsync(to.data, from.data, static_cast<size_t>(to.bytes),
                                    cudaMemcpyDefault, StreamOf(get())),
                    "copy memory");
}

absl::StatusOr<DeviceMemory> DeviceMemory::Allocate(int device, int64_t bytes) {
  CHECK_GE(bytes, 0);
  RETURN_IF_ERROR(UseCudaDevice(device));
  void* memory = nullptr;
  RETURN_IF_ERROR(CudaStatus(cudaMalloc(&memory, static_cast<size_t>(bytes)),
                             absl::StrCat(bytes, " bytes on CUDA device ", device)));
  return DeviceMemory(
      CudaHandle(memory, FreeDeviceMemory),
      {.data = memory, .bytes = bytes, .space = MemorySpace::kCuda, .device = device});
}

absl::StatusOr<PinnedMemory> PinnedMemory::Allocate(int64_t bytes) {
  CHECK_GE(bytes, 0);
  void* memory = nullptr;
  RETURN_IF_ERROR(
      CudaStatus(cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocPortable),
                 absl::StrCat(bytes, " bytes of pinned host memory")));
  return PinnedMemory(CudaHandle(memory, FreePinnedMemory), {.data = memory, .bytes = bytes});
}

}  // namespace triptych::base
