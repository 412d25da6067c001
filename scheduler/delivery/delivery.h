#pragma once

// One gateway's requests: the facts of their payload, the fence that a new producer of tokens
// raises, the order of the answer, and what is told to the next scheduler. It keeps no media bytes,
// knows no client and no text: the owner streams what DeliverTokens brings and ends at DeliverEnd.
// One thread.
//
// Each accepted request gets exactly one DeliverEnd, the last thing said about it.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "scheduler/plan/gateway_messages.h"

namespace triptych::scheduler {

struct SendGatewayMessage {
  GatewayToScheduler message;
};

// Tokens [start_index, start_index + tokens.size()) of the answer, in order and without gaps. A
// finish other than kNone is followed by DeliverEnd{OK}.
struct DeliverTokens {
  RequestId request;
  int32_t start_index = 0;
  std::vector<SampledToken> tokens;
  Finish finish = Finish::kNone;
};

struct DeliverEnd {
  RequestId request;
  absl::Status status;
  base::Duration retry_after{0};  // zero where a retry makes no sense
  OutputEpoch epoch;              // the last; each rise was a producer that was replaced
};

// For the request's timeline; advisory.
struct DeliverProgress {
  RequestId request;
  RequestProgress::Milestone milestone{};
};

// The scheduler has taken the request in: what may still refuse it is a failure. Said again by the
// next scheduler; may be missing before the first token.
struct DeliverAdmitted {
  RequestId request;
};

using DeliveryAction =
    std::variant<SendGatewayMessage, DeliverTokens, DeliverEnd, DeliverProgress, DeliverAdmitted>;

struct DeliveryLimits {
  int max_requests = 4096;  // live at once
  // Without a scheduler: new requests that wait for the next one.
  int max_waiting = 1024;
  int32_t vocab_size = INT32_MAX;  // token ids of answers are below
};

class Delivery {
 public:
  // `model`: digest of the texts of the model that this gateway serves, the first part of its
  // workers' fingerprints. A request that names no fingerprint is given, once and for all, that of
  // a pool of the model's workers. Empty: every request names its own.
  explicit Delivery(DeliveryLimits limits = {}, std::string model = {})
      : limits_(limits), model_(std::move(model)) {}

  // Takes a request in and submits it, or queues it until a scheduler is there and has told whom it
  // knows. `deadline` may be
  // kNever. ALREADY_EXISTS for a live id; RESOURCE_EXHAUSTED when full; UNAVAILABLE when too many
  // wait for a scheduler. An error means that nothing was accepted.
  absl::Status Accept(SubmitRequest submit, PulledInput input, base::TimePoint deadline,
                      base::TimePoint now);

  // The control stream is up; the hello that opened it carried Live(): what was accepted since is
  // submitted now.
  void OnSchedulerConnected(base::TimePoint now);
  void OnSchedulerLost(base::TimePoint now);
  void OnScheduler(const SchedulerToGateway& message, base::TimePoint now);

  // The fence. Prefill and decode: raises the request's epoch and freezes the prefix of tokens that
  // were sent. From then on tokens of older epochs are not heard, nor those of an older task of the
  // same stage: a decode that was lost before the scheduler heard of a first token is replaced
  // under the same epoch. The same task again gives the same kind of answer. Encode: returns the
  // facts alone. FAILED_PRECONDITION: a later producer was here. NOT_FOUND: not live here.
  // INVALID_ARGUMENT: no such item.
  absl::StatusOr<PulledInput> OnPull(const PullRequest& pull, base::TimePoint now);

  // Takes what is new and in order, and tells the worker how far the answer is.
  TokenReply OnTokens(const TokenBatch& batch, base::TimePoint now);

  // The gateway ends it: the client left (CANCELLED), a stop string was found (OK), ... Unknown
  // requests are fine.
  void End(RequestId request, const absl::Status& reason, base::TimePoint now);

  // Every live request as the next scheduler must hear of it, for a GatewayHello; all of them count
  // as submitted from then on.
  std::vector<SubmitRequest> Live(base::TimePoint now);
  // The last Membership, for a GatewayHello.
  // In ascending order.
  std::vector<Incarnation> known_peers() const { return {peers_.begin(), peers_.end()}; }
  // The stages of a model that the connected scheduler has workers for; none without a scheduler.
  Roles RolesOf(const std::string& fingerprint) const;
  // The pool of new requests: the latest that had a worker for every stage, until another has and
  // it has not; empty before a worker of the model was heard of.
  const std::string& pool() const { return pool_; }
  int64_t num_live() const { return static_cast<int64_t>(requests_.size()); }

  // Ends what is past its deadline.
  void OnTime(base::TimePoint now);
  base::TimePoint NextDeadline() const;
  std::vector<DeliveryAction> TakeActions() { return std::exchange(actions_, {}); }

  // CHECKs what must hold between events; looks at everything, so only tests call it.
  void CheckInvariants() const;

 private:
  // Whose tokens are heard. A prefill and the decode that it hands over to share an epoch.
  struct Producers {
    OutputEpoch epoch;
    std::optional<TaskId> prefill, decode;  // the latest that has pulled under the epoch
  };

  struct Request {
    SubmitRequest submit;
    PulledInput input;
    base::TimePoint deadline;
    bool submitted = false;  // to the scheduler that is connected
    Producers producers;
    std::vector<int32_t> sent;  // token ids of the answer so far
  };

  static bool Admit(const PullRequest& pull, Producers* producers);
  static bool IsHeard(const TokenBatch& batch, const Producers& producers);
  bool IsOurs(const std::string& fingerprint) const;
  void ChoosePool();
  // Whether a request can be told to the scheduler: one without a pool waits for a membership.
  bool CanSubmit(const Request& request) const {
    return told_ || !pool_.empty() || model_.empty() || !request.submit.fingerprint.empty();
  }
  void SubmitWaiting(base::TimePoint now);
  SubmitRequest Resubmission(Request* request, base::TimePoint now) const;
  void OnMessage(const RequestAdmitted& message, base::TimePoint now);
  void OnMessage(const RequestFailed& message, base::TimePoint now);
  void OnMessage(const Membership& message, base::TimePoint now);
  void OnMessage(const RequestProgress& message, base::TimePoint now);
  void Conclude(RequestId request, const absl::Status& status, base::Duration retry_after);

  const DeliveryLimits limits_;
  const std::string model_;
  std::string pool_;
  bool connected_ = false;
  bool told_ = false;  // the connected scheduler has sent a membership
  int waiting_ = 0;    // not submitted
  // Named by the last hello, whose welcome has not come: at most max_requests.
  std::vector<RequestId> ended_since_hello_;
  std::map<RequestId, Request> requests_;
  std::set<std::pair<base::TimePoint, RequestId>> deadlines_;
  std::set<Incarnation> peers_;     // that the last scheduler knew
  std::vector<ModelRoles> models_;  // of the connected scheduler
  std::vector<DeliveryAction> actions_;
};

}  // namespace triptych::scheduler
