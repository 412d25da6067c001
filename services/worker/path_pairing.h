#pragma once

// Settles with each peer how bytes pass between the two, as their handshake streams open: each end
// says in its hello what it can do, the receiver of bytes tries the best that both can, and says
// what it takes. Until then the router holds pieces back. See docs/decisions/0016.

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "transport/cuda_ipc/ipc_transport.h"
#include "transport/path_router.h"
#include "triptych/v1/transfer.pb.h"

namespace triptych::services {

// A host, as two of its processes see it that may share memory: the running kernel, its network
// namespace and the user.
std::string HostIdentity();

// Thread-safe.
class PathPairing {
 public:
  enum class Rule : uint8_t { kBest, kCudaIpcOnly };
  struct Parts {
    transport::PathRouter& router;
    transport::IpcTransport& cuda_ipc;
    base::Logger& log;
    base::Registry& registry;
  };
  // Borrows all parts.
  PathPairing(Rule rule, std::string host, Parts parts)
      : rule_(rule), host_(std::move(host)), parts_(parts) {}

  // `tell` says hello again to a peer, if a stream to it is open. Before the first hello.
  void set_tell(std::function<void(scheduler::Incarnation peer)> tell) { tell_ = std::move(tell); }

  // Our part of a hello to `peer`.
  v1::LocalPaths PathsFor(scheduler::Incarnation peer);
  // What a peer's hello says, at its first and at each later one. Does not block.
  void OnHello(scheduler::Incarnation peer, const v1::TransferHello& hello);
  void Forget(scheduler::Incarnation peer);

  // More workers than one scheduler serves; strangers may say hello too.
  static constexpr size_t kMaxPeers = 4096;

 private:
  using Path = transport::Path;
  struct Peer {
    std::string name;
    Path incoming = Path::kUnsettled, outgoing = Path::kUnsettled;
    bool tried = false;
  };

  Path Fallback() const { return rule_ == Rule::kBest ? Path::kGrpc : Path::kNone; }
  void OnChannel(scheduler::Incarnation peer, const absl::Status& status);
  void SettleIncoming(scheduler::Incarnation peer, Path path);
  void SettleOutgoing(scheduler::Incarnation peer, Path path);
  void Show(const std::string& name, const char* direction, Path old, Path path);

  const Rule rule_;
  const std::string host_;
  const Parts parts_;
  std::function<void(scheduler::Incarnation)> tell_;
  base::Mutex mutex_;
  absl::flat_hash_map<scheduler::Incarnation, Peer> peers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::services
