#include "transport/cuda_ipc/cuda_copier.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace triptych::transport {
namespace {

// A thread that sleeps is woken tens of microseconds late: as long as a piece of 64 MiB takes. So
// often is asked before: about 100 us.
constexpr int kSpins = 200;

absl::Status Unavailable(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // not sticky: these calls touch no running work
  return absl::UnavailableError(absl::StrCat("cuda_ipc: ", what, ": ", cudaGetErrorString(error)));
}

// Bytes of the allocation that begins at `data`; -1 when the driver does not say.
int64_t AllocationBytes(const void* data) {
  using GetAddressRange = int (*)(uintptr_t * begin, size_t * bytes, uintptr_t at);
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  constexpr unsigned kVersion = 12000;
  if (cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &entry, kVersion, cudaEnableDefault,
                                       &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess || entry == nullptr) {
    cudaGetLastError();
    return -1;
  }
  uintptr_t begin = 0;
  size_t bytes = 0;
  const auto at = reinterpret_cast<uintptr_t>(data);
  if (reinterpret_cast<GetAddressRange>(entry)(&begin, &bytes, at) != 0) return -1;
  return static_cast<int64_t>(begin + bytes - at);
}

absl::Status WaitFor(const base::CudaEvent& event) {
  for (int i = 0; i < kSpins; ++i) {
    const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(event.get()));
    if (error != cudaErrorNotReady) return base::CudaStatus(error, "copy from a peer");
  }
  return event.Synchronize();
}

}  // namespace

class CudaCopier::Mapped final : public MappedRegion {
 public:
  Mapped(CudaCopier* copier, const base::MemoryRef& ref) : copier_(copier), ref_(ref) {}
  ~Mapped() override { copier_->Unmap(ref_.data); }
  const base::MemoryRef& ref() const override { return ref_; }

 private:
  CudaCopier* const copier_;
  const base::MemoryRef ref_;
};

absl::StatusOr<std::unique_ptr<CudaCopier>> CudaCopier::Create(int device) {
  RETURN_IF_ERROR(base::UseCudaDevice(device));
  ASSIGN_OR_RETURN(base::CudaStream stream, base::CudaStream::Create(base::CudaPriority::kHigh));
  std::unique_ptr<CudaCopier> copier(new CudaCopier(device, std::move(stream)));
  copier->thread_ = std::thread([raw = copier.get()] { raw->Run(); });
  return copier;
}

CudaCopier::~CudaCopier() {
  entries_.Close();
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<std::string> CudaCopier::Export(const base::MemoryRef& region) {
  RETURN_IF_ERROR(base::UseCudaDevice(device_));
  cudaIpcMemHandle_t handle = {};
  static_assert(sizeof(handle) <= kMaxHandleBytes);
  RETURN_IF_ERROR(Unavailable(cudaIpcGetMemHandle(&handle, region.data), "export the region"));
  return std::string(reinterpret_cast<const char*>(&handle), sizeof(handle));
}

absl::StatusOr<std::unique_ptr<MappedRegion>> CudaCopier::Map(const std::string& handle,
                                                              int64_t bytes) {
  RETURN_IF_ERROR(base::UseCudaDevice(device_));
  cudaIpcMemHandle_t named = {};
  if (handle.size() != sizeof(named)) return absl::UnavailableError("cuda_ipc: not a handle");
  std::memcpy(&named, handle.data(), sizeof(named));
  void* data = nullptr;
  RETURN_IF_ERROR(
      Unavailable(cudaIpcOpenMemHandle(&data, named, cudaIpcMemLazyEnablePeerAccess), "map"));
  auto mapped = std::make_unique<Mapped>(
      this, base::MemoryRef{data, bytes, base::MemorySpace::kCuda, device_});
  const int64_t there = AllocationBytes(data);
  if (there >= 0 && there < bytes) {
    return absl::UnavailableError(
        absl::StrCat("cuda_ipc: a region of ", there, " bytes is said to have ", bytes));
  }
  return mapped;
}

void CudaCopier::Copy(const base::MemoryRef& to, const base::MemoryRef& from, OnDone on_done) {
  base::MutexLock lock(&mutex_);
  absl::StatusOr<base::CudaEvent> event = Start(to, from);
  Entry entry{.status = event.status(), .event = std::nullopt, .on_done = std::move(on_done)};
  if (event.ok()) entry.event = *std::move(event);
  CHECK_TRUE(entries_.TryPush(std::move(entry)));
}

absl::StatusOr<base::CudaEvent> CudaCopier::Start(const base::MemoryRef& to,
                                                  const base::MemoryRef& from) {
  RETURN_IF_ERROR(base::UseCudaDevice(device_));
  std::optional<base::CudaEvent> event;
  if (spare_.size() > 0) event = spare_.Pop();
  if (!event.has_value()) {
    ASSIGN_OR_RETURN(event, base::CudaEvent::Create(base::CudaTiming::kOff));
  }
  RETURN_IF_ERROR(stream_.Copy(to, from));
  RETURN_IF_ERROR(event->Record(stream_.get()));
  return *std::move(event);
}

void CudaCopier::Run() {
  const absl::Status device = base::UseCudaDevice(device_);
  while (std::optional<Entry> entry = entries_.Pop()) {
    if (entry->unmap != nullptr) {
      cudaIpcCloseMemHandle(entry->unmap);
      continue;
    }
    if (entry->status.ok()) entry->status = device;
    if (entry->status.ok()) entry->status = WaitFor(*entry->event);
    if (entry->status.ok()) spare_.TryPush(*std::move(entry->event));
    entry->on_done(std::move(entry->status));
  }
}

// Behind the copies that were enqueued, and on the thread that may wait.
void CudaCopier::Unmap(void* region) {
  Entry entry;
  entry.unmap = region;
  if (!entries_.TryPush(std::move(entry))) cudaIpcCloseMemHandle(region);
}

}  // namespace triptych::transport
