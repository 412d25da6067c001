#include "services/worker/grpc_links.h"

#include <cstdlib>
#include <utility>
#include <vector>

#include "base/rpc.h"
#include "services/convert/gateway_messages.h"
#include "services/convert/ids.h"
#include "services/convert/transfer_messages.h"
#include "services/convert/worker_messages.h"

namespace triptych::services {
namespace {

using scheduler::Incarnation;

constexpr int kExitGivenUp = 3;
// More workers than one scheduler serves; strangers may say hello too.
constexpr size_t kMaxAddresses = 4096;
// As many as a scheduler remembers.
constexpr size_t kMaxLostPeers = 4096;

int64_t Microseconds(base::Duration duration) {
  return std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
}

v1::StageTimes ToProto(const StageTimes& times) {
  v1::StageTimes out;
  out.set_media_decode_us(Microseconds(times.media_decode));
  out.set_encode_us(Microseconds(times.encode));
  out.set_embedding_transfer_us(Microseconds(times.embedding_transfer));
  out.set_embedding_bytes(times.embedding_bytes);
  out.set_prefill_us(Microseconds(times.prefill));
  out.set_kv_transfer_us(Microseconds(times.kv_transfer));
  out.set_kv_bytes(times.kv_bytes);
  return out;
}

}  // namespace

GrpcLinks::GrpcLinks(scheduler::WorkerProfile profile, base::RpcSecurity security,
                     const base::Clock& clock, base::Logger& log, InputPuller* puller)
    : profile_(std::move(profile)),
      security_(std::move(security)),
      clock_(clock),
      log_(log),
      puller_(puller),
      tokens_(profile_.incarnation, TokenWiring()),
      handshakes_(profile_.incarnation, HandshakeWiring()) {}

GrpcLinks::~GrpcLinks() {
  control_.reset();
  tokens_.Stop();
  handshakes_.Stop();
}

GrpcLinks::TokenStreams::Wiring GrpcLinks::TokenWiring() {
  return {.connect =
              [this](const std::string& address) {
                std::shared_ptr<v1::Tokens::Stub> stub =
                    v1::Tokens::NewStub(base::Connect(address, security_, base::Role::kGateway));
                return [stub](grpc::ClientContext* context, auto* reactor) {
                  stub->async()->Stream(context, reactor);
                };
              },
          .on_batch = [this](Incarnation, v1::TokenReplies& replies) { OnTokenReplies(replies); },
          // What was not acknowledged goes out again, on a new stream that waits for the gateway.
          .on_lost =
              [this](const scheduler::PeerAddress& gateway) {
                loop_->PostTokenStreamReset(gateway.incarnation);
              }};
}

GrpcLinks::Handshakes::Wiring GrpcLinks::HandshakeWiring() {
  return {.connect =
              [this](const std::string& address) {
                std::shared_ptr<v1::Transfer::Stub> stub =
                    v1::Transfer::NewStub(base::Connect(address, security_, base::Role::kWorker));
                return [stub](grpc::ClientContext* context, auto* reactor) {
                  stub->async()->Handshake(context, reactor);
                };
              },
          .on_batch = [](Incarnation, v1::HandshakeClosed&) {},
          .hello =
              [this](Incarnation peer) {
                v1::TransferMessage message;
                v1::TransferHello* const hello = message.mutable_hello();
                hello->set_address(profile_.address);
                hello->set_name(profile_.name);
                if (pairing_ != nullptr) *hello->mutable_paths() = pairing_->PathsFor(peer);
                return message;
              }};
}

void GrpcLinks::Connect(const std::string& scheduler_address, WorkerLoop* loop) {
  loop_ = loop;
  scheduler_ =
      v1::Scheduler::NewStub(base::Connect(scheduler_address, security_, base::Role::kScheduler));
  Control::Callbacks callbacks;
  callbacks.start = [this](grpc::ClientContext* context, auto* reactor) {
    scheduler_->async()->WorkerControl(context, reactor);
  };
  callbacks.hello = [this](scheduler::SchedulerId highest) { return Hello(highest); };
  callbacks.on_welcome = [this](scheduler::SchedulerId id) {
    log_.Info("scheduler obeyed", {}, {{"term", static_cast<int64_t>(id.term)}});
  };
  callbacks.on_batch = [this](v1::SchedulerToWorkerBatch& batch) { OnControlBatch(batch); };
  callbacks.on_lost = [this] { log_.Warning("scheduler lost"); };
  // The cluster has given this incarnation up while it slept: nothing that it holds is of use, and
  // its supervisor starts it again as a new one.
  callbacks.on_rejected = [this] {
    log_.Error("given up by the cluster; ending");
    std::_Exit(kExitGivenUp);
  };
  control_ = std::make_unique<Control>(profile_.incarnation, clock_, std::move(callbacks));
}

bool GrpcLinks::connected() const { return control_ != nullptr && control_->connected(); }

void GrpcLinks::SetDraining() {
  base::MutexLock lock(&mutex_);
  draining_ = true;
}

std::optional<v1::WorkerToScheduler> GrpcLinks::Hello(scheduler::SchedulerId highest_seen) {
  std::optional<scheduler::WorkerReport> report = loop_->ReportForHello();
  if (!report.has_value()) return std::nullopt;
  scheduler::WorkerHello hello;
  hello.profile = profile_;
  hello.highest_seen = highest_seen;
  {
    base::MutexLock lock(&mutex_);
    hello.draining = draining_;
    hello.lost_peers.assign(lost_peers_.begin(), lost_peers_.end());
  }
  hello.report = *std::move(report);
  v1::WorkerToScheduler message;
  *message.mutable_hello() = services::ToProto(hello);
  return message;
}

void GrpcLinks::OnControlBatch(const v1::SchedulerToWorkerBatch& batch) {
  std::vector<scheduler::SchedulerToWorker> messages;
  for (const v1::SchedulerToWorker& message : batch.messages()) {
    if (message.has_welcome()) continue;
    if (message.has_peer_gone()) {
      loop_->PostScheduler(std::exchange(messages, {}));
      const Incarnation gone(message.peer_gone().incarnation());
      loop_->PostPeerLost(gone);
      base::MutexLock lock(&mutex_);
      lost_peers_.push_back(gone);
      if (lost_peers_.size() > kMaxLostPeers) lost_peers_.pop_front();
      continue;
    }
    absl::StatusOr<scheduler::SchedulerToWorker> plain = FromProto(message);
    if (plain.ok()) {
      messages.push_back(*std::move(plain));
    } else {
      log_.Error("message refused", {}, {{"status", plain.status().ToString()}});
    }
  }
  loop_->PostScheduler(std::move(messages));
}

void GrpcLinks::SendToScheduler(const scheduler::WorkerToScheduler& message) {
  if (control_ != nullptr) control_->Enqueue(services::ToProto(message));
}

void GrpcLinks::Pull(const scheduler::PullRequest& request, const scheduler::PeerAddress& gateway) {
  puller_->Pull(request, gateway);
}

void GrpcLinks::DropInput(scheduler::TaskId task) { puller_->Drop(task); }

void GrpcLinks::SendTransfer(const scheduler::PeerAddress& peer,
                             const scheduler::TransferMessage& message) {
  scheduler::PeerAddress to = peer;
  if (to.address.empty()) {
    base::MutexLock lock(&mutex_);
    auto it = addresses_.find(peer.incarnation);
    if (it == addresses_.end()) return;
    to.address = it->second;
  }
  if (auto stream = handshakes_.To(to)) stream->Enqueue(services::ToProto(message));
}

void GrpcLinks::SendTokens(const scheduler::PeerAddress& gateway,
                           const scheduler::TokenBatch& batch, const StageTimes* times) {
  auto stream = tokens_.To(gateway);
  if (stream == nullptr) return;
  v1::TokenBatch message = services::ToProto(batch);
  if (times != nullptr) *message.mutable_times() = ToProto(*times);
  stream->Enqueue(std::move(message));
}

void GrpcLinks::OnHello(Incarnation peer, const v1::TransferHello& hello) {
  {
    base::MutexLock lock(&mutex_);
    if (addresses_.size() >= kMaxAddresses && !addresses_.contains(peer)) return;
    addresses_[peer] = hello.address();
  }
  if (pairing_ != nullptr) pairing_->OnHello(peer, hello);
}

void GrpcLinks::OnTokenReplies(const v1::TokenReplies& replies) {
  std::vector<scheduler::TokenReply> plain;
  plain.reserve(replies.messages_size());
  for (const v1::TokenReply& reply : replies.messages()) {
    absl::StatusOr<scheduler::TokenReply> converted = FromProto(reply);
    if (converted.ok()) plain.push_back(*std::move(converted));
  }
  loop_->PostTokenReplies(std::move(plain));
}

void GrpcLinks::Flush() {
  if (control_ != nullptr) control_->Flush();
  puller_->Flush();
  tokens_.Flush();
  handshakes_.Flush();
}

void GrpcLinks::ForgetPeer(Incarnation peer) {
  {
    // First: an answer to its last message must not open another stream.
    base::MutexLock lock(&mutex_);
    addresses_.erase(peer);
  }
  if (pairing_ != nullptr) pairing_->Forget(peer);
  puller_->ForgetGateway(peer);
  tokens_.Forget(peer);
  handshakes_.Forget(peer);
}

}  // namespace triptych::services
