#include "services/runtime/rpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_posix.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace triptych::services {

std::unique_ptr<grpc::Server> RpcServer::Build(grpc::ServerBuilder* builder,
                                               base::RpcAudience audience,
                                               const std::vector<grpc::Service*>& services) {
  // Debian's Abseil looks for deadlocks at every lock of gRPC, which costs 5 % of a busy process.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  base::ConfigureServer(audience, builder);
  for (grpc::Service* service : services) builder->RegisterService(service);
  return builder->BuildAndStart();
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(
    const std::string& address, base::RpcAudience audience,
    std::shared_ptr<grpc::ServerCredentials> credentials,
    const std::vector<grpc::Service*>& services) {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address, std::move(credentials), &port);
  std::unique_ptr<RpcServer> result(new RpcServer());
  result->server_ = Build(&builder, audience, services);
  if (result->server_ == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address));
  }
  // Probes may ask for the API by its name: known by one, it follows every change of the whole.
  auto* health = result->server_->GetHealthCheckService();
  if (audience == base::RpcAudience::kClients && health != nullptr) {
    health->SetServingStatus("triptych.v1.Inference", true);
  }
  result->address_ = address.rfind("unix", 0) == 0
                         ? address
                         : absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
  return result;
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::StartWithoutPort(
    base::RpcAudience audience, const std::vector<grpc::Service*>& services) {
  grpc::ServerBuilder builder;
  std::unique_ptr<RpcServer> result(new RpcServer());
  result->server_ = Build(&builder, audience, services);
  if (result->server_ == nullptr) return absl::UnavailableError("cannot start a gRPC server");
  return result;
}

void RpcServer::Serve(int descriptor) { grpc::AddInsecureChannelFromFd(server_.get(), descriptor); }

void RpcServer::Stop(base::Duration grace) {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() +
                    std::chrono::duration_cast<std::chrono::microseconds>(grace));
  server_->Wait();
  server_.reset();
}

void RpcServer::SetServing(bool serving) {
  if (server_ == nullptr) return;
  if (auto* health = server_->GetHealthCheckService()) health->SetServingStatus(serving);
}

}  // namespace triptych::services
