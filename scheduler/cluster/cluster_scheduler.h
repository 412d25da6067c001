#pragma once

// The one brain: membership, admission, placement and retries of every request of the cluster, as a
// pure state machine. It holds no payload, sends nothing itself and knows no socket: messages go
// in, actions come out. docs/life_of_a_request.md tells the story. One thread.
//
// Any message may come late, twice, or for something that is gone: it then changes nothing.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "base/clock.h"
#include "scheduler/cluster/admission.h"
#include "scheduler/cluster/cluster_actions.h"
#include "scheduler/cluster/cluster_config.h"
#include "scheduler/cluster/cluster_peers.h"
#include "scheduler/cluster/fair_order.h"
#include "scheduler/cluster/request_state.h"

namespace triptych::scheduler {

class ClusterScheduler {
 public:
  // `own` is this process's incarnation; the term is found from hellos.
  ClusterScheduler(ClusterConfig config, Incarnation own);
  ~ClusterScheduler();
  ClusterScheduler(const ClusterScheduler&) = delete;
  ClusterScheduler& operator=(const ClusterScheduler&) = delete;

  // Waits for its peers' reports, and places nothing.
  bool recovering() const { return recovering_; }
  // What envelopes carry. The term is the highest reported + 1: it may rise while recovering, and
  // when a peer that has obeyed a higher scheduler comes here (see OnWorkerConnected).
  SchedulerId id() const { return id_; }

  // Whether one more worker may say hello, of a model that may be new. Pools that nobody uses make
  // way.
  bool HasRoomFor(const std::string& fingerprint);

  // A peer's stream has opened. A hello of an incarnation that is connected already replaces its
  // stream: messages are numbered from 1 again, and the inventory tells what was lost.
  //
  // A hello that names a higher scheduler, after recovery: this one has been superseded. It forgets
  // all requests without a word to workers, drops all peers, and recovers as a new scheduler with a
  // term above (a peer holds one control stream, so one that comes here has left the other).
  void OnWorkerConnected(const WorkerHello& hello, base::TimePoint now);
  void OnGatewayConnected(const GatewayHello& hello, base::TimePoint now);

  // The stream has closed. The peer may come back with a hello of the same incarnation, its work
  // intact; until then nothing new is placed there. It is lost after `reconnect_grace`. Unknown
  // incarnations are ignored, here and below.
  void OnPeerDisconnected(Incarnation peer, base::TimePoint now);
  // It is known to be lost for ever: an earlier scheduler has said so. Others may have missed that.
  void OnPeerLost(Incarnation peer, base::TimePoint now);

  void OnWorkerMessage(Incarnation worker, const WorkerToScheduler& message, base::TimePoint now);
  void OnGatewayMessage(Incarnation gateway, const GatewayToScheduler& message,
                        base::TimePoint now);

  // Gives the worker nothing new, and tells it so. What it has runs on.
  void Drain(Incarnation worker, base::TimePoint now);

  void OnTime(base::TimePoint now);
  // When OnTime is due at the latest; kNever when nothing is known.
  base::TimePoint NextDeadline() const;

  // What is to be done since the last call, in order. Work is placed here, once for all events of a
  // round: call it after each round.
  std::vector<ClusterAction> TakeActions();

  ClusterSnapshot Snapshot(base::TimePoint now) const;
  // CHECKs what must hold between events; looks at everything, so only tests call it.
  void CheckInvariants() const;

 private:
  friend struct ClusterSchedulerTestAccess;

  // Each is a line of every Membership, which must stay far below a message's limit.
  static constexpr size_t kMostPools = 64;
  static constexpr size_t kMostWorkers = 16384;

  // Which request a task belongs to.
  struct TaskEntry {
    RequestId request;
    Stage stage = Stage::kEncode;
    int32_t item = -1;
    Incarnation worker;
    uint64_t sequence = 0;  // of its assignment; 0: adopted, or before the worker's last hello
    OutputEpoch epoch;
    bool unheard = false;  // its stream broke before the worker was known to have the assignment
  };
  using RequestMap = absl::flat_hash_map<RequestId, std::unique_ptr<Request>>;

  // ---- cluster_membership.cc
  void SeeHighest(const SchedulerId& highest, Incarnation peer, base::TimePoint now);
  void StepDown(Incarnation speaker, base::TimePoint now);
  void BeginWatch(base::TimePoint now);
  Worker* FindWorker(Incarnation incarnation);
  Pool* FindOrMakePool(const std::string& fingerprint, base::TimePoint now);
  void Reindex(Worker* worker, base::TimePoint now);
  void SetMissing(Worker* worker, bool missing);
  void LoseWorker(Incarnation incarnation, base::TimePoint now);
  void LoseGateway(Incarnation incarnation);
  void TellMembership();
  Membership WholeMembership(const std::vector<ModelRoles>& models) const;
  void GiveUp(Incarnation peer, base::TimePoint now);
  void LoseMissing(base::TimePoint now);
  void Tick(base::TimePoint now);
  void FailWithoutRole(Pool* pool, base::TimePoint now);
  void FailTooLarge(Pool* pool, base::TimePoint now);

  // ---- cluster_requests.cc
  enum class Submission : uint8_t { kNew, kAgain };
  void Submit(const SubmitRequest& submit, Submission kind, base::TimePoint now);
  absl::Status Admit(const SubmitRequest& submit, Pool** pool, base::TimePoint now);
  // RESOURCE_EXHAUSTED, and when to try again, where the answer would come after its deadline.
  absl::Status CheckDeadline(const Pool& pool, const SubmitRequest& submit, const Rank& rank,
                             base::Duration* retry_after) const;
  QueueCost AheadOf(const Pool& pool, const Rank& rank) const;
  void LearnLength(const Request& request, base::TimePoint now);
  Request* FindRequest(RequestId id);
  Pool* PoolOf(const Request& request);
  void Enqueue(Request* request);
  void Dequeue(Request* request);
  void LeaveQueues(Request* request);
  void Fail(RequestId id, const absl::Status& status);
  void Tell(const Request& request, RequestProgress::Milestone milestone);
  void End(RequestId id);
  void ReleaseAll(Request* request);
  void Release(PlacedTask task);
  void Forget(PlacedTask task);
  enum class Cause : uint8_t { kLoss, kNeverBegun };
  void RestartPrefill(Request* request, Cause cause = Cause::kLoss);
  Rank RankOf(const SubmitRequest& submit);

  // ---- cluster_placing.cc
  void Place(base::TimePoint now);
  void PlaceIn(Pool* pool, base::TimePoint now);
  void PlaceQueued(Pool* pool, base::TimePoint now);
  enum class Outcome : uint8_t { kPlaced, kNoEncoder, kTooLarge, kNoRoom };
  Outcome TryPrefill(Pool* pool, Request* request, base::TimePoint now);
  void PlacePrefill(Pool* pool, Request* request, Worker* worker, base::TimePoint now);
  void BindEncoders(Pool* pool, base::TimePoint now);
  void EncodeInPlace(Pool* pool, Request* request);
  void SetAside(Pool* pool, Request* request);
  void TakeBack(Pool* pool);
  Outcome BindEncodersOf(Pool* pool, Request* request, base::TimePoint now);
  void AssignItem(Request* request, int32_t item, Worker* encoder, const Amount& need);
  void WantDecode(Request* request);
  void WantsDecodeNoMore(Request* request);
  void BindDecodes(Pool* pool, base::TimePoint now);
  void BindDecode(Request* request, Worker* worker, const Amount& need);
  PlacedTask Assign(const Request& request, Stage stage, int32_t item, Worker* worker,
                    const Amount& need);
  // What the worker shows to the gateway of the request.
  uint64_t PassFor(RequestId request, Stage stage, const PlacedTask& task) const;
  void Send(Worker* worker, SchedulerToWorker message);
  void SendRelease(Worker* worker, TaskId task);

  // ---- cluster_tasks.cc
  void OnTask(Incarnation worker, const WorkerReport& message, base::TimePoint now);
  void OnTask(Incarnation worker, const TaskAccepted& message, base::TimePoint now);
  void OnTask(Incarnation worker, const TaskRefused& message, base::TimePoint now);
  void OnTask(Incarnation worker, const TaskDelivered& message, base::TimePoint now);
  void OnTask(Incarnation worker, const ItemLanded& message, base::TimePoint now);
  void OnTask(Incarnation worker, const FirstTokenSampled& message, base::TimePoint now);
  void OnTask(Incarnation worker, const DecodeStarted& message, base::TimePoint now);
  void OnTask(Incarnation worker, const TaskFailed& message, base::TimePoint now);
  void OnTask(Incarnation worker, const ConsumerUnreachable& message, base::TimePoint now);
  void CloseLink(Worker* worker, Incarnation peer, base::TimePoint now);
  void LinkWorked(const Request& request);
  bool TriedTooOften(Request* request);
  const TaskEntry* FindTask(TaskId task, Incarnation worker) const;
  void BackOff(Worker* worker, Stage stage, int* in_a_row, base::TimePoint now);
  void Reopen(Worker* worker, base::TimePoint now);
  void Succeeded(const TaskEntry& entry);
  void TaskGone(TaskId task, Cause cause = Cause::kLoss);
  void ItemGone(Request* request, int32_t item);
  void DecodeGone(Request* request);
  void LandItem(Request* request, int32_t item);
  void AllLanded(Request* request);
  void FirstToken(Request* request, Finish finish);
  void StartDecode(Request* request);
  void FinishDecode(Request* request);

  // ---- cluster_reconcile.cc
  void Reconcile(Worker* worker, const WorkerReport& report, base::TimePoint now);
  void LoseUnknown(const WorkerReport& report);
  void Follow(const TaskEntry& entry, const TaskReport& report);
  void TellAgain(const TaskEntry& entry, const TaskReport& report, uint64_t handled_sequence);
  void ForgetSequences(Worker* worker);
  void NoteUnclaimed(Worker* worker, const WorkerReport& report, base::TimePoint now);
  void NoLongerUnclaimed(RequestId request, const Worker* worker);
  void ReleaseUnclaimed(base::TimePoint now);
  void EndRecovery(base::TimePoint now);
  void CheckRecovery(base::TimePoint now);
  base::TimePoint RecoveryDeadline() const;
  struct Found;  // an unclaimed task and where it lives
  std::vector<Found> TakeUnclaimed(RequestId id);
  void Claim(Request* request);
  bool Adopt(Request* request, std::vector<Found>* found);
  void AdoptPrefill(Request* request, const Found& prefill, const std::vector<Found>& found);
  PlacedTask AdoptTask(Request* request, const Found& found);

  const ClusterConfig config_;
  SchedulerId id_;
  bool recovering_ = true;
  std::set<Incarnation> awaited_peers_;  // known to gateways, not heard of yet
  bool peers_named_ = false;             // by some hello
  bool all_fresh_ = true;                // no peer has obeyed a scheduler before
  base::TimePoint first_hello_ = base::kNever;
  base::TimePoint next_tick_ = base::kNever;
  CutOffGuard guard_;

  std::map<std::string, std::unique_ptr<Pool>> pools_;  // by fingerprint
  std::map<Incarnation, std::unique_ptr<Worker>> workers_;
  std::map<Incarnation, Gateway> gateways_;
  RequestMap requests_;  // after workers_: credits go before their ledgers
  absl::flat_hash_map<TaskId, TaskEntry> tasks_;
  std::set<std::pair<base::TimePoint, RequestId>> deadlines_;
  std::set<std::pair<base::TimePoint, Incarnation>> reopenings_;  // ends of back-offs
  QueueCost queued_;
  uint64_t next_task_ = 1;
  FairOrder fair_;
  std::vector<Incarnation> joined_, left_;  // since gateways were told
  std::vector<ModelRoles> told_models_;
  // By request: workers that hold a task of it which nobody claims.
  std::map<RequestId, std::set<Incarnation>> unclaimed_at_;
  base::TimePoint now_{};  // of the latest event
  std::vector<ClusterAction> actions_;
  ClusterSnapshot totals_;  // only its counters since the start
};

}  // namespace triptych::scheduler
