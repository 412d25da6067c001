#include "scheduler/stage/admission.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "scheduler/stage/handover.h"

namespace triptych::scheduler {
namespace {

void Refuse(StageState& state, const TaskId& task) {
  state.Tell(TaskRefused{.task = task,
                         .free_kv_blocks = state.blocks.num_free(),
                         .free_embedding_slots = state.free_slots(),
                         .free_sequences = FreeSequences(state)});
}

// A task is admitted: its own from now on, with what `waiting` has reserved.
template <typename Task, typename Assign, typename Waiting>
Task& Add(StageState& state, std::map<TaskId, Task>& tasks, const Assign& assign, Waiting waiting) {
  Task& task = tasks[assign.task];
  task.assign = assign;
  task.life = ++state.last_life;
  task.state = std::move(waiting);
  return task;
}

template <typename Assign>
void AcceptAndPull(StageState& state, const Assign& assign, Stage stage, OutputEpoch epoch,
                   int32_t item) {
  state.Tell(TaskAccepted{assign.task});
  state.Emit(Pull{{.request = assign.request,
                   .task = assign.task,
                   .stage = stage,
                   .epoch = epoch,
                   .item = item,
                   .pass = assign.pass},
                  assign.gateway});
}

bool Takes(const StageState& state, Stage stage) {
  return !state.draining && state.config.profile.roles.has(stage);
}

// Encode tasks that still need the vision tower or their slots.
int32_t LiveEncodes(const StageState& state) {
  return static_cast<int32_t>(
      std::count_if(state.encodes.begin(), state.encodes.end(), [](const auto& entry) {
        return !std::holds_alternative<EncodeDelivered>(entry.second.state);
      }));
}

// Slots for all items, or nothing.
std::optional<std::vector<PrefillItem>> ReserveItems(StageState& state,
                                                     const AssignPrefill& assign) {
  std::vector<PrefillItem> items;
  for (int32_t tokens : assign.item_tokens) {
    PrefillItem item;
    item.num_tokens = tokens;
    if (tokens <= 0) return std::nullopt;
    item.slots = state.AllocateSlots(tokens);
    if (item.slots.empty()) return std::nullopt;
    items.push_back(std::move(item));
  }
  return items;
}

void ReleaseEncode(StageState& state, EncodeTask& task) {
  state.Emit(DropInput{task.assign.task});
  StopSending(state, task.outgoing);
  RetireSlots(state, task);
}

void ReleasePrefill(StageState& state, PrefillTask& task) {
  state.Emit(DropInput{task.assign.task});
  StopSending(state, task.outgoing);
  StopReceiving(state, task.assign.task);
  for (PrefillItem& item : task.items) state.steps.RetireSlots(std::move(item.slots));
  std::visit([&](auto& s) { state.steps.Retire(s.blocks.TakeBlocks()); }, task.state);
}

void ReleaseDecode(StageState& state, DecodeTask& task) {
  state.Emit(DropInput{task.assign.task});
  StopReceiving(state, task.assign.task);
  if (auto* s = std::get_if<AwaitingKv>(&task.state)) {
    state.steps.Retire(s->blocks.TakeBlocks());
  } else if (auto* running = std::get_if<Decoding>(&task.state)) {
    state.steps.Retire(running->blocks.TakeBlocks());
  }
}

}  // namespace

int32_t FreeSequences(const StageState& state) {
  int32_t live = 0;
  for (const auto& [id, task] : state.prefills) {
    const auto* kept = std::get_if<PrefillKept>(&task.state);
    if (kept == nullptr || !kept->taken_over) ++live;
  }
  for (const auto& [id, task] : state.decodes) {
    const bool waits_here = task.local && std::holds_alternative<AwaitingKv>(task.state);
    const bool over = std::holds_alternative<DecodeDelivered>(task.state);
    if (!waits_here && !over) ++live;
  }
  return std::max(0, state.config.profile.max_sequences - live);
}

void Admit(StageState& state, const AssignEncode& assign) {
  if (state.encodes.contains(assign.task)) return state.Tell(TaskAccepted{assign.task});
  const bool local = assign.consumer_worker.incarnation == state.own();
  if (!Takes(state, Stage::kEncode) || LiveEncodes(state) >= state.config.profile.max_encodes) {
    return Refuse(state, assign.task);
  }
  AwaitingMedia waiting;
  if (local) {
    if (!state.prefills.contains(assign.consumer)) {
      return state.Tell(TaskFailed{assign.task, absl::UnavailableError("consumer is gone")});
    }
  } else {
    if (assign.num_tokens > 0) waiting.slots = state.AllocateSlots(assign.num_tokens);
    if (waiting.slots.empty()) return Refuse(state, assign.task);
  }
  EncodeTask& task = Add(state, state.encodes, assign, std::move(waiting));
  task.local = local;
  AcceptAndPull(state, assign, Stage::kEncode, OutputEpoch(), assign.item);
  if (!local) OfferEmbedding(state, task);
}

void Admit(StageState& state, const AssignPrefill& assign) {
  if (const PrefillTask* known = Find(state.prefills, assign.task)) {
    state.Tell(TaskAccepted{assign.task});
    for (size_t i = 0; i < known->items.size(); ++i) {
      const PrefillItem& item = known->items[i];
      if (!item.landed) continue;
      state.Tell(
          ItemLanded{assign.task, {static_cast<int32_t>(i), *item.producer}, item.num_tokens});
    }
    const auto* kept = std::get_if<PrefillKept>(&known->state);
    if (kept != nullptr) state.Tell(FirstTokenSampled{assign.task, kept->finish});
    return;
  }
  BlockTable blocks(&state.blocks, state.config.profile.kv_block_tokens);
  if (!Takes(state, Stage::kPrefill) || FreeSequences(state) == 0 || assign.prompt_tokens <= 0 ||
      !blocks.Reserve(assign.prompt_tokens)) {
    return Refuse(state, assign.task);
  }
  auto items = ReserveItems(state, assign);
  if (!items.has_value()) {
    blocks.TakeBlocks();  // back at once, so that the refusal tells what is free
    return Refuse(state, assign.task);
  }
  PrefillTask& task = Add(state, state.prefills, assign, AwaitingPrompt{std::move(blocks)});
  task.items = std::move(*items);
  AcceptAndPull(state, assign, Stage::kPrefill, assign.epoch, -1);
  ExpectItems(state, task);
  for (const InputProducer& input : assign.inputs) BindProducer(state, task, input);
}

void Admit(StageState& state, const AssignDecode& assign) {
  if (const DecodeTask* known = Find(state.decodes, assign.task)) {
    state.Tell(TaskAccepted{assign.task});
    if (known->started) state.Tell(DecodeStarted{assign.task});
    if (std::holds_alternative<DecodeDelivered>(known->state)) {
      state.Tell(TaskDelivered{assign.task});
    }
    return;
  }
  const bool local = assign.producer_worker.incarnation == state.own();
  // What is here is finished, its decode too.
  const bool takes =
      local ? state.config.profile.roles.has(Stage::kDecode) : Takes(state, Stage::kDecode);
  if (!takes) return Refuse(state, assign.task);
  AwaitingKv waiting{.blocks = BlockTable(&state.blocks, state.config.profile.kv_block_tokens)};
  if (local) {
    const PrefillTask* producer = Find(state.prefills, assign.producer);
    const auto* kept = producer ? std::get_if<PrefillKept>(&producer->state) : nullptr;
    if (producer == nullptr || (kept != nullptr && kept->taken_over)) {
      // Not this task alone: as long as the prefill counts as kept, each decode would fail alike.
      Fail(state, assign.producer, absl::UnavailableError("its KV is gone"));
      return state.Tell(TaskFailed{assign.task, absl::UnavailableError("producer is gone")});
    }
  } else if (FreeSequences(state) == 0 || assign.prompt_tokens <= 0 ||
             !waiting.blocks.Reserve(assign.prompt_tokens)) {
    return Refuse(state, assign.task);
  }
  DecodeTask& task = Add(state, state.decodes, assign, std::move(waiting));
  task.local = local;
  AcceptAndPull(state, assign, Stage::kDecode, assign.epoch, -1);
  if (!local) ExpectKv(state, task);
}

void RetireSlots(StageState& state, EncodeTask& task) {
  std::visit(
      [&](auto& s) {
        if constexpr (requires { s.slots; }) state.steps.RetireSlots(std::move(s.slots));
      },
      task.state);
}

void Release(StageState& state, TaskId task) {
  state.over.Insert(task);
  if (EncodeTask* encode = Find(state.encodes, task)) {
    ReleaseEncode(state, *encode);
    state.encodes.erase(task);
  } else if (PrefillTask* prefill = Find(state.prefills, task)) {
    ReleasePrefill(state, *prefill);
    state.prefills.erase(task);
  } else if (DecodeTask* decode = Find(state.decodes, task)) {
    ReleaseDecode(state, *decode);
    state.decodes.erase(task);
  }
}

namespace {

void GiveUp(StageState& state, TaskFailed failed) {
  const TaskId task = failed.task;
  const PrefillTask* prefill = Find(state.prefills, task);
  const DecodeTask* decode = Find(state.decodes, task);
  if (prefill != nullptr && prefill->outbox) failed.tokens_sent = prefill->outbox->acknowledged();
  if (decode != nullptr && decode->outbox) failed.tokens_sent = decode->outbox->acknowledged();
  Release(state, task);
  state.Tell(std::move(failed));
}

}  // namespace

void Fail(StageState& state, TaskId task, absl::Status status, Incarnation peer) {
  GiveUp(state, {.task = task, .status = std::move(status), .peer = peer});
}

void Preempt(StageState& state, TaskId task) {
  GiveUp(state, {.task = task, .status = absl::AbortedError("preempted"), .preempted = true});
}

}  // namespace triptych::scheduler
