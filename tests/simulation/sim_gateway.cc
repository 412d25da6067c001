#include "tests/simulation/sim_gateway.h"

#include <algorithm>
#include <utility>

#include "tests/simulation/reference.h"

namespace triptych::simulation {

using std::chrono::milliseconds;

SimGateway::SimGateway(Cluster& cluster, Incarnation id)
    : ControlPeer(cluster, id), world_(cluster.world), next_report_(cluster.world.now()) {}

void SimGateway::AfterEvent() {
  for (scheduler::DeliveryAction& action : delivery.TakeActions()) {
    std::visit([this](auto& a) { Do(a); }, action);
  }
}

base::TimePoint SimGateway::NextWake() const {
  return std::min(delivery.NextDeadline(), next_report_);
}

void SimGateway::Wake() {
  delivery.OnTime(world_.now());
  if (next_report_ > world_.now()) return;
  next_report_ = world_.now() + milliseconds(100);
  Do(scheduler::SendGatewayMessage{scheduler::GatewayReport{delivery.num_live()}});
}

std::function<void(scheduler::ClusterScheduler&, base::TimePoint)> SimGateway::Hello() {
  scheduler::GatewayHello hello{.name = "gateway", .incarnation = id(), .highest_seen = highest};
  hello.address = "gateway" + std::to_string(id().value());
  hello.known_peers = delivery.known_peers();
  hello.live = delivery.Live(world_.now());
  delivery.OnSchedulerConnected(world_.now());
  return [hello](scheduler::ClusterScheduler& machine, base::TimePoint now) {
    machine.OnGatewayConnected(hello, now);
  };
}

void SimGateway::Handle(const scheduler::SchedulerToGateway& message) {
  delivery.OnScheduler(message, world_.now());
}

absl::StatusOr<scheduler::PulledInput> SimGateway::Pull(const scheduler::PullRequest& pull) {
  auto input = delivery.OnPull(pull, world_.now());
  if (input.ok() && pull.stage != scheduler::Stage::kEncode) {
    Client& client = clients_.at(pull.request);
    client.pulled = std::max(client.pulled, pull.epoch);
  }
  return input;
}

// All producers give the same tokens, so that the text cannot show whom they were taken from.
scheduler::TokenReply SimGateway::Tokens(const scheduler::TokenBatch& batch) {
  const scheduler::TokenReply reply = delivery.OnTokens(batch, world_.now());
  const bool taken = reply.kind != scheduler::TokenReply::Kind::kGone;
  if (taken && batch.epoch < clients_.at(batch.request).pulled) {
    Violated(batch.request, "a producer behind the fence was heard");
  }
  return reply;
}

void SimGateway::Submit(double cancel_chance, double deadline_chance) {
  const scheduler::RequestId request{id(), ++last_request_};
  SimRequest made = MakeRequest(world_.random, request);
  Client& client = clients_[request];
  client.answer = std::move(made.answer);
  base::TimePoint deadline = base::kNever;
  if (world_.random.Chance(deadline_chance)) {
    client.has_deadline = true;
    deadline = world_.now() + milliseconds(world_.random.Between(1, 3000));
  }
  const absl::Status status =
      delivery.Accept(std::move(made.submit), std::move(made.input), deadline, world_.now());
  if (!status.ok()) return Violated(request, "not accepted: " + status.ToString());
  if (!world_.random.Chance(cancel_chance)) return;
  client.cancelled = true;
  world_.At(milliseconds(world_.random.Between(0, 1000)), id(), [this, request] {
    delivery.End(request, absl::CancelledError("client left"), world_.now());
  });
}

void SimGateway::Do(const scheduler::SendGatewayMessage& action) {
  cluster_.ToScheduler(*this, [id = id(), message = action.message](
                                  scheduler::ClusterScheduler& machine, base::TimePoint now) {
    machine.OnGatewayMessage(id, message, now);
  });
}

void SimGateway::Do(const scheduler::DeliverTokens& action) {
  Client& client = clients_.at(action.request);
  if (client.ended) return Violated(action.request, "tokens after the end");
  if (static_cast<size_t>(action.start_index) != client.received) {
    return Violated(action.request, "a token is lost or comes twice");
  }
  for (const scheduler::SampledToken& token : action.tokens) {
    if (client.received >= client.answer.size() || token.token != client.answer[client.received]) {
      return Violated(action.request, "wrong token at index " + std::to_string(client.received));
    }
    ++client.received;
  }
}

void SimGateway::Do(const scheduler::DeliverEnd& action) {
  Client& client = clients_.at(action.request);
  if (client.ended) return Violated(action.request, "ended twice");
  client.ended = true;
  ++ends[action.status.code()];
  if (action.status.ok()) {
    if (client.received != client.answer.size()) Violated(action.request, "ended too early");
    return;
  }
  if (client.cancelled && absl::IsCancelled(action.status)) return;
  if (client.has_deadline && absl::IsDeadlineExceeded(action.status)) return;
  complaints.push_back(ToString(action.request) + ": " + action.status.ToString());
}

void SimGateway::Violated(const scheduler::RequestId& request, const std::string& what) {
  if (cluster_.failure.empty()) cluster_.failure = ToString(request) + ": " + what;
}

}  // namespace triptych::simulation
