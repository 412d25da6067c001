#include "scheduler/stage/batch.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
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

// A task's place in the order of all work: by the rank of its request; tasks of one rank as they
// were assigned.
using Place = std::pair<Rank, TaskId>;

template <typename Task>
std::vector<Place> InOrder(const std::map<TaskId, Task>& tasks) {
  std::vector<Place> places;
  places.reserve(tasks.size());
  for (const auto& [id, task] : tasks) places.emplace_back(task.assign.rank(), id);
  std::sort(places.begin(), places.end());
  return places;
}

// The blocks that a task holds, in whichever state; null where the state has none.
template <typename Task>
const BlockTable* BlocksOf(const Task& task) {
  return std::visit(
      [](const auto& s) -> const BlockTable* {
        if constexpr (requires { s.blocks; }) return &s.blocks;
        return nullptr;
      },
      task.state);
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
  for (const Place& place : InOrder(state.encodes)) {
    const TaskId& id = place.second;
    EncodeTask& task = state.encodes.at(id);
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

// Who gives its blocks up first: the last by rank of all tasks that hold any, and that come after
// `before`.
std::optional<Place> LastHolder(const StageState& state, const Place& before) {
  std::optional<Place> last;
  const auto look = [&](const auto& tasks) {
    for (const auto& [id, task] : tasks) {
      if constexpr (requires { task.served_in; }) {
        if (task.served_in == state.steps.next_id(Lane::kLanguage))
          continue;  // its row reads them in this step
      }
      const Place place(task.assign.rank(), id);
      if (place <= before || (last.has_value() && place < *last)) continue;
      const BlockTable* blocks = BlocksOf(task);
      if (blocks != nullptr && blocks->num_blocks() > 0) last = place;
    }
  };
  look(state.prefills);
  look(state.decodes);
  return last;
}

// Takes blocks from tasks that come after `task`, the last first, until `needed` are free or are
// coming. False when it has to wait: for a step that is under way, or for those that come before.
bool MakeRoom(StageState& state, const DecodeTask& task, int32_t needed) {
  const Place place(task.assign.rank(), task.assign.task);
  while (state.blocks.num_free() < needed) {
    if (state.blocks.num_free() + state.steps.retired_blocks() >= needed) return false;
    const std::optional<Place> last = LastHolder(state, place);
    // What runs or lands will give its blocks back; none asks for more than all of them.
    if (!last.has_value()) return false;
    Preempt(state, last->second);
  }
  return true;
}

void AddRow(StepPlan& plan, StepRecord& record, PlanRow row, uint64_t life, Stage stage) {
  record.rows.push_back(
      {row.task, life, static_cast<int32_t>(row.token_ids.size()), stage, row.token_begin});
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
  if (missing > 0 && !MakeRoom(state, *task, missing)) return;
  running->blocks.Reserve(end);
  PlanRow row = sequence.TakeRow(plan.id, static_cast<int32_t>(plan.rows.size()), count);
  row.task = id;
  row.pages = running->blocks.Pages(end);
  task->served_in = plan.id;
  AddRow(plan, record, std::move(row), task->life, Stage::kDecode);
  budget.tokens -= count;
  --budget.rows;
}

// Of one priority, whoever has waited longest for a row is first: with more sequences than rows,
// each gets its turn.
void PlanDecodes(StageState& state, Budget& budget, StepPlan& plan, StepRecord& record) {
  std::vector<std::tuple<int32_t, StepId, Place>> turns;  // planning one may end others
  for (const auto& [id, task] : state.decodes) {
    if (!std::holds_alternative<Decoding>(task.state)) continue;
    turns.emplace_back(-task.assign.priority, task.served_in, Place(task.assign.rank(), id));
  }
  std::sort(turns.begin(), turns.end());
  for (const auto& [priority, served_in, place] : turns) {
    if (budget.spent()) return;
    PlanDecodeRow(state, place.second, budget, plan, record);
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

// Tokens that the next step could take of a prefill, were it alone.
int32_t Runnable(const StageState& state, const PrefillTask& task) {
  const auto* running = std::get_if<Prefilling>(&task.state);
  if (running == nullptr) return 0;
  const Sequence& sequence = running->sequence;
  const int32_t readable = ReadableEnd(task, sequence) - sequence.planned();
  if (readable < sequence.available() && readable < state.config.least_early_tokens) return 0;
  return std::min({sequence.available(), state.config.chunk_tokens, readable});
}

// What a step keeps free of decodes, so that a prompt goes on beside them: one row with one chunk,
// or half of the tokens where a chunk is more. A step of a single row is theirs in turn.
Budget ShareOfPrefills(const StageState& state) {
  int32_t runnable = 0;
  for (const auto& [id, task] : state.prefills)
    runnable = std::max(runnable, Runnable(state, task));
  if (runnable <= 0) return {0, 0};
  const StageConfig& config = state.config;
  if (config.max_batch == 1 && state.steps.next_id(Lane::kLanguage).value() % 2 == 0) return {0, 0};
  return {std::min(runnable, std::max(1, config.step_tokens / 2)), 1};
}

void PlanPrefills(StageState& state, Budget& budget, StepPlan& plan, StepRecord& record) {
  for (const Place& place : InOrder(state.prefills)) {
    const TaskId& id = place.second;
    PrefillTask& task = state.prefills.at(id);
    if (budget.spent()) return;
    const int32_t count = std::min(Runnable(state, task), budget.tokens);
    if (count <= 0) continue;
    auto* running = &std::get<Prefilling>(task.state);
    Sequence& sequence = running->sequence;
    const int32_t begin = sequence.planned();
    PlanRow row = sequence.TakeRow(plan.id, static_cast<int32_t>(plan.rows.size()), count);
    row.task = id;
    row.embeddings = EmbeddingsOf(task, sequence, begin, begin + count);
    row.pages = running->blocks.Pages(begin + count);
    AddRow(plan, record, std::move(row), task.life, Stage::kPrefill);
    budget.tokens -= count;
    --budget.rows;
  }
}

bool PlanLanguageStep(StageState& state) {
  StepPlan plan{.id = state.steps.next_id(Lane::kLanguage), .lane = Lane::kLanguage};
  StepRecord record{.id = plan.id, .lane = plan.lane};
  Budget budget{state.config.step_tokens, state.config.max_batch};
  const Budget kept = ShareOfPrefills(state);
  budget.tokens -= kept.tokens;
  budget.rows -= kept.rows;
  PlanDecodes(state, budget, plan, record);
  budget.tokens += kept.tokens;
  budget.rows += kept.rows;
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
