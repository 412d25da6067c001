#pragma once

// The clients' gRPC port. Accepts by itself, caps connections in all and by address, counts frames
// on the way in (FrameMeter) and hands the rest to gRPC over a socket pair: gRPC 1.51 has no
// defence against floods of HTTP/2 frames, and never accepts again once it has found no free
// descriptor. docs/decisions/0014-http2-gate.md. Threads of its own.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/gateway/core/client.h"
#include "services/gateway/core/front_end.h"
#include "services/gateway/rpc/frame_meter.h"
#include "services/runtime/rpc_server.h"

namespace triptych::services {

class Http2Gate {
 public:
  // Listens at `address` (host:port, port 0 for any) and serves connections by `server`; borrows
  // all, and must end before the server. INVALID_ARGUMENT, UNAVAILABLE as HttpServer.
  static absl::StatusOr<std::unique_ptr<Http2Gate>> Start(const std::string& address,
                                                          const FrontEnd& front, RpcServer* server,
                                                          const FrameLimits& limits = {});
  ~Http2Gate();

  // Connections that are there go on. Before the server is stopped.
  void StopAccepting();

  const std::string& address() const { return address_; }
  // Who is behind a connection that gRPC names `peer`. Any thread.
  Client ClientOf(const std::string& peer) const;

 private:
  class Impl;
  explicit Http2Gate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  std::string address_;
};

}  // namespace triptych::services
