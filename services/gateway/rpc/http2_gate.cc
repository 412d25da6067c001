#include "services/gateway/rpc/http2_gate.h"

#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "services/gateway/core/connection_table.h"
#include "services/gateway/rpc/passage.h"
#include "services/runtime/listener.h"

namespace triptych::services {
namespace {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using Error = boost::system::error_code;

constexpr int kThreads = 2;
constexpr int kBacklog = 4096;
constexpr auto kAcceptPause = std::chrono::milliseconds(50);

}  // namespace

class Http2Gate::Impl {
 public:
  Impl(const FrontEnd& front, RpcServer* server, const FrameLimits& limits)
      : front_(front), server_(server), meter_(limits, &front.budget), table_(front.connections) {}
  ~Impl() {
    context_.stop();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::StatusOr<std::string> Listen(const std::string& address) {
    absl::StatusOr<std::string> bound = services::Listen(address, kBacklog, &acceptor_);
    if (!bound.ok()) return bound;
    Accept();
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { context_.run(); });
    return bound;
  }

  void StopAccepting() {
    std::promise<void> stopped;
    asio::post(acceptor_.get_executor(), [this, &stopped] {
      Error ignored;
      pause_.cancel();
      acceptor_.close(ignored);
      stopped.set_value();
    });
    stopped.get_future().wait();
  }

  Client ClientOf(const std::string& peer) const {
    base::MutexLock lock(&mutex_);
    const auto found = clients_.find(peer);
    return found == clients_.end() ? ClientAt("", "") : found->second;
  }

 private:
  void Accept() {
    acceptor_.async_accept(asio::make_strand(context_), [this](Error error, Tcp::socket socket) {
      if (error == asio::error::operation_aborted || !acceptor_.is_open()) return;
      if (!error) {
        Admit(std::move(socket));
        return Accept();
      }
      // No descriptor is free: at once again would only burn the processor.
      pause_.expires_after(kAcceptPause);
      pause_.async_wait([this](Error stopped) {
        if (!stopped) Accept();
      });
    });
  }

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
  asio::io_context context_{kThreads};
  Tcp::acceptor acceptor_{asio::make_strand(context_)};
  asio::steady_timer pause_{acceptor_.get_executor()};
  std::vector<std::thread> threads_;
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
