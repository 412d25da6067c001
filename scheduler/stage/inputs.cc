#include "scheduler/stage/inputs.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "scheduler/request/layout.h"
#include "scheduler/stage/admission.h"
#include "scheduler/stage/token_flow.h"

namespace triptych::scheduler {
namespace {

SequenceLimits LimitsOf(const StageState& state, const PulledInput& input, int32_t sample_limit) {
  return {.sampling = input.sampling,
          .max_tokens = input.max_tokens,
          .sample_limit = sample_limit,
          .max_position = state.config.max_position,
          .min_tokens = input.min_tokens,
          .stop_token_ids = input.stop_token_ids,
          .bad_words = input.bad_words};
}

// Ids of tokens that another process sampled: one that the model does not have would end the
// engine, and then the next one that is given the request.
absl::Status CheckTokens(const StageState& state, absl::Span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (!state.config.IsToken(id)) {
      return absl::InternalError(absl::StrCat("the answer so far has a token ", id, " of ",
                                              state.config.layout.vocab_size));
    }
  }
  return absl::OkStatus();
}

template <typename Assign>
TokenProducer ProducerOf(const Assign& assign) {
  return {assign.request, assign.task, assign.epoch, assign.pass};
}

absl::Status CheckItems(const PrefillTask& task, const PromptLayout& layout) {
  if (layout.items.size() != task.items.size()) {
    return absl::InternalError(absl::StrCat("prompt has ", layout.items.size(),
                                            " items, the assignment ", task.items.size()));
  }
  for (size_t i = 0; i < layout.items.size(); ++i) {
    if (layout.items[i].size() == task.items[i].num_tokens) continue;
    return absl::InternalError(absl::StrCat("item ", i, " has ", layout.items[i].size(),
                                            " tokens, the assignment ", task.items[i].num_tokens));
  }
  return absl::OkStatus();
}

absl::Status StartPrefill(StageState& state, PrefillTask& task, PulledInput input) {
  auto* waiting = std::get_if<AwaitingPrompt>(&task.state);
  if (waiting == nullptr) return absl::OkStatus();
  auto layout = ResolveLayout(input.segments, {}, state.config.layout);
  if (!layout.ok()) return layout.status();
  if (absl::Status status = CheckItems(task, *layout); !status.ok()) return status;
  if (absl::Status status = CheckTokens(state, input.prefix_tokens); !status.ok()) return status;
  const auto prefix = static_cast<int32_t>(input.prefix_tokens.size());
  const int32_t total = layout->num_tokens() + prefix;
  if (total > state.config.max_position) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence of ", total, " tokens, at most ", state.config.max_position));
  }
  if (total < task.assign.prompt_tokens) {
    return absl::InternalError(
        absl::StrCat("pulled ", total, " tokens, the assignment has ", task.assign.prompt_tokens));
  }
  task.outbox.emplace(ProducerOf(task.assign), task.assign.gateway, prefix);
  // More tokens may have been sent than the scheduler knew of. The failure tells it.
  if (!waiting->blocks.Reserve(total)) return absl::AbortedError("no room for the sent tokens");
  SequenceLimits limits = LimitsOf(state, input, prefix + 1);
  Sequence sequence(std::move(*layout), std::move(input.prefix_tokens), 0, std::move(limits));
  task.state = Prefilling{std::move(waiting->blocks), std::move(sequence)};
  return absl::OkStatus();
}

// The grid of `item`; the input holds all segments or that item's alone.
const Item* ItemOf(const PulledInput& input, int32_t item) {
  std::vector<const Item*> items;
  for (const Segment& segment : input.segments) {
    if (const auto* found = std::get_if<Item>(&segment)) items.push_back(found);
  }
  if (items.size() == 1) return items.front();
  return item >= 0 && item < static_cast<int32_t>(items.size()) ? items[item] : nullptr;
}

absl::Status PrepareEncode(StageState& state, EncodeTask& task, const PulledInput& input) {
  auto* waiting = std::get_if<AwaitingMedia>(&task.state);
  if (waiting == nullptr) return absl::OkStatus();
  const Item* item = ItemOf(input, task.assign.item);
  if (item == nullptr) {
    return absl::InternalError(absl::StrCat("pulled input lacks item ", task.assign.item));
  }
  auto tokens = ItemTokens(item->grid, state.config.layout.merge_size);
  if (!tokens.ok()) return tokens.status();
  if (*tokens != task.assign.num_tokens) {
    return absl::InternalError(
        absl::StrCat("item of ", *tokens, " tokens, the assignment ", task.assign.num_tokens));
  }
  waiting->grid = item->grid;
  return absl::OkStatus();
}

}  // namespace

void InputPulled(StageState& state, const TaskId& id, absl::StatusOr<PulledInput> input) {
  EncodeTask* encode = Find(state.encodes, id);
  PrefillTask* prefill = Find(state.prefills, id);
  DecodeTask* decode = Find(state.decodes, id);
  if (encode == nullptr && prefill == nullptr && decode == nullptr) return;
  if (!input.ok()) {
    // An older epoch than the gateway's: the request has gone on elsewhere.
    const bool stale = absl::IsFailedPrecondition(input.status());
    return Fail(state, id,
                stale ? absl::NotFoundError("a newer epoch is running") : input.status());
  }
  absl::Status status;
  if (encode != nullptr) status = PrepareEncode(state, *encode, *input);
  if (prefill != nullptr) status = StartPrefill(state, *prefill, *std::move(input));
  if (!status.ok()) return Fail(state, id, std::move(status));
  if (decode == nullptr) return;
  auto* waiting = std::get_if<AwaitingKv>(&decode->state);
  if (waiting == nullptr || waiting->input.has_value()) return;
  waiting->input = *std::move(input);
  StartDecode(state, *decode);
}

void MediaReady(StageState& state, const TaskId& id, absl::StatusOr<Grid> grid) {
  EncodeTask* task = Find(state.encodes, id);
  auto* waiting = task ? std::get_if<AwaitingMedia>(&task->state) : nullptr;
  if (waiting == nullptr) return;
  absl::Status status = grid.status();
  if (status.ok() && !waiting->grid.has_value()) {
    status = absl::InternalError("media came before the input that describes them");
  }
  // The input and the media each name a grid, and nobody before has seen both.
  if (status.ok() && *waiting->grid != *grid) {
    status = absl::InternalError("the media have another grid than their item");
  }
  if (!status.ok()) return Fail(state, id, std::move(status));
  task->state = EncodeReady{std::move(waiting->slots), *grid};
}

void StartDecode(StageState& state, DecodeTask& task) {
  auto* waiting = std::get_if<AwaitingKv>(&task.state);
  if (waiting == nullptr || !waiting->input.has_value() || !waiting->first.has_value()) return;
  PulledInput input = *std::move(waiting->input);
  auto layout = ResolveLayout(input.segments, {}, state.config.layout);
  if (!layout.ok()) return Fail(state, task.assign.task, layout.status());
  const FirstToken first = *std::move(waiting->first);
  // The index is a peer's word; it is held against the answer's prefix below.
  const int64_t computed = int64_t{layout->num_tokens()} + first.index;
  const int64_t kv_tokens = task.local ? computed : task.assign.prompt_tokens;
  std::vector<int32_t> answer = std::move(input.prefix_tokens);
  const auto prefix = static_cast<int32_t>(answer.size());
  absl::Status tokens = CheckTokens(state, answer);
  if (tokens.ok()) tokens = CheckTokens(state, {first.token.token});
  if (!tokens.ok()) return Fail(state, task.assign.task, std::move(tokens));
  if (prefix < first.index || kv_tokens < layout->num_tokens() || kv_tokens > computed) {
    return Fail(state, task.assign.task,
                absl::InternalError(absl::StrCat("KV of ", kv_tokens, " tokens does not meet ",
                                                 layout->num_tokens(), " of the prompt and ",
                                                 prefix, " sent")));
  }
  SequenceLimits limits = LimitsOf(state, input, input.max_tokens);
  // Memory ends an answer as the context does: here no other could give it more.
  limits.max_position = static_cast<int32_t>(std::min<int64_t>(
      limits.max_position,
      int64_t{state.config.profile.kv_blocks} * state.config.profile.kv_block_tokens));
  task.outbox.emplace(ProducerOf(task.assign), task.assign.gateway, prefix);
  if (prefix == first.index) {
    // Prefill has streamed it too; whichever comes first counts.
    answer.push_back(first.token.token);
    task.outbox->Push(first.token);
  }
  Sequence sequence(std::move(*layout), std::move(answer), static_cast<int32_t>(kv_tokens),
                    std::move(limits));
  task.own_index = sequence.answer_tokens();
  if (const Finish finish = sequence.finish(); finish != Finish::kNone) {
    if (prefix > first.index) {
      return Fail(state, task.assign.task, absl::InternalError("the answer has already ended"));
    }
    task.outbox->End(finish);
    state.steps.Retire(waiting->blocks.TakeBlocks());
    task.state = DecodeConcluding{};
  } else {
    task.state = Decoding{std::move(waiting->blocks), std::move(sequence)};
  }
  FlushTokens(state, *task.outbox);
}

}  // namespace triptych::scheduler
