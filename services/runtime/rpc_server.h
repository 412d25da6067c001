#pragma once

// A gRPC server with what every server of ours has: settings of base/rpc, reflection, and
// grpc.health.v1 with the process's readiness.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/rpc.h"

namespace triptych::services {

class RpcServer {
 public:
  // Serves `services` (borrowed; they outlive the server) at `address`: host:port, port 0 takes a
  // free one, or unix:PATH for peers on this machine. `credentials` say who is heard.
  // UNAVAILABLE when the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const std::string& address, base::RpcAudience audience,
      std::shared_ptr<grpc::ServerCredentials> credentials,
      const std::vector<grpc::Service*>& services);

  // Has no port: serves the connections that are given to it.
  static absl::StatusOr<std::unique_ptr<RpcServer>> StartWithoutPort(
      base::RpcAudience audience, const std::vector<grpc::Service*>& services);
  // Serves a connected, non-blocking stream socket, in plain text; takes the descriptor. Any
  // thread.
  void Serve(int descriptor);

  // Cancels what still runs after `grace` and returns when every call has ended.
  void Stop(base::Duration grace);
  ~RpcServer() { Stop(base::Duration(0)); }

  // What grpc.health.v1 answers for the server as a whole.
  void SetServing(bool serving);
  // host:port as bound.
  const std::string& address() const { return address_; }

 private:
  RpcServer() = default;
  static std::unique_ptr<grpc::Server> Build(grpc::ServerBuilder* builder,
                                             base::RpcAudience audience,
                                             const std::vector<grpc::Service*>& services);
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace triptych::services
