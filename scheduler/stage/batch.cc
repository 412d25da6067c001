#include "scheduler/stage/batch.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "scheduler/stage/admission.h"

namespace triptych::scheduler {
namespace {

// What of a step's budget is left.
struct Budget {
  int32_t tokens;
  int32_t rows;
  bool spent() const { return tokens <= 0 || rows <= 0; }
};

// False when there is nothing to do in it.
bool Submit(StageState& state, StepPlan plan, StepRecord record) {
  if (plan.empty()) return false;
  state.steps.Submitted(std::move(record));
  state.Emit(SubmitStep{std::move(plan)});
  return true;
}

// The pages that an encode task writes; null while it must not start.
const BlockHandle* EncodeTarget(StageState& state, const EncodeTask& task,
                                const EncodeReady& ready) {
  if (!task.local) return &ready.slots;
  const PrefillTask* consumer = Find(state.prefills, task.assign.consumer);
  const auto item = static_cast<size_t>(task.assign.item);
  if (consumer == nullptr || item >= consumer->items.size()) return nullptr;
  const PrefillItem& place = consumer->items[item];
  const bool expected = place.producer == task.assign.task && !place.landed;
  return expected && place.num_tokens == task.assign.num_tokens ? &place.slots : nullptr;
}

bool PlanEncodeStep(StageState& state) {
  StepPlan plan{.id = state.steps.next_id(Lane::kEncode), .lane = Lane::kEncode};
  StepRecord record{.id = plan.id, .lane = plan.lane};
  int64_t patches = 0;
  for (auto& [id, task] : state.encodes) {
    auto* ready = std::get_if<EncodeReady>(&task.state);
    if (ready == nullptr) continue;
    const BlockHandle* slots = EncodeTarget(state, task, *ready);
    if (slots == nullptr) continue;
    const int64_t cost = ready->grid.patches();
    if (patches > 0 && patches + cost > state.config.encode_patches_a_step) break;
    patches += cost;
    plan.encodes.push_back({id, ready->grid, task.assign.num_tokens, slots->Pages()});
    record.encodes.push_back({id, task.life, cost});
    const PrefillTask* consumer = Find(state.prefills, task.assign.consumer);
    const uint64_t life = task.local && consumer != nullptr ? consumer->life : 0;
    task.state = Encoding{std::move(ready->slots), plan.id, life};
  }
  return Submit(state, std::move(plan), std::move(record));
}

// The youngest prompt that waits with its KV for a decode worker: it may be waiting for this one,
// and so for the decode that wants its blocks.
std::optional<TaskId> YoungestKept(const StageState& state) {
  std::optional<TaskId> youngest;
  for (const auto& [id, task] : state.prefills) {
    const auto* kept = std::get_if<PrefillKept>(&task.state);
    if (kept != nullptr && kept->blocks.num_blocks() > 0) youngest = id;
  }
  return youngest;
}

// Takes blocks from the youngest decode tasks, then from the youngest kept prefills, until `needed`
// are free or are coming. False when the task has to wait, or was itself the one to go.
bool MakeRoom(StageState& state, const TaskId& task, int32_t needed) {
  while (state.blocks.num_free() < needed) {
    if (state.blocks.num_free() + state.steps.retired_blocks() >= needed) return false;
    TaskId youngest = task;
    bool is_oldest = true;
    for (const auto& [id, other] : state.decodes) {
      if (!std::holds_alternative<Decoding>(other.state)) continue;
      if (id < task) is_oldest = false;
      if (youngest < id) youngest = id;
    }
    if (youngest == task && is_oldest) {
      if (const std::optional<TaskId> kept = YoungestKept(state)) {
        Fail(state, *kept, absl::AbortedError("preempted"));
        continue;
      }
      const int32_t own = std::get<Decoding>(state.decodes.at(task).state).blocks.num_blocks();
      if (state.blocks.num_held() == own) {
        Fail(state, task, absl::ResourceExhaustedError("the answer outgrew the KV memory"));
      }
      return false;  // what runs or lands will give its blocks back
    }
    Fail(state, youngest, absl::AbortedError("preempted"));
    if (youngest == task) return false;
  }
  return true;
}

void AddRow(StepPlan& plan, StepRecord& record, PlanRow row, uint64_t life) {
  record.rows.push_back({row.task, life, static_cast<int32_t>(row.token_ids.size())});
  plan.rows.push_back(std::move(row));
}

void PlanDecodeRow(StageState& state, const TaskId& id, Budget& budget, StepPlan& plan,
                   StepRecord& record) {
  DecodeTask* task = Find(state.decodes, id);
  auto* running = task ? std::get_if<Decoding>(&task->state) : nullptr;
  if (running == nullptr) return;
  Sequence& sequence = running->sequence;
  const int32_t count = std::min({sequence.available(), state.config.chunk_tokens, budget.tokens});
  if (count == 0) return;
  const int32_t end = sequence.planned() + count;
  const int32_t missing =
      BlocksFor(end, state.config.profile.kv_block_tokens) - running->blocks.num_blocks();
  if (missing > 0 && !MakeRoom(state, id, missing)) return;
  running->blocks.Reserve(end);
  PlanRow row = sequence.TakeRow(plan.id, static_cast<int32_t>(plan.rows.size()), count);
  row.task = id;
  row.pages = running->blocks.Pages(end);
  AddRow(plan, record, std::move(row), task->life);
  budget.tokens -= count;
  --budget.rows;
}

void PlanDecodes(StageState& state, Budget& budget, StepPlan& plan, StepRecord& record) {
  std::vector<TaskId> ids;  // planning one may end others
  for (const auto& [id, task] : state.decodes) ids.push_back(id);
  for (const TaskId& id : ids) {
    if (budget.spent()) return;
    PlanDecodeRow(state, id, budget, plan, record);
  }
}

// The first token that may not be read yet: where an item begins that has not landed.
int32_t ReadableEnd(const PrefillTask& task, const Sequence& sequence) {
  for (size_t i = 0; i < task.items.size(); ++i) {
    if (!task.items[i].landed) return sequence.layout().items[i].begin;
  }
  return sequence.known_tokens();
}

std::vector<EmbeddingRange> EmbeddingsOf(const PrefillTask& task, const Sequence& sequence,
                                         int32_t begin, int32_t end) {
  std::vector<EmbeddingRange> ranges;
  for (size_t i = 0; i < task.items.size(); ++i) {
    const ItemSlots& item = sequence.layout().items[i];
    const int32_t from = std::max(begin, item.begin);
    const int32_t to = std::min(end, item.end);
    if (from >= to) continue;
    ranges.push_back({.row_offset = from - begin,
                      .count = to - from,
                      .item_begin = from - item.begin,
                      .pages = task.items[i].slots.Pages()});
  }
  return ranges;
}

void PlanPrefills(StageState& state, Budget& budget, StepPlan& plan, StepRecord& record) {
  for (auto& [id, task] : state.prefills) {
    if (budget.spent()) return;
    auto* running = std::get_if<Prefilling>(&task.state);
    if (running == nullptr) continue;
    Sequence& sequence = running->sequence;
    const int32_t begin = sequence.planned();
    const int32_t count = std::min({sequence.available(), state.config.chunk_tokens, budget.tokens,
                                    ReadableEnd(task, sequence) - begin});
    if (count <= 0) continue;
    PlanRow row = sequence.TakeRow(plan.id, static_cast<int32_t>(plan.rows.size()), count);
    row.task = id;
    row.embeddings = EmbeddingsOf(task, sequence, begin, begin + count);
    row.pages = running->blocks.Pages(begin + count);
    AddRow(plan, record, std::move(row), task.life);
    budget.tokens -= count;
    --budget.rows;
  }
}

bool PlanLanguageStep(StageState& state) {
  StepPlan plan{.id = state.steps.next_id(Lane::kLanguage), .lane = Lane::kLanguage};
  StepRecord record{.id = plan.id, .lane = plan.lane};
  Budget budget{state.config.step_tokens, state.config.max_batch};
  PlanDecodes(state, budget, plan, record);
  PlanPrefills(state, budget, plan, record);
  return Submit(state, std::move(plan), std::move(record));
}

}  // namespace

void PlanSteps(StageState& state) {
  const auto fill = [&](Lane lane, bool (*plan)(StageState&)) {
    while (state.steps.in_flight(lane) < state.config.max_steps_in_flight && plan(state)) {
    }
  };
  fill(Lane::kLanguage, PlanLanguageStep);
  fill(Lane::kEncode, PlanEncodeStep);
}

}  // namespace triptych::scheduler
