#include "services/scheduler/scheduler_core.h"

#include <algorithm>
#include <utility>

#include "services/convert/gateway_messages.h"
#include "services/convert/ids.h"
#include "services/convert/worker_messages.h"

namespace triptych::services {

using base::TimePoint;
using scheduler::Incarnation;

SchedulerCore::SchedulerCore(scheduler::ClusterConfig config, Incarnation own,
                             const base::Clock& clock, base::Logger& log, SchedulerMetrics& metrics)
    : own_(own),
      clock_(clock),
      log_(log),
      metrics_(metrics),
      cluster_(std::move(config), own),
      next_metrics_(clock.Now()),
      thread_([this] { Run(); }) {}

SchedulerCore::~SchedulerCore() {
  events_.Close();
  thread_.join();
}

void SchedulerCore::Post(Event event) {
  if (!events_.TryPush(std::move(event))) metrics_.OnDroppedEvent();
}

void SchedulerCore::PostWorkerHello(std::shared_ptr<WorkerStream> stream,
                                    scheduler::WorkerHello hello) {
  Post([this, stream = std::move(stream), hello = std::move(hello)](TimePoint now) {
    const Incarnation worker = hello.profile.incarnation;
    if (lost_workers_.contains(worker.value())) {
      stream->Close({grpc::StatusCode::FAILED_PRECONDITION, "this incarnation was lost"});
      return;
    }
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
  });
}

void SchedulerCore::PostGatewayHello(std::shared_ptr<GatewayStream> stream,
                                     scheduler::GatewayHello hello) {
  Post([this, stream = std::move(stream), hello = std::move(hello)](TimePoint now) {
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
}

void SchedulerCore::PostWorkerMessages(Incarnation worker,
                                       std::vector<scheduler::WorkerToScheduler> messages) {
  Post([this, worker, messages = std::move(messages)](TimePoint now) {
    for (const auto& message : messages) cluster_.OnWorkerMessage(worker, message, now);
  });
}

void SchedulerCore::PostGatewayMessages(Incarnation gateway,
                                        std::vector<scheduler::GatewayToScheduler> messages) {
  Post([this, gateway, messages = std::move(messages)](TimePoint now) {
    for (const auto& message : messages) cluster_.OnGatewayMessage(gateway, message, now);
  });
}

void SchedulerCore::PostClosed(const WorkerStream* stream) {
  Post([this, stream, peer = Incarnation(stream->peer())](TimePoint now) {
    auto it = workers_.find(peer);
    if (it == workers_.end() || it->second.get() != stream) return;
    log_.Warning("worker lost", {}, {{"incarnation", static_cast<int64_t>(peer.value())}});
    workers_.erase(it);
    if (lost_workers_.size() >= kMaxLost) lost_workers_.clear();
    lost_workers_.insert(peer.value());
    cluster_.OnPeerLost(peer, now);
    TellPeerGone(peer);
  });
}

void SchedulerCore::PostClosed(const GatewayStream* stream) {
  Post([this, stream, peer = Incarnation(stream->peer())](TimePoint now) {
    auto it = gateways_.find(peer);
    if (it == gateways_.end() || it->second.get() != stream) return;
    log_.Warning("gateway lost", {}, {{"incarnation", static_cast<int64_t>(peer.value())}});
    gateways_.erase(it);
    cluster_.OnPeerLost(peer, now);
    TellPeerGone(peer);
  });
}

void SchedulerCore::PostSnapshot(OnSnapshot done) {
  Post([this, done = std::move(done)](TimePoint now) { done(cluster_.Snapshot(now)); });
}

void SchedulerCore::PostDrain(std::string name, std::function<void(absl::Status)> done) {
  Post([this, name = std::move(name), done = std::move(done)](TimePoint now) {
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
    std::deque<Event> events = events_.PopAll(until);
    if (events.empty() && events_.closed()) return;
    TimePoint now = clock_.Now();
    for (Event& event : events) event(now);
    cluster_.OnTime(now);
    RunActions();
    if (now >= next_metrics_) {
      metrics_.OnSnapshot(cluster_.Snapshot(now));
      next_metrics_ = now + kMetricsInterval;
    }
  }
}

void SchedulerCore::RunActions() {
  if (stamped_ != cluster_.id()) StampStreams();
  for (const scheduler::ClusterAction& action : cluster_.TakeActions()) {
    std::visit([&](const auto& a) { Do(a); }, action);
  }
}

void SchedulerCore::Do(const scheduler::ToWorker& action) {
  auto it = workers_.find(action.worker);
  if (it != workers_.end()) it->second->Send(ToProto(action.message));
}

void SchedulerCore::Do(const scheduler::ToGateway& action) {
  auto it = gateways_.find(action.gateway);
  if (it != gateways_.end()) it->second->Send(ToProto(action.message));
}

void SchedulerCore::Do(const scheduler::DropPeer& action) {
  const grpc::Status status(grpc::StatusCode::UNAVAILABLE, "given up");
  if (auto it = workers_.find(action.peer); it != workers_.end()) it->second->Close(status);
  if (auto it = gateways_.find(action.peer); it != gateways_.end()) it->second->Close(status);
}

void SchedulerCore::TellPeerGone(Incarnation peer) {
  v1::SchedulerToWorker message;
  message.mutable_peer_gone()->set_incarnation(peer.value());
  for (auto& [worker, stream] : workers_) stream->Send(message);
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
