#pragma once

// One request's life as the cluster sees it: each state is a move-only value that owns the credits
// of the tasks that exist in it. Leaving a state gives back whatever the next one did not take.
//
//   InQueue -> InPrefill -> AwaitsDecode -> InHandover -> InDecode -> AtEnd
//
// A loss leads back to the furthest state whose results still exist.

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "scheduler/cluster/ledger.h"
#include "scheduler/plan/gateway_messages.h"

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
  uint64_t arrival = 0;  // order of admission
  base::TimePoint admitted;
  base::TimePoint deadline = base::kNever;
  OutputEpoch epoch;  // of the next producer of tokens
  RequestState state;
  bool waiting = false;      // in its pool's central queue
  bool resubmitted = false;  // an earlier scheduler may have placed it
  int refusals = 0;
  int lost_workers = 0;
  int internal_failures = 0;
  int retries = 0;

  // What a prefill covers at least; the worker learns of tokens sent since by its pull.
  int32_t prompt_tokens() const { return submit.prompt_tokens + submit.tokens_sent; }
  // False when the token that a prefill of `covered` tokens (sent ones included) samples is the
  // last.
  bool NeedsDecode(int32_t covered) const {
    return submit.prompt_tokens + submit.max_tokens - covered != 1;
  }
  bool Needs(Stage stage) const;
  // The stage whose workers it waits for; nullopt while it has what it needs.
  std::optional<Stage> WaitsFor() const;
};

}  // namespace triptych::scheduler
