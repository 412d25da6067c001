#pragma once

// gRPC settings in one place: keepalive, message limits, resource quota, deadlines, status codes.
// Only services and transport/grpc include this. Addresses are host:port.

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/rpc_security.h"

namespace triptych::base {

// The largest message of any stream: a client's request with 64 MiB of media is the only large one,
// everything internal is cut into chunks of 1 MiB.
inline constexpr int kMaxClientMessageBytes = 72 << 20;
inline constexpr int kMaxInternalMessageBytes = 4 << 20;

enum class RpcAudience { kClients, kInternal };

// Message limit, keepalive policy and a memory quota for a server.
void ConfigureServer(RpcAudience audience, grpc::ServerBuilder* builder);

// A channel with keepalive (a dead connection ends within 10 s; the scheduler's heartbeats notice a
// silent peer sooner), quick reconnects (50 ms to 1 s) and no proxy. Connects lazily.
// What answers there is believed when its certificate has the role `peer`.
std::shared_ptr<grpc::Channel> Connect(const std::string& address, const RpcSecurity& security,
                                       Role peer);
// The same in plain text, with a message limit for clients of the public API.
std::shared_ptr<grpc::Channel> ConnectAsClient(const std::string& address);

// `from_now` on the clock that gRPC takes deadlines by.
std::chrono::system_clock::time_point RpcDeadline(Duration from_now);
// Every unary call has a deadline; streams that live as long as the process have none but
// keepalive.
void SetDeadline(Duration from_now, grpc::ClientContext* context);

// The canonical codes are the same on both sides.
grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace triptych::base
