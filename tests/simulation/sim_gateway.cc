#include "tests/simulation/sim_gateway.h"

#include <algorithm>
#include <utility>

#include "scheduler/plan/task_pass.h"
#include "tests/simulation/reference.h"

namespace triptych::simulation {

using std::chrono::milliseconds;

namespace {

scheduler::PassKey PassKeyOf(Incarnation gateway) { return {gateway.value(), 1}; }

}  // namespace

SimGateway::SimGateway(Cluster& cluster, Incarnation id)
    : ControlPeer(cluster, id), world_(cluster.world), next_report_(cluster.world.now()) {}

void SimGateway::AfterEvent() {
  for (scheduler::DeliveryAction& action : delivery.TakeActions()) {
    std::visit([this](auto& a) { Do(a); }, action);
  }
  delivery.CheckInvariants();
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

ToMachine SimGateway::Hello() {
  scheduler::GatewayHello hello{.name = "gateway", .incarnation = id(), .highest_seen = highest};
  hello.pass_key = PassKeyOf(id());
  hello.address = "gateway" + std::to_string(id().value());
  hello.known_peers = delivery.known_peers();
  hello.live = delivery.Live(world_.now());
  delivery.OnSchedulerConnected(world_.now());
  return [hello](SimScheduler& at) { at.Handle(hello); };
}

void SimGateway::Handle(const scheduler::SchedulerToGateway& message) {
  if (const auto* failed = std::get_if<scheduler::RequestFailed>(&message)) {
    clients_.at(failed->request).failed = failed->status.code();
  }
  delivery.OnScheduler(message, world_.now());
  if (world_.random.Chance(world_.faults.repeat_control)) {
    delivery.OnScheduler(message, world_.now());
  }
}

absl::StatusOr<scheduler::PulledInput> SimGateway::Pull(const scheduler::PullRequest& pull,
                                                        Incarnation worker) {
  const scheduler::Errand errand{.request = pull.request,
                                 .task = pull.task,
                                 .worker = worker,
                                 .stage = pull.stage,
                                 .epoch = pull.epoch};
  if (pull.pass != scheduler::PassOf(PassKeyOf(id()), errand)) {
    Violated(pull.request, "a worker pulls without a pass");
  }
  auto input = delivery.OnPull(pull, world_.now());
  if (input.ok() && pull.stage != scheduler::Stage::kEncode) {
    Client& client = clients_.at(pull.request);
    if (pull.epoch > client.epoch) client.producers.clear();
    client.epoch = std::max(client.epoch, pull.epoch);
    client.producers[pull.stage] = pull.task;
  }
  return input;
}

// All producers give the same tokens, so that the text cannot show whom they were taken from.
scheduler::TokenReply SimGateway::Tokens(const scheduler::TokenBatch& batch) {
  scheduler::TokenBatch heard = batch;
  const auto it = clients_.find(batch.request);
  const bool known = it != clients_.end() && !it->second.producers.empty();
  if (cluster_.shape().sabotage == Sabotage::kFenceIgnored && known) {
    heard.epoch = it->second.epoch;
    heard.task = it->second.producers.begin()->second;
  }
  const scheduler::TokenReply reply = delivery.OnTokens(heard, world_.now());
  if (reply.kind == scheduler::TokenReply::Kind::kGone) return reply;
  const Client& client = clients_.at(batch.request);
  const bool latest = std::any_of(client.producers.begin(), client.producers.end(),
                                  [&](const auto& entry) { return entry.second == batch.task; });
  if (batch.epoch != client.epoch || !latest) {
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
    client.deadline = deadline = world_.now() + milliseconds(world_.random.Between(1, 3000));
  }
  const absl::Status status =
      delivery.Accept(std::move(made.submit), std::move(made.input), deadline, world_.now());
  if (!status.ok()) return Violated(request, "not accepted: " + status.ToString());
  if (!world_.random.Chance(cancel_chance)) return;
  world_.At(milliseconds(world_.random.Between(0, 1000)), id(), [this, request] {
    clients_.at(request).cancelled = true;
    delivery.End(request, absl::CancelledError("client left"), world_.now());
  });
}

void SimGateway::Do(const scheduler::SendGatewayMessage& action) {
  cluster_.ToScheduler(
      *this, [id = id(), message = action.message](SimScheduler& at) { at.Handle(id, message); });
}

void SimGateway::Do(scheduler::DeliverTokens action) {
  const Sabotage sabotage = cluster_.shape().sabotage;
  if (sabotage == Sabotage::kTokenLost && !action.tokens.empty()) action.tokens.pop_back();
  if (sabotage == Sabotage::kTokenWrong && !action.tokens.empty()) ++action.tokens[0].token;
  Received(action);
  if (sabotage == Sabotage::kTokenTwice) Received(action);
}

void SimGateway::Received(const scheduler::DeliverTokens& action) {
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

void SimGateway::Do(scheduler::DeliverEnd action) {
  const Sabotage sabotage = cluster_.shape().sabotage;
  if (sabotage == Sabotage::kEndMissing) return;
  if (sabotage == Sabotage::kEndWithoutReason) action.status = absl::UnavailableError("sabotage");
  if (sabotage == Sabotage::kEndEarly) --clients_.at(action.request).received;
  Ended(action);
  if (sabotage == Sabotage::kEndTwice) Ended(action);
}

void SimGateway::Ended(const scheduler::DeliverEnd& action) {
  Client& client = clients_.at(action.request);
  if (client.ended) return Violated(action.request, "ended twice");
  client.ended = true;
  const absl::StatusCode code = action.status.code();
  ++cluster_.ends[code];
  bool legitimate = client.failed == code;  // judged when it was said
  if (code == absl::StatusCode::kOk) legitimate = client.received == client.answer.size();
  if (code == absl::StatusCode::kInternal && cluster_.may_fail.contains(action.request)) {
    legitimate = true;
  }
  if (code == absl::StatusCode::kCancelled) legitimate = client.cancelled;
  if (code == absl::StatusCode::kDeadlineExceeded) legitimate = client.deadline <= world_.now();
  if (legitimate) return;
  Violated(action.request, "ended too early or without a reason: " + action.status.ToString());
}

void SimGateway::Violated(const scheduler::RequestId& request, const std::string& what) {
  cluster_.Violated(ToString(request) + ": " + what);
}

}  // namespace triptych::simulation
