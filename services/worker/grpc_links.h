#pragma once

// A worker's wire: the control stream to the scheduler, a token stream to each gateway, a handshake
// stream to each worker, and the pulls. Streams are opened when first needed and again after they
// broke; what is lost with one is healed by the machines at both ends.

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/log.h"
#include "base/mutex.h"
#include "scheduler/plan/worker_messages.h"
#include "services/runtime/client_stream.h"
#include "services/runtime/control_client.h"
#include "services/worker/input_puller.h"
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
  GrpcLinks(scheduler::WorkerProfile profile, const base::Clock& clock, base::Logger& log,
            InputPuller* puller);
  // Closes every stream.
  ~GrpcLinks() override;

  // The address is known once the server has bound its port, hence before Connect.
  void set_address(std::string address) { profile_.address = std::move(address); }
  void set_admin(std::string admin) { profile_.admin = std::move(admin); }
  // Begins to look for the scheduler. `loop` outlives this.
  void Connect(const std::string& scheduler_address, WorkerLoop* loop);
  bool connected() const;
  void SetDraining();

  // A peer that opened a handshake stream to us is reached at `address`.
  void LearnAddress(scheduler::Incarnation peer, std::string address);

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
  using TokenStream = ClientStream<v1::TokenBatches, v1::TokenReplies>;
  using Handshake = ClientStream<v1::TransferMessageBatch, v1::HandshakeClosed>;

  std::optional<v1::WorkerToScheduler> Hello(scheduler::SchedulerId highest_seen);
  void OnControlBatch(const v1::SchedulerToWorkerBatch& batch);
  std::shared_ptr<TokenStream> TokensTo(const scheduler::PeerAddress& gateway);
  std::shared_ptr<Handshake> HandshakeTo(const scheduler::PeerAddress& peer);
  void OnTokenReplies(const v1::TokenReplies& replies);
  void OnTokensClosed(scheduler::Incarnation gateway, uint64_t number);
  void OnHandshakeClosed(scheduler::Incarnation peer, uint64_t number);
  v1::Envelope EnvelopeTo(scheduler::Incarnation peer) const;

  scheduler::WorkerProfile profile_;
  const base::Clock& clock_;
  base::Logger& log_;
  InputPuller* const puller_;
  WorkerLoop* loop_ = nullptr;
  std::unique_ptr<v1::Scheduler::Stub> scheduler_;
  std::unique_ptr<Control> control_;

  mutable base::Mutex mutex_;
  base::CondVar closed_;
  // A stream to a peer, shared with gRPC, which holds it until it is done. Its number tells it from
  // the peer's next one: a stream that ends late must not take that out of the map.
  template <typename Stream>
  struct Numbered {
    uint64_t number = 0;
    std::shared_ptr<Stream> stream;
  };
  uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<scheduler::Incarnation, Numbered<TokenStream>> tokens_
      ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<scheduler::Incarnation, Numbered<Handshake>> handshakes_
      ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<scheduler::Incarnation, std::string> addresses_ ABSL_GUARDED_BY(mutex_);
  int open_streams_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace triptych::services
