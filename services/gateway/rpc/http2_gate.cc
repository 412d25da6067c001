#include "services/gateway/rpc/http2_gate.h"

#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "services/gateway/core/connection_table.h"
#include "services/gateway/rpc/passage.h"
#include "services/runtime/accept_loop.h"

namespace triptych::services {
namespace {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using Error = boost::system::error_code;

constexpr int kThreads = 2;
constexpr int kBacklog = 4096;

}  // namespace

class Http2Gate::Impl {
 public:
  Impl(const FrontEnd& front, RpcServer* server, const FrameLimits& limits)
      : front_(front), server_(server), meter_(limits, &front.budget), table_(front.connections) {}

  absl::StatusOr<std::string> Listen(const std::string& address) {
    return loop_.Listen(address, kBacklog);
  }

  void StopAccepting() { loop_.StopAccepting(); }

  Client ClientOf(const std::string& peer) const {
    base::MutexLock lock(&mutex_);
    const auto found = clients_.find(peer);
    return found == clients_.end() ? ClientAt("", "") : found->second;
  }

 private:
  void Admit(Tcp::socket socket) {
    Error error;
    const std::string host = socket.remote_endpoint(error).address().to_string();
    Client client = ClientAt(host, absl::StrCat("grpc-", ++last_connection_));
    const base::Clock& clock = front_.core.clock();
    if (!meter_.Spend(client.tenant, FrameKind::kConnections, clock.Now())) {
      return front_.metrics.cut_connections.Increment();  // the socket closes
    }
    const auto passage = std::make_shared<Passage>(
        std::move(socket), clock,
        Passage::Options{.tls = front_.grpc_tls,
                         .meter = std::make_unique<FrameMeter>(&meter_, client.tenant, clock.Now()),
                         .on_offence = [this] { front_.metrics.cut_connections.Increment(); }});
    auto place = table_.Enter(passage, client.tenant);
    if (place == nullptr) return;  // the socket closes with the passage
    const absl::StatusOr<int> descriptor = passage->Open();
    if (!descriptor.ok()) return;
    {
      // gRPC names a connection by its descriptor. A number comes again when its connection is
      // over: then it is somebody else's.
      base::MutexLock lock(&mutex_);
      clients_[absl::StrCat("fd:", *descriptor)] = std::move(client);
    }
    server_->Serve(*descriptor);
    passage->Run(std::move(place));
  }

  const FrontEnd& front_;
  RpcServer* const server_;
  AddressMeter meter_;
  ConnectionTable<Passage> table_;
  uint64_t last_connection_ = 0;  // of the accepting handler
  mutable base::Mutex mutex_;
  // By gRPC's name; at most one a descriptor number.
  absl::flat_hash_map<std::string, Client> clients_ ABSL_GUARDED_BY(mutex_);
  AcceptLoop loop_{kThreads, [this](Tcp::socket socket) { Admit(std::move(socket)); }};
};

Http2Gate::Http2Gate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Http2Gate::~Http2Gate() = default;

void Http2Gate::StopAccepting() { impl_->StopAccepting(); }
Client Http2Gate::ClientOf(const std::string& peer) const { return impl_->ClientOf(peer); }

absl::StatusOr<std::unique_ptr<Http2Gate>> Http2Gate::Start(const std::string& address,
                                                            const FrontEnd& front,
                                                            RpcServer* server,
                                                            const FrameLimits& limits) {
  auto impl = std::make_unique<Impl>(front, server, limits);
  absl::StatusOr<std::string> bound = impl->Listen(address);
  if (!bound.ok()) return bound.status();
  std::unique_ptr<Http2Gate> gate(new Http2Gate(std::move(impl)));
  gate->address_ = *std::move(bound);
  return gate;
}

}  // namespace triptych::services
