#include "services/worker/worker_transports.h"

#include <optional>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/random.h"
#include "base/status.h"

#ifdef TRIPTYCH_GPU_ENGINE
#include "base/cuda.h"
#include "transport/bounced_transport.h"
#include "transport/cuda_ipc/cuda_copier.h"
#endif

namespace triptych::services {
namespace {

using scheduler::Incarnation;

class HostTransports final : public WorkerTransports {
 public:
  HostTransports(Incarnation self, const base::RpcSecurity& security) : grpc_(self, security) {}
  transport::Transport& transport() override { return grpc_; }
  transport::GrpcTransport& grpc() override { return grpc_; }
  PathPairing* pairing() override { return nullptr; }

 private:
  transport::GrpcTransport grpc_;
};

#ifdef TRIPTYCH_GPU_ENGINE
class CudaTransports final : public WorkerTransports {
 public:
  CudaTransports(Incarnation self, const base::RpcSecurity& security) : grpc_(self, security) {}

  absl::Status Start(const WorkerOptions& options, Incarnation self,
                     const engine::TransferRegions& regions, Parts parts) {
    ASSIGN_OR_RETURN(copier_, transport::CudaCopier::Create(options.cuda_device()));
    ASSIGN_OR_RETURN(staging_, base::PinnedMemory::Allocate(regions.staging.bytes));
    ASSIGN_OR_RETURN(landing_, base::PinnedMemory::Allocate(regions.landing.bytes));
    bounced_.emplace(&grpc_, copier_.get(), transport::TwinRegion{regions.staging, staging_.ref()},
                     transport::TwinRegion{regions.landing, landing_.ref()});
    const bool forced = options.transfer_path == "cuda_ipc";
    absl::StatusOr<std::unique_ptr<transport::IpcTransport>> cuda_ipc =
        transport::IpcTransport::Start(
            {.self = self,
             .channel = absl::StrFormat("triptych-%016x", base::RandomBits64()),
             .staging = regions.staging,
             .random = base::RandomBits64},
            parts.clock, copier_.get());
    if (!cuda_ipc.ok()) {
      if (forced) return cuda_ipc.status();
      parts.log.Warning("no cuda_ipc here", {}, {{"status", cuda_ipc.status().ToString()}});
      return absl::OkStatus();
    }
    cuda_ipc_ = *std::move(cuda_ipc);
    router_.emplace(&*bounced_, cuda_ipc_.get());
    pairing_.emplace(forced ? PathPairing::Rule::kCudaIpcOnly : PathPairing::Rule::kBest,
                     HostIdentity(),
                     PathPairing::Parts{*router_, *cuda_ipc_, parts.log, parts.registry});
    return absl::OkStatus();
  }

  transport::Transport& transport() override {
    if (router_.has_value()) return *router_;
    return *bounced_;
  }
  transport::GrpcTransport& grpc() override { return grpc_; }
  PathPairing* pairing() override { return pairing_.has_value() ? &*pairing_ : nullptr; }

 private:
  base::PinnedMemory staging_, landing_;
  std::unique_ptr<transport::CudaCopier> copier_;
  transport::GrpcTransport grpc_;
  std::optional<transport::BouncedTransport> bounced_;
  std::optional<transport::PathRouter> router_;
  std::optional<PathPairing> pairing_;
  std::unique_ptr<transport::IpcTransport> cuda_ipc_;  // its thread calls the pairing
};
#endif

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerTransports>> WorkerTransports::Open(
    [[maybe_unused]] const WorkerOptions& options, Incarnation self,
    const base::RpcSecurity& security, const engine::TransferRegions& regions,
    [[maybe_unused]] Parts parts) {
#ifdef TRIPTYCH_GPU_ENGINE
  if (regions.staging.space == base::MemorySpace::kCuda) {
    auto made = std::make_unique<CudaTransports>(self, security);
    RETURN_IF_ERROR(made->Start(options, self, regions, parts));
    return made;
  }
#endif
  CHECK_TRUE(regions.staging.space == base::MemorySpace::kHost);
  return std::make_unique<HostTransports>(self, security);
}

}  // namespace triptych::services
