#pragma once

// A worker process: the real stage scheduler over a modelled device in virtual time. Carries
// actions out as the worker's loop does.

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/modelled/simulated_executor.h"
#include "scheduler/stage/stage_scheduler.h"
#include "tests/simulation/sim_cluster.h"

namespace triptych::simulation {

// What a worker may have of its own.
struct Knobs {
  int32_t size = 1;  // times the blocks and slots of the shape
  double slowness = 1;
  int32_t chunk_tokens = 32;
  int max_batch = 8;
  int max_steps_in_flight = 2;
  int32_t layer_group = 2;     // two layers and one: a token range is two pieces
  int64_t staging_pieces = 6;  // of 100 tokens
  int64_t landing_pieces = 4;
};
Knobs KnobsOf(const ClusterShape& shape, Incarnation id);

class SimWorker final : public ControlPeer {
 public:
  SimWorker(Cluster& cluster, Incarnation id, const std::string& roles, const ClusterShape& shape);
  ~SimWorker() override;

  void AfterEvent() override;
  base::TimePoint NextWake() const override;
  void Wake() override;
  ToMachine Hello() override;
  void Handle(const scheduler::SchedulerToWorker& message);
  void OnPeerLost(Incarnation peer);
  // It holds nothing at all: no task, block, slot, buffer or patch.
  bool IsIdle() const;

  const std::string roles;
  scheduler::StageScheduler stage;
  engine::SimulatedExecutor executor;

 private:
  engine::ExecutorEvents Events();
  void Report();
  void Do(const scheduler::SendToScheduler& action);
  void Do(const scheduler::Pull& action);
  void Do(const scheduler::DropInput& action);
  void Do(const scheduler::SendTransfer& action);
  void Do(const scheduler::PostSend& action);
  void Do(const scheduler::PostReceive& action);
  void Do(scheduler::SubmitStep& action);
  void Do(scheduler::SubmitImport& action);
  void Do(scheduler::SubmitExport& action);
  void Do(scheduler::SendTokens action);
  void Do(const scheduler::AbortPeer& action);
  void CheckDraining();
  void Pulled(const scheduler::PullRequest& request, absl::StatusOr<scheduler::PulledInput> input);
  void ResetTokens(Incarnation gateway);

  void Finished(scheduler::StepResult result);

  World& world_;
  const scheduler::WorkerProfile profile_;
  std::unique_ptr<transport::LoopbackEndpoint> endpoint_;
  uint64_t handled_ = 0;
  std::vector<Incarnation> lost_peers_;
  int reports_ = 0;
  bool staging_kept_ = false;  // the sabotage has been done
  base::TimePoint next_report_;
  std::set<scheduler::TaskId> dropped_, answered_;
  std::optional<std::set<scheduler::TaskId>> taken_;  // what it had when it began to drain
};

}  // namespace triptych::simulation
