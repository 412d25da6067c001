#include "scheduler/delivery/delivery.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace triptych::scheduler {

// ---- requests -----------------------------------------------------------------------------------

absl::Status Delivery::Accept(SubmitRequest submit, PulledInput input, base::TimePoint deadline,
                              base::TimePoint now) {
  const RequestId id = submit.request;
  if (requests_.count(id) > 0) return absl::AlreadyExistsError("this request id is active");
  if (num_live() >= limits_.max_requests) {
    return absl::ResourceExhaustedError("too many live requests at this gateway");
  }
  if (waiting_ >= limits_.max_waiting) {
    return absl::UnavailableError("no scheduler, and too many requests wait for one");
  }
  Request& request = requests_[id];
  request = Request{.submit = std::move(submit), .input = std::move(input), .deadline = deadline};
  if (deadline != base::kNever) deadlines_.insert({deadline, id});
  if (connected_ && CanSubmit(request)) {
    request.submitted = true;
    actions_.emplace_back(SendGatewayMessage{Resubmission(&request, now)});
  } else {
    ++waiting_;
  }
  return absl::OkStatus();
}

void Delivery::End(RequestId request, const absl::Status& reason, base::TimePoint) {
  Conclude(request, reason, base::Duration(0));
}

// The one terminal. The scheduler hears of it if it may know the request: now, or after the hello
// that named the request and is still under way; a later hello does not name it.
void Delivery::Conclude(RequestId id, const absl::Status& status, base::Duration retry_after) {
  auto it = requests_.find(id);
  if (it == requests_.end()) return;
  if (!it->second.submitted) --waiting_;
  if (!connected_ && it->second.submitted) ended_since_hello_.push_back(id);
  deadlines_.erase({it->second.deadline, id});
  const OutputEpoch epoch = it->second.producers.epoch;
  requests_.erase(it);
  actions_.emplace_back(DeliverEnd{id, status, retry_after, epoch});
  if (connected_) actions_.emplace_back(SendGatewayMessage{RequestEnded{id}});
}

// ---- the scheduler ------------------------------------------------------------------------------

bool Delivery::IsOurs(const std::string& fingerprint) const {
  return fingerprint.compare(0, model_.size() + 1, model_ + ".") == 0;
}

void Delivery::ChoosePool() {
  if (model_.empty() || RolesOf(pool_).complete()) return;
  for (const ModelRoles& model : models_) {
    if (!IsOurs(model.fingerprint)) continue;
    if (pool_.empty()) pool_ = model.fingerprint;
    if (model.roles.complete()) {
      pool_ = model.fingerprint;
      return;
    }
  }
}

// A request without a pool gets one here. A scheduler that knows no worker of the model is asked
// all the same: the refusal is its own.
SubmitRequest Delivery::Resubmission(Request* from, base::TimePoint now) const {
  Request& request = *from;
  if (request.submit.fingerprint.empty()) request.submit.fingerprint = pool_;
  SubmitRequest submit = request.submit;
  if (submit.fingerprint.empty()) submit.fingerprint = model_;
  if (request.deadline != base::kNever) {
    // Zero would mean none; what has run out is ended here by OnTime.
    submit.time_left = std::max(base::Duration(1), request.deadline - now);
  }
  submit.epoch = request.producers.epoch;
  submit.tokens_sent = static_cast<int32_t>(request.sent.size());
  return submit;
}

std::vector<SubmitRequest> Delivery::Live(base::TimePoint now) {
  std::vector<SubmitRequest> live;
  ended_since_hello_.clear();
  waiting_ = 0;
  for (auto& [id, request] : requests_) {
    // What was told once is told again; the rest waits for the scheduler's own word.
    request.submitted = request.submitted || CanSubmit(request);
    if (request.submitted) {
      live.push_back(Resubmission(&request, now));
    } else {
      ++waiting_;
    }
  }
  return live;
}

void Delivery::OnSchedulerConnected(base::TimePoint now) {
  connected_ = true;
  for (RequestId id : std::exchange(ended_since_hello_, {})) {
    actions_.emplace_back(SendGatewayMessage{RequestEnded{id}});
  }
  SubmitWaiting(now);
}

void Delivery::SubmitWaiting(base::TimePoint now) {
  if (waiting_ == 0) return;
  for (auto& [id, request] : requests_) {
    if (request.submitted || !CanSubmit(request)) continue;
    request.submitted = true;
    --waiting_;
    actions_.emplace_back(SendGatewayMessage{Resubmission(&request, now)});
  }
}

void Delivery::OnSchedulerLost(base::TimePoint) {
  connected_ = false;
  told_ = false;
  models_.clear();
}

void Delivery::OnScheduler(const SchedulerToGateway& message, base::TimePoint now) {
  std::visit([&](const auto& m) { OnMessage(m, now); }, message);
}

void Delivery::OnMessage(const RequestAdmitted& admitted, base::TimePoint) {
  auto it = requests_.find(admitted.request);
  if (it == requests_.end()) return;
  it->second.submit.age = admitted.age;
  actions_.emplace_back(DeliverAdmitted{admitted.request});
}

void Delivery::OnMessage(const RequestFailed& failed, base::TimePoint) {
  Conclude(failed.request, failed.status, failed.retry_after);
}

void Delivery::OnMessage(const Membership& membership, base::TimePoint now) {
  if (membership.whole) peers_.clear();
  peers_.insert(membership.peers.begin(), membership.peers.end());
  for (Incarnation peer : membership.gone) peers_.erase(peer);
  models_ = membership.models;
  told_ = true;
  ChoosePool();
  if (connected_) SubmitWaiting(now);
}

Roles Delivery::RolesOf(const std::string& fingerprint) const {
  for (const ModelRoles& model : models_) {
    if (model.fingerprint == fingerprint) return model.roles;
  }
  return {};
}

void Delivery::OnMessage(const RequestProgress& progress, base::TimePoint) {
  if (requests_.count(progress.request) == 0) return;
  actions_.emplace_back(DeliverProgress{progress.request, progress.milestone});
}

// ---- workers ------------------------------------------------------------------------------------

// Task ids rise: with each assignment of a scheduler, and with each scheduler that is obeyed.
bool Delivery::Admit(const PullRequest& pull, Producers* producers) {
  if (pull.epoch < producers->epoch) return false;
  if (pull.epoch > producers->epoch) *producers = {.epoch = pull.epoch};
  std::optional<TaskId>& latest =
      pull.stage == Stage::kPrefill ? producers->prefill : producers->decode;
  if (latest > pull.task) return false;
  latest = pull.task;
  return true;
}

bool Delivery::IsHeard(const TokenBatch& batch, const Producers& producers) {
  return batch.epoch == producers.epoch &&
         (batch.task == producers.prefill || batch.task == producers.decode);
}

absl::StatusOr<PulledInput> Delivery::OnPull(const PullRequest& pull, base::TimePoint) {
  auto it = requests_.find(pull.request);
  if (it == requests_.end()) return absl::NotFoundError("no such request is live here");
  Request& request = it->second;
  if (pull.stage == Stage::kEncode) {
    if (pull.item < 0 || pull.item >= static_cast<int32_t>(request.submit.items.size())) {
      return absl::InvalidArgumentError("the request has no such item");
    }
    return request.input;
  }
  if (!Admit(pull, &request.producers)) {
    return absl::FailedPreconditionError("a later producer of this answer was here");
  }
  PulledInput input = request.input;
  input.prefix_tokens = request.sent;
  return input;
}

TokenReply Delivery::OnTokens(const TokenBatch& batch, base::TimePoint) {
  TokenReply reply{.request = batch.request, .task = batch.task, .epoch = batch.epoch};
  auto it = requests_.find(batch.request);
  if (it == requests_.end() || !IsHeard(batch, it->second.producers)) {
    reply.kind = TokenReply::Kind::kGone;
    return reply;
  }
  Request& request = it->second;
  const auto known = static_cast<int32_t>(request.sent.size());
  if (batch.start_index > known) {
    reply.kind = TokenReply::Kind::kResumeFrom;
    reply.next_index = known;
    return reply;
  }
  const int32_t end = batch.start_index + static_cast<int32_t>(batch.tokens.size());
  reply.next_index = std::max(known, end);
  if (!batch.error.ok()) {
    Conclude(batch.request, batch.error, base::Duration(0));
    reply.ended = true;
    return reply;
  }
  // Kept, it would reach every worker that the request is given to.
  for (const SampledToken& token : batch.tokens) {
    if (token.token >= 0 && token.token < limits_.vocab_size) continue;
    Conclude(batch.request, absl::InternalError("a worker sent a token that the model lacks"),
             base::Duration(0));
    return reply;
  }
  // What was a duplicate in every token may still bring the finish of the last one.
  const Finish finish = end >= known ? batch.finish : Finish::kNone;
  if (end > known || finish != Finish::kNone) {
    DeliverTokens deliver{.request = batch.request, .start_index = known, .finish = finish};
    for (int32_t i = known; i < end; ++i) {
      deliver.tokens.push_back(batch.tokens[i - batch.start_index]);
      request.sent.push_back(deliver.tokens.back().token);
    }
    actions_.emplace_back(std::move(deliver));
  }
  if (finish != Finish::kNone) Conclude(batch.request, absl::OkStatus(), base::Duration(0));
  return reply;
}

// ---- time ---------------------------------------------------------------------------------------

void Delivery::OnTime(base::TimePoint now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Conclude(deadlines_.begin()->second, absl::DeadlineExceededError("the request's deadline"),
             base::Duration(0));
  }
}

base::TimePoint Delivery::NextDeadline() const {
  return deadlines_.empty() ? base::kNever : deadlines_.begin()->first;
}

void Delivery::CheckInvariants() const {
  CHECK_LE(num_live(), limits_.max_requests);
  CHECK_LE(ended_since_hello_.size(), static_cast<size_t>(limits_.max_requests));
  int waiting = 0;
  size_t with_deadline = 0;
  for (const auto& [id, request] : requests_) {
    CHECK_TRUE(request.submit.request == id);
    waiting += request.submitted ? 0 : 1;
    CHECK_LE(static_cast<int64_t>(request.sent.size()), int64_t{request.submit.max_tokens});
    if (request.deadline == base::kNever) continue;
    ++with_deadline;
    CHECK_TRUE(deadlines_.contains({request.deadline, id}));
  }
  CHECK_EQ(waiting, waiting_);
  CHECK_EQ(with_deadline, deadlines_.size());
}

}  // namespace triptych::scheduler
