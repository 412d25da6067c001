#include "services/gateway/core/request_desk.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "base/status.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

using scheduler::Finish;
using scheduler::RequestId;

constexpr base::Duration kDrainRetryAfter = std::chrono::seconds(1);

int64_t Microseconds(base::Duration d) {
  return std::chrono::duration_cast<std::chrono::microseconds>(d).count();
}

// Batches of several workers, or of several tries, tell parts of one story: the largest counts.
void Merge(const StageTimes& times, Timeline* timeline) {
  const auto raise = [](int64_t value, int64_t* to) { *to = std::max(*to, value); };
  raise(times.media_decode_us, &timeline->media_decode_us);
  raise(times.encode_us, &timeline->encode_us);
  raise(times.embedding_transfer_us, &timeline->embedding_transfer_us);
  raise(times.embedding_bytes, &timeline->embedding_bytes);
  raise(times.prefill_us, &timeline->prefill_us);
  raise(times.kv_transfer_us, &timeline->kv_transfer_us);
  raise(times.kv_bytes, &timeline->kv_bytes);
}

std::string ResultOf(const AnswerEnd& end) {
  if (!end.status.ok()) return ToClientError(end.status).code;
  return end.finish == Finish::kLength ? "length" : "stop";
}

}  // namespace

RequestDesk::RequestDesk(const models::Tokenizer& tokenizer, std::string model,
                         scheduler::DeliveryLimits limits, GatewayMetrics* metrics,
                         base::Logger* log)
    : tokenizer_(tokenizer), metrics_(metrics), log_(log), delivery_(limits, std::move(model)) {}

void RequestDesk::Refuse(const NewRequest& request, const char* code) {
  AnswerEnd end;
  end.status = services::Refuse(code);
  end.retry_after = kDrainRetryAfter;
  metrics_->Refused(end.status);
  request.sink->OnEnd(end);
}

void RequestDesk::Start(NewRequest request, base::TimePoint now) {
  ParsedRequest& parsed = *request.parsed;
  if (draining_) return Refuse(request, "draining");
  if (by_client_id_.contains(parsed.client_id)) return Refuse(request, "request_id_active");
  parsed.submit.request = request.id;
  Usage usage{.prompt_tokens = parsed.submit.prompt_tokens,
              .picture_tokens = parsed.picture_tokens};
  const base::TimePoint deadline = request.accepted + parsed.timeout;
  const absl::Status accepted =
      delivery_.Accept(std::move(parsed.submit), std::move(parsed.input), deadline, now);
  if (!accepted.ok()) {
    return Refuse(request, absl::IsUnavailable(accepted) ? "unavailable" : "overloaded");
  }
  by_client_id_.emplace(parsed.client_id, request.id);
  records_.emplace(request.id, Record{.client_id = std::move(parsed.client_id),
                                      .owner = std::move(request.owner),
                                      .tag = std::move(parsed.tag),
                                      .trace = parsed.trace,
                                      .answer = Answer(tokenizer_, parsed.answer),
                                      .sink = std::move(request.sink),
                                      .payload = std::move(parsed.payload),
                                      .usage = usage,
                                      .accepted = request.accepted});
  metrics_->held_requests.Set(static_cast<double>(records_.size()));
  Flush(now);
}

void RequestDesk::Leave(RequestId id, base::TimePoint now) {
  GiveUp(id, services::Refuse("cancelled"), now);
}

void RequestDesk::GiveUp(RequestId id, const absl::Status& reason, base::TimePoint now) {
  delivery_.End(id, reason, now);
  Flush(now);
}

absl::Status RequestDesk::Cancel(const std::string& client_id, const std::string& owner,
                                 base::TimePoint now) {
  const auto found = by_client_id_.find(client_id);
  const bool owned = found != by_client_id_.end() && !owner.empty() &&
                     records_.at(RequestId(found->second)).owner == owner;
  if (!owned) return services::Refuse("not_found", "no such request");
  Leave(RequestId(found->second), now);
  return absl::OkStatus();
}

void RequestDesk::EndAll(base::TimePoint now) {
  std::vector<RequestId> ids;
  for (const auto& [id, record] : records_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (RequestId id : ids) delivery_.End(id, services::Refuse("draining"), now);
  Flush(now);
}

void RequestDesk::OnScheduler(const scheduler::SchedulerToGateway& message, base::TimePoint now) {
  delivery_.OnScheduler(message, now);
  Flush(now);
}

void RequestDesk::OnSchedulerConnected(base::TimePoint now) {
  delivery_.OnSchedulerConnected(now);
  Flush(now);
}

void RequestDesk::OnSchedulerLost(base::TimePoint now) {
  delivery_.OnSchedulerLost(now);
  Flush(now);
}

absl::StatusOr<PullAnswer> RequestDesk::Pull(const scheduler::PullRequest& pull,
                                             base::TimePoint now) {
  const auto found = records_.find(pull.request);
  if (found == records_.end()) return absl::NotFoundError("no such request");
  PullAnswer answer;
  const bool encode = pull.stage == scheduler::Stage::kEncode;
  if (encode) {
    const auto items = static_cast<int32_t>(found->second.payload->items.size());
    if (pull.item < 0 || pull.item >= items) return absl::InvalidArgumentError("no such item");
    answer.media = &found->second.payload->items[static_cast<size_t>(pull.item)];
  }
  ASSIGN_OR_RETURN(answer.input, delivery_.OnPull(pull, now));
  if (encode) {
    // The encoder wants to know the items' grids, and no text.
    std::erase_if(answer.input.segments, [](const scheduler::Segment& segment) {
      return std::holds_alternative<scheduler::TokenRun>(segment);
    });
  }
  Flush(now);
  return answer;
}

scheduler::TokenReply RequestDesk::Tokens(const scheduler::TokenBatch& batch,
                                          const StageTimes& times, base::TimePoint now) {
  if (const auto found = records_.find(batch.request); found != records_.end()) {
    Merge(times, &found->second.timeline);
  }
  scheduler::TokenReply reply = delivery_.OnTokens(batch, now);
  Flush(now);
  return reply;
}

void RequestDesk::Drain(base::TimePoint until, std::function<void()> idle) {
  draining_ = true;
  drain_until_ = until;
  idle_ = std::move(idle);
}

void RequestDesk::OnTime(base::TimePoint now) {
  delivery_.OnTime(now);
  Flush(now);
  if (idle_ == nullptr) return;
  if (now >= drain_until_) EndAll(now);
  if (!records_.empty()) return;
  drain_until_ = base::kNever;
  std::exchange(idle_, nullptr)();
}

std::vector<scheduler::GatewayToScheduler> RequestDesk::TakeMessages() {
  return std::exchange(messages_, {});
}

void RequestDesk::Flush(base::TimePoint now) {
  while (true) {
    std::vector<scheduler::DeliveryAction> actions = delivery_.TakeActions();
    if (actions.empty()) return;
    for (scheduler::DeliveryAction& action : actions) {
      std::visit([&](auto& a) { Carry(a, now); }, action);
    }
  }
}

void RequestDesk::Carry(scheduler::SendGatewayMessage& action, base::TimePoint) {
  messages_.push_back(std::move(action.message));
}

void RequestDesk::Carry(scheduler::DeliverProgress& action, base::TimePoint now) {
  const auto found = records_.find(action.request);
  if (found == records_.end()) return;
  Record& record = found->second;
  if (action.milestone == scheduler::RequestProgress::Milestone::kPlaced &&
      record.timeline.queue_us == 0) {
    record.timeline.queue_us = std::max<int64_t>(1, Microseconds(now - record.accepted));
  }
}

void RequestDesk::Carry(scheduler::DeliverAdmitted& action, base::TimePoint) {
  const auto found = records_.find(action.request);
  if (found != records_.end()) found->second.sink->OnAdmitted();
}

void RequestDesk::CountTokens(Record* record, size_t tokens, base::TimePoint now) {
  if (tokens == 0) return;
  if (record->first_token == base::TimePoint()) {
    record->first_token = now;
    metrics_->ttft_seconds.Observe(base::ToSeconds(now - record->accepted));
  } else {
    metrics_->itl_seconds.Observe(base::ToSeconds(now - record->last_token) /
                                  static_cast<double>(tokens));
  }
  record->last_token = now;
}

void RequestDesk::Carry(scheduler::DeliverTokens& action, base::TimePoint now) {
  const auto found = records_.find(action.request);
  if (found == records_.end() || found->second.answer.finish() != Finish::kNone) return;
  Record& record = found->second;
  CountTokens(&record, action.tokens.size(), now);
  AnswerPart part = record.answer.Push(std::move(action.tokens), action.finish);
  const bool stop_string =
      record.answer.finish() != Finish::kNone && action.finish == Finish::kNone;
  if (!part.text.empty() || !part.tokens.empty()) record.sink->OnPart(std::move(part));
  if (stop_string) delivery_.End(RequestId(action.request), absl::OkStatus(), now);
}

void RequestDesk::Carry(scheduler::DeliverEnd& action, base::TimePoint now) {
  const auto found = records_.find(action.request);
  if (found == records_.end()) return;
  // Out of the table first: the client may use the same id again as soon as it hears of the end.
  Record record = std::move(found->second);
  records_.erase(found);
  by_client_id_.erase(record.client_id);
  AnswerEnd end{.status = action.status,
                .retry_after = action.retry_after,
                .finish = record.answer.finish(),
                .usage = record.usage,
                .timeline = record.timeline};
  end.usage.output_tokens = record.answer.output_tokens();
  const base::Duration total = now - record.accepted;
  end.timeline.total_us = Microseconds(total);
  if (record.first_token != base::TimePoint()) {
    end.timeline.first_token_us = Microseconds(record.first_token - record.accepted);
    const base::Duration streaming = record.last_token - record.first_token;
    if (streaming > base::Duration(0)) {
      end.timeline.tokens_per_second = (end.usage.output_tokens - 1) / base::ToSeconds(streaming);
    }
  }
  metrics_->Ended(end);
  metrics_->held_requests.Set(static_cast<double>(records_.size()));
  LogEnd(action, record, end);
  if (on_ended_) {
    on_ended_({.request_id = ToString(action.request),
               .client_id = record.client_id,
               .tag = record.tag,
               .result = ResultOf(end),
               .usage = end.usage,
               .timeline = end.timeline,
               .trace = record.trace});
  }
  record.sink->OnEnd(end);
}

// One line an answer: from the client's own id to the one that scheduler and workers know.
void RequestDesk::LogEnd(const scheduler::DeliverEnd& action, const Record& record,
                         const AnswerEnd& end) {
  if (!log_->Writes(base::LogLevel::kInfo)) return;
  const base::LogContext context{
      .stage = "gateway", .request_id = ToString(action.request), .epoch = action.epoch.value()};
  log_->Info("request ended", context,
             {{"client_id", record.client_id},
              {"result", ResultOf(end)},
              {"tag", record.tag},
              {"trace_id", record.trace.exists() ? TraceIdText(record.trace) : std::string()},
              {"prompt_tokens", end.usage.prompt_tokens},
              {"picture_tokens", end.usage.picture_tokens},
              {"output_tokens", end.usage.output_tokens},
              {"queue_us", end.timeline.queue_us},
              {"encode_us", end.timeline.encode_us},
              {"prefill_us", end.timeline.prefill_us},
              {"first_token_us", end.timeline.first_token_us},
              {"total_us", end.timeline.total_us}});
}

}  // namespace triptych::services
