#pragma once

// One request's life as the cluster sees it: each state is a move-only value that owns the credits
// of the tasks that exist in it. Leaving a state gives back whatever the next one did not take.
//
//   InQueue -> InPrefill -> AwaitsDecode -> InHandover -> InDecode -> AtEnd
//
// A loss leads back to the furthest state whose results still exist.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "scheduler/cluster/ledger.h"
#include "scheduler/plan/gateway_messages.h"
#include "scheduler/plan/rank.h"

namespace triptych::scheduler {

// A task that lives on a worker.
struct PlacedTask {
  TaskId task;
  Incarnation worker;
  OutputEpoch epoch;
  int32_t prompt_tokens = 0;  // prefill: what its KV covers
  Credit credit;
};

struct ItemProgress {
  bool landed = false;
  std::optional<PlacedTask> encode;  // neither landed nor placed: waits for an encoder
  uint64_t told = 0;                 // sequence of the Rebind that names `encode`
};

struct InQueue {};

// A prompt has its place; items are on their way.
struct InPrefill {
  PlacedTask prefill;
  std::vector<ItemProgress> items;
  int32_t num_landed = 0;
};

// All items have landed: a decode worker is wanted, the prompt may still run.
struct AwaitsDecode {
  PlacedTask prefill;
  bool sampled = false;  // the first token exists
};

// The prefill worker pushes KV to the decode worker, and keeps it until decode has started.
struct InHandover {
  PlacedTask prefill;
  PlacedTask decode;
  bool sampled = false;
  uint64_t told = 0;  // sequence of the BindConsumer that names `decode`
};

struct InDecode {
  PlacedTask decode;
};

// The last token was sampled; the gateway will say that the request has ended.
struct AtEnd {
  PlacedTask last;
};

using RequestState = std::variant<InQueue, InPrefill, AwaitsDecode, InHandover, InDecode, AtEnd>;

struct Request {
  SubmitRequest submit;
  Rank rank;
  base::TimePoint admitted;
  base::TimePoint deadline = base::kNever;
  base::TimePoint decode_since = base::kNever;
  OutputEpoch epoch;  // of the next producer of tokens
  RequestState state;
  bool waiting = false;      // in its pool's central queue
  bool resubmitted = false;  // an earlier scheduler may have placed it
  int refusals = 0;
  int lost_workers = 0;
  int internal_failures = 0;
  int retries = 0;
  int preemptions = 0;  // never a reason to fail; each doubles the room that it is given to grow

  // What a prefill covers at least; the worker learns of tokens sent since by its pull.
  int32_t prompt_tokens() const { return submit.prompt_tokens + submit.tokens_sent; }
  // False when the token that a prefill of `covered` tokens (sent ones included) samples is the
  // last.
  bool NeedsDecode(int32_t covered) const {
    return submit.prompt_tokens + submit.max_tokens - covered != 1;
  }
  // 0 at first; then doubled each time that it had to give its memory to another.
  int32_t headroom_blocks() const { return preemptions == 0 ? 0 : 1 << std::min(preemptions, 12); }
  bool Needs(Stage stage) const;
  // The stage whose workers it waits for; nullopt while it has what it needs.
  std::optional<Stage> WaitsFor() const;
};

// Calls `visit` with every task that the request's state owns.
template <typename Visit>
void ForEachTask(const Request& request, Visit visit) {
  if (const auto* prefilling = std::get_if<InPrefill>(&request.state)) {
    visit(prefilling->prefill);
    for (const ItemProgress& item : prefilling->items) {
      if (item.encode.has_value()) visit(*item.encode);
    }
  } else if (const auto* awaiting = std::get_if<AwaitsDecode>(&request.state)) {
    visit(awaiting->prefill);
  } else if (const auto* handing = std::get_if<InHandover>(&request.state)) {
    visit(handing->prefill);
    visit(handing->decode);
  } else if (const auto* decoding = std::get_if<InDecode>(&request.state)) {
    visit(decoding->decode);
  } else if (const auto* finishing = std::get_if<AtEnd>(&request.state)) {
    visit(finishing->last);
  }
}

}  // namespace triptych::scheduler
