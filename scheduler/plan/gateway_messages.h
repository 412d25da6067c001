#pragma once

// Gateway and scheduler (control stream), gateway and worker (payload pulls, token streams), as
// plain data.

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "scheduler/plan/ids.h"
#include "scheduler/plan/step_plan.h"
#include "scheduler/plan/worker_messages.h"
#include "scheduler/request/layout.h"

namespace triptych::scheduler {

// ---- gateway -> scheduler -----------------------------------------------------------------------

struct ItemCost {
  int64_t media_bytes = 0;
  int64_t pixels = 0;  // to decode
  int64_t patches = 0;
  int32_t num_tokens = 0;
  uint64_t content_key = 0;
};

// A request, without its payload. All costs were computed by the gateway from headers alone.
struct SubmitRequest {
  RequestId request;
  std::string fingerprint;
  std::string tenant;
  int32_t priority = 0;  // higher first
  int32_t prompt_tokens = 0;
  int32_t max_tokens = 0;
  std::vector<ItemCost> items;
  // Time left until the deadline; zero means none is set.
  base::Duration time_left{0};
  // Recovery after a scheduler's restart: how far the answer is. Zero for a new request.
  OutputEpoch epoch;
  int32_t tokens_sent = 0;
  uint64_t age = 0;  // as admitted
  // Its client named no length: max_tokens is a bound, and where memory ends the answer may end.
  bool open_ended = false;
};

// The request is over at the gateway, for whatever reason: release everything it holds.
struct RequestEnded {
  RequestId request;
};

struct GatewayHello {
  std::string name;
  Incarnation incarnation;
  std::string address;  // of its payload and token services
  std::string admin;
  int64_t pid = 0;
  SchedulerId highest_seen;
  bool draining = false;
  std::vector<Incarnation> known_peers;  // the last Membership that it heard
  std::vector<SubmitRequest> live;
  PassKey pass_key;  // for the passes of this gateway's tasks; its own for life
};

// Ten times a second, so that a silent gateway is noticed.
struct GatewayReport {
  int64_t live_requests = 0;
};

using GatewayToScheduler = std::variant<GatewayReport, SubmitRequest, RequestEnded>;

// ---- scheduler -> gateway -----------------------------------------------------------------------

struct RequestAdmitted {
  RequestId request;
  uint64_t age = 0;  // its place in the tenants' fair order, for the next scheduler too
};

// The one terminal that the scheduler decides: refused at once, or given up later. `retry_after` is
// zero where a retry makes no sense. Codes: RESOURCE_EXHAUSTED, UNAVAILABLE, DEADLINE_EXCEEDED,
// INTERNAL, FAILED_PRECONDITION.
struct RequestFailed {
  RequestId request;
  absl::Status status;
  base::Duration retry_after{0};
};

// The stages of one model that some worker takes work for: one that lives and does not drain.
struct ModelRoles {
  std::string fingerprint;
  Roles roles;
  friend bool operator==(const ModelRoles&, const ModelRoles&) = default;
};

// The processes that this scheduler knows, or what has changed of them since the last word;
// gateways give all back to the next scheduler, which then knows whom to wait for. And what the
// workers among them serve: a gateway is ready when its model has every stage.
struct Membership {
  bool whole = false;  // `peers` are all, not only those that have come
  std::vector<Incarnation> peers;
  std::vector<Incarnation> gone;
  std::vector<ModelRoles> models;  // by fingerprint; those with a role
};

// For the request's timeline; advisory.
struct RequestProgress {
  RequestId request;
  enum class Milestone : uint8_t { kPlaced, kItemsEncoded, kPrefilled, kDecodeBound } milestone{};
};

using SchedulerToGateway =
    std::variant<RequestAdmitted, RequestFailed, Membership, RequestProgress>;

// ---- worker <-> gateway -------------------------------------------------------------------------

// Pull the input of a task. For a producer of tokens (prefill, decode) it is the fence: the gateway
// raises its epoch to `epoch` and freezes the prefix in the same step. FAILED_PRECONDITION when the
// gateway has seen a higher epoch; NOT_FOUND when it does not know the request.
struct PullRequest {
  RequestId request;
  TaskId task;
  Stage stage = Stage::kPrefill;
  OutputEpoch epoch;
  int32_t item = -1;  // encode: which media to send
  uint64_t pass = 0;  // of the task, see task_pass.h
};

// What the pull returns beside media bytes (those stay outside of the machines).
struct PulledInput {
  std::vector<Segment> segments;
  std::vector<int32_t> prefix_tokens;  // frozen: already sent
  SamplingParams sampling;
  int32_t max_tokens = 0;  // of the whole answer, prefix included
  int32_t min_tokens = 0;  // no stop token is drawn among these
  std::vector<int32_t> stop_token_ids;
  // At least two tokens each: runs that the answer never holds. One token alone is a bias.
  std::vector<TokenRun> bad_words;
};

// Tokens [start_index, start_index + tokens.size()) of the answer, under one epoch. A worker keeps
// them until they are acknowledged.
struct TokenBatch {
  RequestId request;
  TaskId task;
  OutputEpoch epoch;
  int32_t start_index = 0;
  std::vector<SampledToken> tokens;
  Finish finish = Finish::kNone;  // of the last token
  // The request ends with this error instead (numerical_error); tokens are then empty.
  absl::Status error;
  uint64_t pass = 0;  // of the task, see task_pass.h
};

// The gateway's answer, cumulative.
struct TokenReply {
  enum class Kind : uint8_t {
    kAccepted,    // everything below next_index is safe
    kResumeFrom,  // a gap: send again from next_index
    kGone,        // unknown request, behind the fence or already over: stop
  };
  RequestId request;
  TaskId task;
  OutputEpoch epoch;
  Kind kind = Kind::kAccepted;
  int32_t next_index = 0;
  bool ended = false;  // the error of the batch that this answers has ended the request
};

}  // namespace triptych::scheduler
