#include "services/cli/cluster_client.h"

#include <grpcpp/grpcpp.h>

#include "base/rpc.h"
#include "base/status.h"
#include "triptych/v1/cluster.grpc.pb.h"

namespace triptych::services {

absl::StatusOr<v1::ClusterSnapshot> FetchSnapshot(const std::string& address,
                                                  const base::RpcSecurity& security,
                                                  base::Duration timeout) {
  const auto stub = v1::Cluster::NewStub(base::Connect(address, security, base::Role::kScheduler));
  grpc::ClientContext context;
  base::SetDeadline(timeout, &context);
  v1::ClusterSnapshot snapshot;
  RETURN_IF_ERROR(base::FromGrpc(stub->GetSnapshot(&context, {}, &snapshot)));
  return snapshot;
}

}  // namespace triptych::services
