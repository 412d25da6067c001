#include "services/worker/path_pairing.h"

#include <unistd.h>

#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"

namespace triptych::services {

using scheduler::Incarnation;

std::string HostIdentity() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  char space[128] = {};
  const ssize_t size = readlink("/proc/self/ns/net", space, sizeof(space) - 1);
  return absl::StrCat(boot, "/", std::string(space, size > 0 ? static_cast<size_t>(size) : 0), "/",
                      geteuid());
}

v1::LocalPaths PathPairing::PathsFor(Incarnation peer) {
  v1::LocalPaths paths;
  paths.set_host(host_);
  paths.set_channel(parts_.cuda_ipc.channel());
  paths.set_token(parts_.cuda_ipc.TokenFor(peer));
  base::MutexLock lock(&mutex_);
  const auto it = peers_.find(peer);
  switch (it == peers_.end() ? Path::kUnsettled : it->second.incoming) {
    case Path::kUnsettled:
      paths.set_takes(v1::LocalPaths::UNSETTLED);
      break;
    case Path::kGrpc:
      paths.set_takes(v1::LocalPaths::GRPC);
      break;
    case Path::kCudaIpc:
      paths.set_takes(v1::LocalPaths::CUDA_IPC);
      break;
    case Path::kNone:
      paths.set_takes(v1::LocalPaths::NOTHING);
      break;
  }
  return paths;
}

void PathPairing::OnHello(Incarnation peer, const v1::TransferHello& hello) {
  const v1::LocalPaths& theirs = hello.paths();
  const bool near = hello.has_paths() && theirs.host() == host_;
  bool first = false;
  {
    base::MutexLock lock(&mutex_);
    if (peers_.size() >= kMaxPeers && !peers_.contains(peer)) return;
    Peer& entry = peers_[peer];
    entry.name = hello.name().empty() ? absl::StrCat(peer.value()) : hello.name();
    first = !std::exchange(entry.tried, true);
  }
  // As they say; without a word they know gRPC alone.
  if (!near || theirs.takes() == v1::LocalPaths::GRPC) {
    SettleOutgoing(peer, Fallback());
  } else if (theirs.takes() == v1::LocalPaths::CUDA_IPC) {
    SettleOutgoing(peer, Path::kCudaIpc);
  } else if (theirs.takes() == v1::LocalPaths::NOTHING) {
    SettleOutgoing(peer, Path::kNone);
  }
  if (!first) return;
  if (near) {
    parts_.cuda_ipc.Connect(peer, theirs.channel(), theirs.token(),
                            [this, peer](const absl::Status& status) { OnChannel(peer, status); });
    return;
  }
  SettleIncoming(peer, Fallback());
  if (rule_ == Rule::kCudaIpcOnly) {
    parts_.log.Error("no path to this worker: --transfer-path=cuda_ipc, and it is elsewhere", {},
                     {{"peer", hello.name()}});
  }
}

void PathPairing::OnChannel(Incarnation peer, const absl::Status& status) {
  std::string name;
  bool was_open = false;
  {
    base::MutexLock lock(&mutex_);
    if (const auto it = peers_.find(peer); it != peers_.end()) {
      name = it->second.name;
      was_open = it->second.incoming == Path::kCudaIpc;
    }
  }
  const std::string text = status.ToString();  // borrowed by the fields
  const std::vector<base::LogField> fields{
      {"peer", name}, {"status", text}, {"path", transport::PathName(Fallback())}};
  // A channel ends with its peer; one that never opened is a matter of this host.
  if (!status.ok() && was_open) parts_.log.Info("cuda_ipc from a worker ended", {}, fields);
  if (!status.ok() && !was_open) parts_.log.Warning("no cuda_ipc from a worker", {}, fields);
  SettleIncoming(peer, status.ok() ? Path::kCudaIpc : Fallback());
  // Whoever sends waits for it.
  tell_(peer);
}

void PathPairing::SettleIncoming(Incarnation peer, Path path) {
  {
    base::MutexLock lock(&mutex_);
    const auto it = peers_.find(peer);
    if (it == peers_.end()) return;
    Show(it->second.name, "in", std::exchange(it->second.incoming, path), path);
  }
  parts_.router.SettleIncoming(peer, path);
}

void PathPairing::SettleOutgoing(Incarnation peer, Path path) {
  {
    base::MutexLock lock(&mutex_);
    const auto it = peers_.find(peer);
    if (it == peers_.end() || it->second.outgoing == path) return;
    Show(it->second.name, "out", std::exchange(it->second.outgoing, path), path);
  }
  parts_.router.SettleOutgoing(peer, path);
}

void PathPairing::Show(const std::string& name, const char* direction, Path old, Path path) {
  const base::MetricSpec spec{"triptych_transfer_path",
                              "1: how bytes from or to a worker pass; 0: how they did."};
  const auto gauge = [&](Path which) {
    return parts_.registry.GetGauge(
        spec, {{"peer", name}, {"direction", direction}, {"path", transport::PathName(which)}});
  };
  if (old != Path::kUnsettled) gauge(old).Set(0);
  if (path != Path::kUnsettled) gauge(path).Set(1);
}

void PathPairing::Forget(Incarnation peer) {
  base::MutexLock lock(&mutex_);
  const auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  Show(it->second.name, "in", it->second.incoming, Path::kUnsettled);
  Show(it->second.name, "out", it->second.outgoing, Path::kUnsettled);
  peers_.erase(it);
}

}  // namespace triptych::services
