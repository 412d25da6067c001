#include "scheduler/stage/inventory.h"

#include <algorithm>
#include <set>
#include <utility>

#include "scheduler/stage/admission.h"

namespace triptych::scheduler {
namespace {

TaskReport Line(const EncodeTask& task) {
  TaskReport line{.task = task.assign.task,
                  .request = task.assign.request,
                  .stage = Stage::kEncode,
                  .item = task.assign.item,
                  .consumer = task.assign.consumer};
  const bool waiting = std::holds_alternative<AwaitingMedia>(task.state) ||
                       std::holds_alternative<EncodeReady>(task.state);
  line.state = waiting ? TaskState::kAccepted : TaskState::kRunning;
  if (std::holds_alternative<EncodeDelivered>(task.state)) line.state = TaskState::kDelivered;
  return line;
}

TaskReport Line(const PrefillTask& task) {
  TaskReport line{.task = task.assign.task,
                  .request = task.assign.request,
                  .stage = Stage::kPrefill,
                  .epoch = task.assign.epoch,
                  .prompt_tokens = task.assign.prompt_tokens};
  if (std::holds_alternative<Prefilling>(task.state)) line.state = TaskState::kRunning;
  if (const auto* kept = std::get_if<PrefillKept>(&task.state)) {
    line.state = TaskState::kDelivered;
    line.finish = kept->finish;
  }
  // Nobody's, once out of reach: were the scheduler not told, it would see that something is wrong.
  if (task.consumer.has_value() && !task.out_of_reach) line.consumer = task.consumer->consumer;
  for (size_t i = 0; i < task.items.size(); ++i) {
    const auto item = static_cast<int32_t>(i);
    if (task.items[i].landed) line.items_landed.push_back(item);
    if (task.items[i].producer) line.inputs.push_back({item, *task.items[i].producer});
  }
  return line;
}

TaskReport Line(const DecodeTask& task) {
  TaskReport line{.task = task.assign.task,
                  .request = task.assign.request,
                  .stage = Stage::kDecode,
                  .epoch = task.assign.epoch,
                  .producer = task.assign.producer};
  const bool waiting = std::holds_alternative<AwaitingKv>(task.state);
  line.state = waiting ? TaskState::kAccepted : TaskState::kRunning;
  if (std::holds_alternative<DecodeDelivered>(task.state)) line.state = TaskState::kDelivered;
  return line;
}

void AddLoads(const StageState& state, WorkerReport& report) {
  StageLoad& encode = report.load[static_cast<int>(Stage::kEncode)];
  for (const auto& [id, task] : state.encodes) {
    const bool waiting = std::holds_alternative<AwaitingMedia>(task.state) ||
                         std::holds_alternative<EncodeReady>(task.state);
    if (waiting) encode.queued_cost += task.assign.patches;
    if (std::holds_alternative<Encoding>(task.state)) encode.running_cost += task.assign.patches;
  }
  StageLoad& prefill = report.load[static_cast<int>(Stage::kPrefill)];
  for (const auto& [id, task] : state.prefills) {
    if (std::holds_alternative<AwaitingPrompt>(task.state)) {
      prefill.queued_cost += task.assign.prompt_tokens;
    } else if (const auto* running = std::get_if<Prefilling>(&task.state)) {
      prefill.running_cost += running->sequence.known_tokens() - running->sequence.done();
    }
  }
  StageLoad& decode = report.load[static_cast<int>(Stage::kDecode)];
  for (const auto& [id, task] : state.decodes) {
    if (std::holds_alternative<AwaitingKv>(task.state)) ++decode.queued_cost;
    if (std::holds_alternative<Decoding>(task.state)) ++decode.running_cost;
  }
  for (int stage = 0; stage < kNumStages; ++stage) {
    const auto of = static_cast<Stage>(stage);
    const Lane lane = of == Stage::kEncode ? Lane::kEncode : Lane::kLanguage;
    const StepCost& cost = state.cost[static_cast<int>(lane)];
    report.load[stage].fixed_seconds = cost.fixed_seconds(of);
    report.load[stage].seconds_per_unit = cost.seconds_per_unit(of);
  }
}

}  // namespace

WorkerReport MakeReport(const StageState& state, bool with_inventory) {
  WorkerReport report{.free_kv_blocks = state.blocks.num_free(),
                      .free_embedding_slots = state.free_slots(),
                      .free_sequences = FreeSequences(state),
                      .draining = state.draining};
  AddLoads(state, report);
  for (const StepCost& cost : state.cost) {
    report.prediction_error = std::max(report.prediction_error, cost.prediction_error());
  }
  report.has_inventory = with_inventory;
  if (!with_inventory) return report;
  for (const auto& [id, task] : state.encodes) report.tasks.push_back(Line(task));
  for (const auto& [id, task] : state.prefills) report.tasks.push_back(Line(task));
  for (const auto& [id, task] : state.decodes) report.tasks.push_back(Line(task));
  std::set<Incarnation> peers;
  state.sender.AddPeers(&peers);
  state.receiver.AddPeers(&peers);
  report.peers.assign(peers.begin(), peers.end());
  return report;
}

}  // namespace triptych::scheduler
