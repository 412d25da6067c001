#pragma once

// A gateway process: the real delivery machine, and clients that check every token against the
// answer that an undisturbed worker gives.

#include <map>
#include <string>
#include <vector>

#include "scheduler/delivery/delivery.h"
#include "tests/simulation/sim_cluster.h"

namespace triptych::simulation {

class SimGateway final : public ControlPeer {
 public:
  SimGateway(Cluster& cluster, Incarnation id);

  void AfterEvent() override;
  base::TimePoint NextWake() const override;
  void Wake() override;
  ToMachine Hello() override;
  void OnControlLost() override { delivery.OnSchedulerLost(world_.now()); }
  void Handle(const scheduler::SchedulerToGateway& message);

  // A random request; it may be cancelled or run into its deadline on the way.
  void Submit(double cancel_chance, double deadline_chance);

  bool IsOver(const scheduler::RequestId& request) const { return clients_.at(request).ended; }

  absl::StatusOr<scheduler::PulledInput> Pull(const scheduler::PullRequest& pull,
                                              Incarnation worker);
  scheduler::TokenReply Tokens(const scheduler::TokenBatch& batch);

  scheduler::Delivery delivery;
  bool draining = false;  // takes no new request

 private:
  struct Client {
    std::vector<int32_t> answer;
    size_t received = 0;
    scheduler::OutputEpoch epoch;  // the highest that a producer of tokens has pulled under
    std::map<scheduler::Stage, scheduler::TaskId> producers;  // the latest to pull under it
    bool ended = false;
    bool cancelled = false;
    base::TimePoint deadline = base::kNever;
    absl::StatusCode failed = absl::StatusCode::kOk;  // as a scheduler has said
  };
  void Do(const scheduler::DeliverAdmitted&) {}  // tells a client nothing that is checked here
  void Do(const scheduler::SendGatewayMessage& action);
  void Do(scheduler::DeliverTokens action);
  void Do(scheduler::DeliverEnd action);
  void Received(const scheduler::DeliverTokens& action);
  void Ended(const scheduler::DeliverEnd& action);
  void Do(const scheduler::DeliverProgress&) {}
  void Violated(const scheduler::RequestId& request, const std::string& what);

  World& world_;
  uint64_t last_request_ = 0;
  std::map<scheduler::RequestId, Client> clients_;
  base::TimePoint next_report_;
};

}  // namespace triptych::simulation
