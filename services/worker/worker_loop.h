#pragma once

// The one thread that owns a worker's StageScheduler and Executor: takes events from a bounded
// queue, lets the scheduler decide, carries its actions out, and reports ten times a second. Knows
// no gRPC: the wire is behind WorkerLinks and Transport.
//
// Thread rule: Post* may be called from any thread and never block.

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "base/bounded_queue.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/round_pacer.h"
#include "engine/executor.h"
#include "scheduler/stage/stage_scheduler.h"
#include "services/worker/task_log.h"
#include "services/worker/task_times.h"
#include "services/worker/worker_links.h"
#include "services/worker/worker_metrics.h"
#include "transport/transport.h"

namespace triptych::services {

struct WorkerLoopParts {
  const base::Clock& clock;
  base::Logger& log;
  engine::Executor& executor;
  transport::Transport& transport;
  WorkerLinks& links;
  WorkerMetrics& metrics;
};

class WorkerLoop {
 public:
  // Borrows all parts. Start() begins the thread.
  WorkerLoop(scheduler::StageConfig config, WorkerLoopParts parts);
  // No Post may be running or come later.
  ~WorkerLoop();
  void Start();
  // Ends the thread. What is posted from now on is dropped, so that the loop's neighbours may be
  // destroyed before the loop is.
  void Stop();
  // Blocks until what was posted before has been handled and no task is held, or the deadline:
  // false.
  bool WaitUntilIdle(base::TimePoint deadline);

  // Messages of the scheduler's control stream, in order. They are counted from each hello on, as
  // the scheduler counts them; those that find the queue full are counted too, so that the
  // scheduler learns from the next inventory that nothing came of them.
  void PostScheduler(std::vector<scheduler::SchedulerToWorker> messages);
  void PostPulled(scheduler::TaskId task, absl::StatusOr<scheduler::PulledInput> input);
  // Encode: patches are ready (or why not); `decode` is the time that they took.
  void PostMedia(scheduler::TaskId task, absl::StatusOr<engine::EncodeInput> input,
                 base::Duration decode);
  void PostTransfer(scheduler::Incarnation peer, std::vector<scheduler::TransferMessage> messages);
  void PostTokenReplies(std::vector<scheduler::TokenReply> replies);
  void PostTokenStreamReset(scheduler::Incarnation gateway);
  void PostPeerLost(scheduler::Incarnation peer);
  // The executor's events. A step's result is handled at once, however busy the loop is: the device
  // waits for the next plan, and a token for its client.
  void PostStepResult(scheduler::StepResult result);
  void PostImported(scheduler::BufferId buffer);
  void PostExported(scheduler::ExportResult result);
  void PostDrain();

  // The whole inventory, for a hello; blocks until the loop answers. A hello starts a new count of
  // the scheduler's messages. Nullopt when the queue is full or the loop has been stopped.
  std::optional<scheduler::WorkerReport> ReportForHello();

 private:
  using Event = std::function<void(base::TimePoint now)>;
  // What this process caused: bounded by what is under way, so there is always room for it.
  bool Post(Event event, base::Urgency urgency = base::Urgency::kGather);
  // What a peer sent. False when the queue is so long that the event was dropped: a peer floods us,
  // and the machines' timers heal what is lost.
  bool PostFromPeer(Event event);
  void OnStepResult(scheduler::StepResult result, base::TimePoint now);
  void Run();
  void RunActions(base::TimePoint now);
  void Report(base::TimePoint now);
  void TellIdle();

  void Do(const scheduler::SendToScheduler& action, base::TimePoint now);
  void Do(const scheduler::Pull& action, base::TimePoint now);
  void Do(const scheduler::DropInput& action, base::TimePoint now);
  void Do(const scheduler::SendTransfer& action, base::TimePoint now);
  void Do(const scheduler::PostSend& action, base::TimePoint now);
  void Do(const scheduler::PostReceive& action, base::TimePoint now);
  void Do(scheduler::SubmitStep& action, base::TimePoint now);
  void Do(scheduler::SubmitImport& action, base::TimePoint now);
  void Do(scheduler::SubmitExport& action, base::TimePoint now);
  void Do(const scheduler::SendTokens& action, base::TimePoint now);
  void Do(const scheduler::AbortPeer& action, base::TimePoint now);

  // Small enough that a flood is noticed, large enough for every peer's bounded streams.
  static constexpr size_t kMaxPeerEvents = 1 << 17;
  static constexpr size_t kMaxEvents = 2 * kMaxPeerEvents;
  // Rounds of a busy loop, see RoundPacer.
  static constexpr base::Duration kRound = std::chrono::milliseconds(1);
  static constexpr int kRoundBurst = 8;
  static constexpr base::Duration kReportInterval = std::chrono::milliseconds(100);
  static constexpr int kReportsAnInventory = 10;

  const WorkerLoopParts parts_;
  const int max_batch_;
  scheduler::StageScheduler stage_;
  TaskTimes times_;
  TaskLog task_log_{parts_.log};
  base::BoundedQueue<Event> events_{kMaxEvents};
  uint64_t handled_sequence_ = 0;
  std::atomic<uint64_t> dropped_messages_{0};  // of the scheduler, not yet counted as handled
  base::RoundPacer pacer_{kRound, kRoundBurst};
  base::TimePoint next_report_;
  int reports_ = 0;
  base::Mutex idle_mutex_;
  base::CondVar idle_changed_;
  bool idle_ ABSL_GUARDED_BY(idle_mutex_) = true;
  // Encode tasks whose pull is not over: patches of any other have nobody who would drop them.
  absl::flat_hash_set<scheduler::TaskId> media_wanted_;
  // Encode tasks of the encode steps in flight, oldest first.
  std::map<uint64_t, std::vector<scheduler::TaskId>> encodes_in_flight_;
  std::thread thread_;
};

}  // namespace triptych::services
