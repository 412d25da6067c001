#pragma once

// All requests of one gateway, from acceptance to the one end: the delivery machine, the texts of
// the answers, and the sinks that they go to. No thread and no socket: GatewayCore runs it, tests
// script it.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/log.h"
#include "models/tokenizer/tokenizer.h"
#include "scheduler/delivery/delivery.h"
#include "services/gateway/core/answer.h"
#include "services/gateway/core/ended_requests.h"
#include "services/gateway/core/gateway_metrics.h"
#include "services/gateway/core/response_sink.h"
#include "services/gateway/request/parsed_request.h"

namespace triptych::services {

// What a worker measured of its part; all microseconds and bytes, 0 where it has no part.
struct StageTimes {
  int64_t media_decode_us = 0;
  int64_t encode_us = 0;
  int64_t embedding_transfer_us = 0;
  int64_t embedding_bytes = 0;
  int64_t prefill_us = 0;
  int64_t kv_transfer_us = 0;
  int64_t kv_bytes = 0;
};

// The answer to a pull. `media` is set for encode only: the request's own, valid until the desk is
// next called.
struct PullAnswer {
  scheduler::PulledInput input;
  const PayloadItem* media = nullptr;
};

// A request as a front end hands it over.
struct NewRequest {
  scheduler::RequestId id;
  std::unique_ptr<ParsedRequest> parsed;
  std::shared_ptr<ResponseSink>
      sink;           // shared with its front end, which may be gone before the end
  std::string owner;  // who may cancel it by its name; empty: nobody
  base::TimePoint accepted;
};

class RequestDesk {
 public:
  // Borrows tokenizer, metrics and log. `model`: the digest of the served model's texts.
  RequestDesk(const models::Tokenizer& tokenizer, std::string model,
              scheduler::DeliveryLimits limits, GatewayMetrics* metrics, base::Logger* log);

  // Called on the desk's thread with every request that was accepted and has ended.
  void set_on_ended(std::function<void(EndedRequest)> on_ended) { on_ended_ = std::move(on_ended); }

  // The sink hears of every refusal (client id active, desk full, draining), so nothing is
  // returned.
  void Start(NewRequest request, base::TimePoint now);
  // The client left: its sink hears CANCELLED.
  void Leave(scheduler::RequestId id, base::TimePoint now);
  // The same by the client's own name. NOT_FOUND, also for who is not its owner.
  absl::Status Cancel(const std::string& client_id, const std::string& owner, base::TimePoint now);
  // A front end refuses to go on (its client reads too slowly).
  void GiveUp(scheduler::RequestId id, const absl::Status& reason, base::TimePoint now);

  void OnScheduler(const scheduler::SchedulerToGateway& message, base::TimePoint now);
  void OnSchedulerConnected(base::TimePoint now);
  void OnSchedulerLost(base::TimePoint now);
  // NOT_FOUND, FAILED_PRECONDITION: see PullRequest. INVALID_ARGUMENT: no such item.
  absl::StatusOr<PullAnswer> Pull(const scheduler::PullRequest& pull, base::TimePoint now);
  scheduler::TokenReply Tokens(const scheduler::TokenBatch& batch, const StageTimes& times,
                               base::TimePoint now);

  // Refuses new requests from now on; calls `idle` once, when no request is left or, after ending
  // those that are, at `until`.
  void Drain(base::TimePoint until, std::function<void()> idle);
  // Ends every live request with UNAVAILABLE.
  void EndAll(base::TimePoint now);
  bool draining() const { return draining_; }
  size_t live() const { return records_.size(); }
  // For the hello: live requests, and the last membership heard.
  std::vector<scheduler::SubmitRequest> Live(base::TimePoint now) { return delivery_.Live(now); }
  std::vector<scheduler::Incarnation> known_peers() const { return delivery_.known_peers(); }
  // Whether the connected scheduler has a worker for every stage of the model.
  bool Served() const { return delivery_.RolesOf(delivery_.pool()).complete(); }
  // Of the workers that new requests go to; empty before one was heard of.
  const std::string& fingerprint() const { return delivery_.pool(); }

  base::TimePoint NextDeadline() const { return std::min(delivery_.NextDeadline(), drain_until_); }
  void OnTime(base::TimePoint now);
  // What is to be sent since the last call, in order.
  std::vector<scheduler::GatewayToScheduler> TakeMessages();

 private:
  struct Record {
    std::string client_id;
    std::string owner;
    std::string tag;
    TraceContext trace;
    Answer answer;
    std::shared_ptr<ResponseSink> sink;      // shared: see NewRequest
    std::shared_ptr<const Payload> payload;  // shared by the answers to one prompt
    Usage usage;
    Timeline timeline;
    base::TimePoint accepted;
    base::TimePoint first_token;
    base::TimePoint last_token;
  };

  void Refuse(const NewRequest& request, const char* code);
  // Carries out what the machine decided, until it has nothing more to say.
  void Flush(base::TimePoint now);
  void Carry(scheduler::SendGatewayMessage& action, base::TimePoint now);
  void Carry(scheduler::DeliverProgress& action, base::TimePoint now);
  void Carry(scheduler::DeliverAdmitted& action, base::TimePoint now);
  void Carry(scheduler::DeliverTokens& action, base::TimePoint now);
  void Carry(scheduler::DeliverEnd& action, base::TimePoint now);
  void LogEnd(const scheduler::DeliverEnd& action, const Record& record, const AnswerEnd& end);
  void CountTokens(Record* record, size_t tokens, base::TimePoint now);

  std::function<void(EndedRequest)> on_ended_;
  const models::Tokenizer& tokenizer_;
  GatewayMetrics* metrics_;
  base::Logger* log_;
  scheduler::Delivery delivery_;
  absl::flat_hash_map<scheduler::RequestId, Record> records_;
  absl::flat_hash_map<std::string, scheduler::RequestId> by_client_id_;
  std::vector<scheduler::GatewayToScheduler> messages_;
  bool draining_ = false;
  base::TimePoint drain_until_ = base::kNever;
  std::function<void()> idle_;  // set while draining
};

}  // namespace triptych::services
