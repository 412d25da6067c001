#include "services/worker/worker_loop.h"

#include <algorithm>
#include <future>
#include <memory>
#include <utility>

#include "base/check.h"

namespace triptych::services {

using base::TimePoint;
using scheduler::TransferKind;

WorkerLoop::WorkerLoop(scheduler::StageConfig config, WorkerLoopParts parts)
    : parts_(parts), max_batch_(config.max_batch), stage_(std::move(config)) {
  next_report_ = parts_.clock.Now() + kReportInterval;
}

WorkerLoop::~WorkerLoop() { Stop(); }

void WorkerLoop::Stop() {
  events_.Close();
  if (thread_.joinable()) thread_.join();
}

bool WorkerLoop::WaitUntilIdle(TimePoint deadline) {
  // What was posted before (a drain, an assignment) counts: the loop first gets to this event.
  auto reached = std::make_shared<std::promise<void>>();
  const std::future<void> future = reached->get_future();
  const bool posted = Post([this, reached](TimePoint) {
    {
      base::MutexLock lock(&idle_mutex_);
      idle_ = false;  // until the end of this round
    }
    reached->set_value();
  });
  if (posted && future.wait_until(deadline) != std::future_status::ready) return false;
  base::MutexLock lock(&idle_mutex_);
  while (!idle_) {
    if (!idle_changed_.WaitUntil(&idle_mutex_, deadline)) return idle_;
  }
  return true;
}

void WorkerLoop::TellIdle() {
  const bool idle = stage_.Stats().tasks == 0;
  base::MutexLock lock(&idle_mutex_);
  if (idle == idle_) return;
  idle_ = idle;
  idle_changed_.NotifyAll();
}

void WorkerLoop::Start() {
  thread_ = std::thread([this] { Run(); });
}

bool WorkerLoop::Post(Event event, base::Urgency urgency) {
  if (events_.TryPush(std::move(event), urgency)) return true;
  if (!events_.closed()) parts_.metrics.OnDroppedEvent();
  return false;
}

bool WorkerLoop::PostFromPeer(Event event) {
  if (events_.size() < kMaxPeerEvents) return Post(std::move(event));
  parts_.metrics.OnDroppedEvent();
  return false;
}

void WorkerLoop::PostScheduler(std::vector<scheduler::SchedulerToWorker> messages) {
  const size_t count = messages.size();
  const bool posted = PostFromPeer([this, messages = std::move(messages)](TimePoint now) {
    for (const auto& message : messages) {
      task_log_.OnMessage(message);
      stage_.Handle(message, now);
    }
    handled_sequence_ += messages.size();
  });
  if (!posted) dropped_messages_ += count;
}

void WorkerLoop::PostPulled(scheduler::TaskId task, absl::StatusOr<scheduler::PulledInput> input) {
  Post([this, task, input = std::move(input)](TimePoint now) mutable {
    stage_.OnPulled(task, std::move(input), now);
  });
}

void WorkerLoop::PostMedia(scheduler::TaskId task, absl::StatusOr<engine::EncodeInput> input,
                           base::Duration decode) {
  auto shared = std::make_shared<absl::StatusOr<engine::EncodeInput>>(std::move(input));
  Post([this, task, shared, decode](TimePoint now) {
    if (media_wanted_.erase(task) == 0) return;
    absl::StatusOr<scheduler::Grid> grid = absl::UnknownError("");
    if (shared->ok()) {
      grid = (*shared)->grid;
      parts_.executor.ProvideInput(task, *std::move(*shared));
    } else {
      grid = shared->status();
    }
    times_.OnMediaReady(task, decode);
    stage_.OnMediaReady(task, std::move(grid), now);
  });
}

void WorkerLoop::PostTransfer(scheduler::Incarnation peer,
                              std::vector<scheduler::TransferMessage> messages) {
  PostFromPeer([this, peer, messages = std::move(messages)](TimePoint now) {
    for (const auto& message : messages) {
      times_.OnTransferMessage(message, now);
      stage_.OnTransferMessage(peer, message, now);
    }
  });
}

void WorkerLoop::PostTokenReplies(std::vector<scheduler::TokenReply> replies) {
  PostFromPeer([this, replies = std::move(replies)](TimePoint now) {
    for (const auto& reply : replies) stage_.OnTokenReply(reply, now);
  });
}

void WorkerLoop::PostTokenStreamReset(scheduler::Incarnation gateway) {
  Post([this, gateway](TimePoint now) { stage_.OnTokenStreamReset(gateway, now); });
}

void WorkerLoop::PostPeerLost(scheduler::Incarnation peer) {
  Post([this, peer](TimePoint now) {
    stage_.OnPeerLost(peer, now);
    // What was decided before goes out first: later it would open a stream to nobody.
    RunActions(now);
    parts_.links.ForgetPeer(peer);
    // Also where the machine has nothing in flight: the connection is of no use any more.
    parts_.transport.Abort(peer);
  });
}

void WorkerLoop::PostStepResult(scheduler::StepResult result) {
  Post([this, result = std::move(result)](
           TimePoint now) mutable { OnStepResult(std::move(result), now); },
       base::Urgency::kNow);
}

void WorkerLoop::PostImported(scheduler::BufferId buffer) {
  Post([this, buffer](TimePoint now) { stage_.OnImported(buffer, now); });
}

void WorkerLoop::PostExported(scheduler::ExportResult result) {
  Post([this, result](TimePoint now) { stage_.OnExported(result, now); });
}

void WorkerLoop::PostDrain() {
  Post([this](TimePoint now) { stage_.Handle(scheduler::DrainWorker{}, now); });
}

std::optional<scheduler::WorkerReport> WorkerLoop::ReportForHello() {
  auto answer = std::make_shared<std::promise<scheduler::WorkerReport>>();
  std::future<scheduler::WorkerReport> future = answer->get_future();
  const bool posted = Post([this, answer](TimePoint) {
    handled_sequence_ = 0;
    dropped_messages_ = 0;
    answer->set_value(stage_.Report(/*with_inventory=*/true));
  });
  if (!posted) return std::nullopt;
  return future.get();
}

void WorkerLoop::OnStepResult(scheduler::StepResult result, TimePoint now) {
  auto it = encodes_in_flight_.find(result.id.value());
  if (result.lane == scheduler::Lane::kEncode && it != encodes_in_flight_.end()) {
    for (scheduler::TaskId task : it->second) {
      std::optional<TaskTimes::Finished> finished = times_.FinishEncode(task, now);
      if (!finished) continue;
      scheduler::TokenBatch advisory;
      advisory.request = finished->request.request;
      advisory.task = task;
      advisory.pass = finished->request.pass;
      parts_.links.SendTokens(finished->gateway, advisory, &finished->times);
    }
    encodes_in_flight_.erase(it);
  }
  stage_.OnStepResult(std::move(result), now);
}

void WorkerLoop::Run() {
  while (true) {
    const TimePoint until = std::min(next_report_, stage_.NextDeadline());
    std::deque<Event> events = events_.PopAll(until, pacer_.NotBefore());
    pacer_.OnRound(parts_.clock.Now());
    if (events.empty() && events_.closed()) return;
    TimePoint now = parts_.clock.Now();
    for (Event& event : events) event(now);
    now = parts_.clock.Now();
    stage_.OnTime(now);
    RunActions(now);
    TellIdle();
    if (now >= next_report_) Report(now);
    parts_.links.Flush();
  }
}

void WorkerLoop::RunActions(TimePoint now) {
  std::vector<scheduler::StageAction> actions = stage_.TakeActions();
  // The device waits for its next step; tokens and reports go out while it computes. No action
  // that a step follows touches what the step needs.
  for (scheduler::StageAction& action : actions) {
    if (auto* step = std::get_if<scheduler::SubmitStep>(&action)) Do(*step, now);
  }
  for (scheduler::StageAction& action : actions) {
    if (std::holds_alternative<scheduler::SubmitStep>(action)) continue;
    std::visit([&](auto& a) { Do(a, now); }, action);
  }
}

void WorkerLoop::Report(TimePoint now) {
  const bool whole = reports_++ % kReportsAnInventory == 0;
  handled_sequence_ += dropped_messages_.exchange(0);
  scheduler::WorkerReport report = stage_.Report(whole);
  report.handled_sequence = handled_sequence_;
  parts_.metrics.OnLoad(report, stage_.Stats());
  parts_.links.SendToScheduler(report);
  next_report_ = now + kReportInterval;
}

void WorkerLoop::Do(const scheduler::SendToScheduler& action, TimePoint) {
  if (const auto* failed = std::get_if<scheduler::TaskFailed>(&action.message)) {
    parts_.metrics.OnTaskFailed(failed->status);
  }
  task_log_.OnTold(action.message);
  parts_.links.SendToScheduler(action.message);
}

void WorkerLoop::Do(const scheduler::Pull& action, TimePoint now) {
  times_.OnPull(action, now);
  if (action.request.stage == scheduler::Stage::kEncode) media_wanted_.insert(action.request.task);
  parts_.links.Pull(action.request, action.gateway);
}

void WorkerLoop::Do(const scheduler::DropInput& action, TimePoint) {
  times_.Forget(action.task);
  media_wanted_.erase(action.task);
  parts_.links.DropInput(action.task);
  parts_.executor.DropInput(action.task);
}

void WorkerLoop::Do(const scheduler::SendTransfer& action, TimePoint now) {
  if (const auto* ack = std::get_if<scheduler::PieceAcknowledged>(&action.message)) {
    if (std::optional<TaskTimes::Landed> landed = times_.OnAcknowledged(*ack, now)) {
      parts_.metrics.OnTransfer(landed->kind, landed->bytes, landed->duration);
    }
  }
  parts_.links.SendTransfer(action.peer, action.message);
}

void WorkerLoop::Do(const scheduler::PostSend& action, TimePoint) {
  const engine::TransferRegions& regions = parts_.executor.transfer_regions();
  parts_.transport.Send(
      action.peer.incarnation, action.peer.address, action.sequence, regions.Staging(action.buffer),
      [this, peer = action.peer.incarnation, sequence = action.sequence](absl::Status status) {
        Post([this, peer, sequence, status](TimePoint now) {
          stage_.OnPieceSent(peer, sequence, status, now);
        });
      });
}

void WorkerLoop::Do(const scheduler::PostReceive& action, TimePoint) {
  const auto landed = [this, peer = action.peer.incarnation, sequence = action.sequence](
                          absl::Status status, uint64_t checksum) {
    Post([this, peer, sequence, status = std::move(status), checksum](TimePoint now) {
      stage_.OnPieceReceived(peer, sequence, status, checksum, now);
    });
  };
  parts_.transport.Receive(action.peer.incarnation, action.sequence,
                           parts_.executor.transfer_regions().Landing(action.buffer),
                           [this, landed, buffer = action.buffer](absl::Status status) {
                             if (!status.ok()) return landed(std::move(status), 0);
                             parts_.executor.ChecksumLanded(buffer, [landed](uint64_t checksum) {
                               landed(absl::OkStatus(), checksum);
                             });
                           });
}

void WorkerLoop::Do(scheduler::SubmitStep& action, TimePoint now) {
  times_.OnSubmit(action.plan, now);
  parts_.metrics.OnSubmit(action.plan, max_batch_);
  if (!action.plan.encodes.empty()) {
    auto& tasks = encodes_in_flight_[action.plan.id.value()];
    for (const auto& encode : action.plan.encodes) tasks.push_back(encode.task);
  }
  parts_.executor.Submit(std::move(action.plan));
}

void WorkerLoop::Do(scheduler::SubmitImport& action, TimePoint) {
  parts_.executor.Import(std::move(action.spec));
}

void WorkerLoop::Do(scheduler::SubmitExport& action, TimePoint) {
  parts_.executor.Export(std::move(action.spec));
}

void WorkerLoop::Do(const scheduler::SendTokens& action, TimePoint now) {
  const std::optional<StageTimes> times = times_.TakeForTokens(action.batch.task, now);
  parts_.links.SendTokens(action.gateway, action.batch, times ? &*times : nullptr);
}

void WorkerLoop::Do(const scheduler::AbortPeer& action, TimePoint) {
  parts_.transport.Abort(action.peer);
}

}  // namespace triptych::services
