#pragma once

// A worker's wire: the control stream to the scheduler, a token stream to each gateway, a handshake
// stream to each worker, and the pulls. Streams are opened when first needed and again after they
// broke; what is lost with one is healed by the machines at both ends.

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/rpc_security.h"
#include "scheduler/plan/worker_messages.h"
#include "services/runtime/control_client.h"
#include "services/worker/input_puller.h"
#include "services/worker/path_pairing.h"
#include "services/worker/peer_streams.h"
#include "services/worker/worker_links.h"
#include "services/worker/worker_loop.h"
#include "triptych/v1/scheduler.grpc.pb.h"
#include "triptych/v1/tokens.grpc.pb.h"
#include "triptych/v1/transfer.grpc.pb.h"

namespace triptych::services {

// Thread-safe.
class GrpcLinks final : public WorkerLinks {
 public:
  // Borrows `clock`, `log`, `puller`. `profile` is what a hello says, with the bound address.
  GrpcLinks(scheduler::WorkerProfile profile, base::RpcSecurity security, const base::Clock& clock,
            base::Logger& log, InputPuller* puller);
  // Closes every stream.
  ~GrpcLinks() override;

  // The address is known once the server has bound its port, hence before Connect.
  void set_address(std::string address) { profile_.address = std::move(address); }
  void set_admin(std::string admin) { profile_.admin = std::move(admin); }
  // Begins to look for the scheduler. `loop` outlives this.
  void Connect(const std::string& scheduler_address, WorkerLoop* loop);
  bool connected() const;
  void SetDraining();

  // How bytes pass between us and a peer is settled by hellos; null: by gRPC. Before Connect.
  void set_pairing(PathPairing* pairing) { pairing_ = pairing; }
  // A peer that opened a handshake stream to us.
  void OnHello(scheduler::Incarnation peer, const v1::TransferHello& hello);
  void SayHelloAgain(scheduler::Incarnation peer) { handshakes_.SayHelloAgain(peer); }

  void SendToScheduler(const scheduler::WorkerToScheduler& message) override;
  void Pull(const scheduler::PullRequest& request, const scheduler::PeerAddress& gateway) override;
  void DropInput(scheduler::TaskId task) override;
  void SendTransfer(const scheduler::PeerAddress& peer,
                    const scheduler::TransferMessage& message) override;
  void SendTokens(const scheduler::PeerAddress& gateway, const scheduler::TokenBatch& batch,
                  const StageTimes* times) override;
  void Flush() override;
  void ForgetPeer(scheduler::Incarnation peer) override;

 private:
  using Control = ControlClient<v1::WorkerToSchedulerBatch, v1::SchedulerToWorkerBatch>;
  using TokenStreams = PeerStreams<v1::TokenBatches, v1::TokenReplies>;
  using Handshakes = PeerStreams<v1::TransferMessageBatch, v1::HandshakeClosed>;

  TokenStreams::Wiring TokenWiring();
  Handshakes::Wiring HandshakeWiring();
  std::optional<v1::WorkerToScheduler> Hello(scheduler::SchedulerId highest_seen);
  void OnControlBatch(const v1::SchedulerToWorkerBatch& batch);
  void OnTokenReplies(const v1::TokenReplies& replies);

  scheduler::WorkerProfile profile_;
  const base::RpcSecurity security_;
  const base::Clock& clock_;
  base::Logger& log_;
  InputPuller* const puller_;
  WorkerLoop* loop_ = nullptr;
  PathPairing* pairing_ = nullptr;
  std::unique_ptr<v1::Scheduler::Stub> scheduler_;
  std::unique_ptr<Control> control_;

  base::Mutex mutex_;
  absl::flat_hash_map<scheduler::Incarnation, std::string> addresses_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<scheduler::Incarnation> lost_peers_ ABSL_GUARDED_BY(mutex_);  // for the next hello
  TokenStreams tokens_;
  Handshakes handshakes_;
};

}  // namespace triptych::services
