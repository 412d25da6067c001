#include "services/scheduler/scheduler_core.h"

#include <algorithm>
#include <set>
#include <utility>

#include "services/convert/gateway_messages.h"
#include "services/convert/ids.h"
#include "services/convert/worker_messages.h"

namespace triptych::services {

using base::TimePoint;
using scheduler::Incarnation;

namespace {

grpc::Status Lost() { return {grpc::StatusCode::FAILED_PRECONDITION, "this incarnation was lost"}; }

v1::SchedulerToWorker PeerGone(Incarnation peer) {
  v1::SchedulerToWorker message;
  message.mutable_peer_gone()->set_incarnation(peer.value());
  return message;
}

}  // namespace

SchedulerCore::SchedulerCore(scheduler::ClusterConfig config, Incarnation own,
                             const base::Clock& clock, base::Logger& log, SchedulerMetrics& metrics)
    : own_(own),
      clock_(clock),
      log_(log),
      metrics_(metrics),
      cluster_(std::move(config), own),
      next_metrics_(clock.Now()),
      thread_([this] { Run(); }) {}

void SchedulerCore::Stop() {
  events_.Close();
  if (thread_.joinable()) thread_.join();
}

bool SchedulerCore::Post(Event event) {
  if (events_.TryPush(std::move(event))) return true;
  if (!events_.closed()) metrics_.OnDroppedEvent();
  return false;
}

void SchedulerCore::PostWorkerHello(std::shared_ptr<WorkerStream> stream,
                                    scheduler::WorkerHello hello) {
  const bool posted = Post([this, stream, hello = std::move(hello)](TimePoint now) {
    const Incarnation worker = hello.profile.incarnation;
    if (lost_.contains(worker.value())) return stream->Close(Lost());
    if (!cluster_.HasRoomFor(hello.profile.fingerprint)) {
      stream->Close({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many workers or models"});
      return;
    }
    // What an earlier scheduler gave up, its peers hear no more. Who comes after the recovery and
    // has given up somebody who lives here is itself given up: nobody drops another by a word.
    for (const Incarnation peer : hello.lost_peers) {
      if (cluster_.recovering() || !workers_.contains(peer)) continue;
      cluster_.OnPeerLost(worker, now);
      RunActions();
      RememberLost(worker);
      return stream->Close(Lost());
    }
    for (const Incarnation peer : hello.lost_peers) {
      if (!lost_.contains(peer.value())) cluster_.OnPeerLost(peer, now);
    }
    RunActions();
    log_.Info("worker connected", {},
              {{"name", hello.profile.name}, {"roles", ToString(hello.profile.roles)}});
    std::shared_ptr<WorkerStream>& slot = workers_[worker];
    if (slot != nullptr) slot->Close(grpc::Status(grpc::StatusCode::ABORTED, "replaced"));
    slot = stream;
    cluster_.OnWorkerConnected(hello, now);
    stream->set_envelope(EnvelopeTo(worker));
    v1::SchedulerToWorker welcome;
    welcome.mutable_welcome();
    stream->Send(std::move(welcome));
    // It may have been away when the others were told.
    const std::set<Incarnation> known(hello.lost_peers.begin(), hello.lost_peers.end());
    for (uint64_t lost : lost_in_order_) {
      if (!known.contains(Incarnation(lost))) stream->Enqueue(PeerGone(Incarnation(lost)));
    }
    stream->Flush();
  });
  // A peer that is never welcomed must not wait for ever: it tries again.
  if (!posted) stream->Close({grpc::StatusCode::UNAVAILABLE, "try again"});
}

void SchedulerCore::PostGatewayHello(std::shared_ptr<GatewayStream> stream,
                                     scheduler::GatewayHello hello) {
  const bool posted = Post([this, stream, hello = std::move(hello)](TimePoint now) {
    log_.Info("gateway connected", {}, {{"name", hello.name}, {"live", hello.live.size()}});
    std::shared_ptr<GatewayStream>& slot = gateways_[hello.incarnation];
    if (slot != nullptr) slot->Close(grpc::Status(grpc::StatusCode::ABORTED, "replaced"));
    slot = stream;
    cluster_.OnGatewayConnected(hello, now);
    stream->set_envelope(EnvelopeTo(hello.incarnation));
    v1::SchedulerToGateway welcome;
    welcome.mutable_welcome();
    stream->Send(std::move(welcome));
  });
  if (!posted) stream->Close({grpc::StatusCode::UNAVAILABLE, "try again"});
}

void SchedulerCore::PostWorkerMessages(std::shared_ptr<WorkerStream> stream,
                                       std::vector<scheduler::WorkerToScheduler> messages) {
  Post([this, stream = std::move(stream), messages = std::move(messages)](TimePoint now) {
    if (!IsCurrent(workers_, stream.get())) return;
    const Incarnation worker(stream->peer());
    for (const auto& message : messages) cluster_.OnWorkerMessage(worker, message, now);
  });
}

void SchedulerCore::PostGatewayMessages(std::shared_ptr<GatewayStream> stream,
                                        std::vector<scheduler::GatewayToScheduler> messages) {
  Post([this, stream = std::move(stream), messages = std::move(messages)](TimePoint now) {
    if (!IsCurrent(gateways_, stream.get())) return;
    const Incarnation gateway(stream->peer());
    for (const auto& message : messages) cluster_.OnGatewayMessage(gateway, message, now);
  });
}

template <typename Stream>
bool SchedulerCore::IsCurrent(const Streams<Stream>& streams, const Stream* stream) {
  auto it = streams.find(Incarnation(stream->peer()));
  return it != streams.end() && it->second.get() == stream;
}

void SchedulerCore::PostClosed(const WorkerStream* stream) {
  Post([this, stream, peer = Incarnation(stream->peer())](TimePoint now) {
    auto it = workers_.find(peer);
    if (it == workers_.end() || it->second.get() != stream) return;
    log_.Warning("worker disconnected", {}, {{"incarnation", static_cast<int64_t>(peer.value())}});
    workers_.erase(it);
    cluster_.OnPeerDisconnected(peer, now);
  });
}

void SchedulerCore::PostClosed(const GatewayStream* stream) {
  Post([this, stream, peer = Incarnation(stream->peer())](TimePoint now) {
    auto it = gateways_.find(peer);
    if (it == gateways_.end() || it->second.get() != stream) return;
    log_.Warning("gateway disconnected", {}, {{"incarnation", static_cast<int64_t>(peer.value())}});
    gateways_.erase(it);
    cluster_.OnPeerDisconnected(peer, now);
  });
}

bool SchedulerCore::PostSnapshot(OnSnapshot done) {
  return Post([this, done = std::move(done)](TimePoint now) { done(cluster_.Snapshot(now)); });
}

bool SchedulerCore::PostDrain(std::string name, std::function<void(absl::Status)> done) {
  return Post([this, name = std::move(name), done = std::move(done)](TimePoint now) {
    for (const auto& worker : cluster_.Snapshot(now).workers) {
      if (worker.profile.name != name) continue;
      cluster_.Drain(worker.profile.incarnation, now);
      done(absl::OkStatus());
      return;
    }
    done(absl::NotFoundError("no worker of that name"));
  });
}

void SchedulerCore::Run() {
  while (true) {
    const TimePoint until = std::min(next_metrics_, cluster_.NextDeadline());
    std::deque<Event> events = events_.PopAll(until, pacer_.NotBefore());
    pacer_.OnRound(clock_.Now());
    if (events.empty() && events_.closed()) return;
    TimePoint now = clock_.Now();
    for (Event& event : events) {
      event(now);
      // At once: what an event says to streams itself (welcome, a peer that is gone) must not
      // overtake what earlier events have decided.
      RunActions();
    }
    cluster_.OnTime(now);
    RunActions();
    Flush();
    recovering_.store(cluster_.recovering());
    if (now >= next_metrics_) {
      metrics_.OnSnapshot(cluster_.Snapshot(now));
      next_metrics_ = now + kMetricsInterval;
    }
  }
}

void SchedulerCore::Flush() {
  for (auto& [worker, stream] : workers_) stream->Flush();
  for (auto& [gateway, stream] : gateways_) stream->Flush();
}

void SchedulerCore::RunActions() {
  if (stamped_ != cluster_.id()) StampStreams();
  for (const scheduler::ClusterAction& action : cluster_.TakeActions()) {
    std::visit([&](const auto& a) { Do(a); }, action);
  }
}

void SchedulerCore::Do(const scheduler::ToWorker& action) {
  auto it = workers_.find(action.worker);
  if (it != workers_.end()) it->second->Enqueue(ToProto(action.message));
}

void SchedulerCore::Do(const scheduler::ToGateway& action) {
  auto it = gateways_.find(action.gateway);
  if (it != gateways_.end()) it->second->Enqueue(ToProto(action.message));
}

// The cluster has given the peer up already. Its stream may take long to end (a stopped process
// reads nothing), so nothing waits for that.
void SchedulerCore::Do(const scheduler::DropPeer& action) {
  const bool lost = action.why == scheduler::DropPeer::Why::kLost;
  const grpc::Status status =
      lost ? Lost() : grpc::Status(grpc::StatusCode::UNAVAILABLE, "say hello again");
  CloseStream(&workers_, action.peer, status);
  CloseStream(&gateways_, action.peer, status);
  if (!lost) return;
  log_.Warning("peer lost", {}, {{"incarnation", static_cast<int64_t>(action.peer.value())}});
  if (RememberLost(action.peer)) TellPeerGone(action.peer);
}

template <typename Stream>
void SchedulerCore::CloseStream(Streams<Stream>* streams, Incarnation peer,
                                const grpc::Status& status) {
  auto it = streams->find(peer);
  if (it == streams->end()) return;
  it->second->Close(status);
  streams->erase(it);
}

bool SchedulerCore::RememberLost(Incarnation peer) {
  if (!lost_.insert(peer.value()).second) return false;
  lost_in_order_.push_back(peer.value());
  if (lost_in_order_.size() > kMaxLost) {
    lost_.erase(lost_in_order_.front());
    lost_in_order_.pop_front();
  }
  return true;
}

void SchedulerCore::TellPeerGone(Incarnation peer) {
  for (auto& [worker, stream] : workers_) stream->Send(PeerGone(peer));
}

void SchedulerCore::StampStreams() {
  stamped_ = cluster_.id();
  for (auto& [worker, stream] : workers_) stream->set_envelope(EnvelopeTo(worker));
  for (auto& [gateway, stream] : gateways_) stream->set_envelope(EnvelopeTo(gateway));
}

v1::Envelope SchedulerCore::EnvelopeTo(Incarnation peer) const {
  v1::Envelope envelope;
  *envelope.mutable_scheduler() = ToProto(cluster_.id());
  envelope.set_sender_incarnation(own_.value());
  envelope.set_receiver_incarnation(peer.value());
  return envelope;
}

}  // namespace triptych::services
