#include "services/worker/task_times.h"

namespace triptych::services {

void TaskTimes::OnPull(const scheduler::Pull& pull, base::TimePoint) {
  if (records_.size() >= kMaxTasks) return;
  records_.try_emplace(pull.request.task, Record{pull.request, pull.gateway, {}, {}, false});
}

void TaskTimes::OnMediaReady(scheduler::TaskId task, base::Duration decode) {
  auto it = records_.find(task);
  if (it != records_.end()) it->second.times.media_decode = decode;
}

void TaskTimes::OnSubmit(const scheduler::StepPlan& plan, base::TimePoint now) {
  const auto begin = [&](scheduler::TaskId task) {
    auto it = records_.find(task);
    if (it != records_.end() && !it->second.first_submit) it->second.first_submit = now;
  };
  for (const auto& row : plan.rows) begin(row.task);
  for (const auto& encode : plan.encodes) begin(encode.task);
}

void TaskTimes::OnTransferMessage(const scheduler::TransferMessage& message, base::TimePoint now) {
  const auto* ready = std::get_if<scheduler::Ready>(&message);
  if (ready == nullptr) return;
  // Without a record of its consumer nobody would forget the piece.
  if (!records_.contains(ready->key.consumer)) return;
  auto& pieces = pieces_[ready->key.consumer];
  if (pieces.size() >= kMaxPieces) return;
  pieces.try_emplace({ready->key, ready->index}, Piece{*ready, now});
}

void TaskTimes::Forget(scheduler::TaskId task) {
  records_.erase(task);
  pieces_.erase(task);
}

std::optional<TaskTimes::Landed> TaskTimes::OnAcknowledged(
    const scheduler::PieceAcknowledged& message, base::TimePoint now) {
  auto pieces = pieces_.find(message.key.consumer);
  if (pieces == pieces_.end()) return std::nullopt;
  auto piece = pieces->second.find({message.key, message.index});
  if (piece == pieces->second.end()) return std::nullopt;
  const Landed landed{piece->second.ready.range.kind, piece->second.ready.bytes,
                      now - piece->second.begin};
  pieces->second.erase(piece);
  if (message.verdict == scheduler::PieceAcknowledged::Verdict::kCorrupt) return std::nullopt;
  auto record = records_.find(message.key.consumer);
  if (record != records_.end()) {
    StageTimes& times = record->second.times;
    const bool embedding = landed.kind == scheduler::TransferKind::kEmbedding;
    (embedding ? times.embedding_bytes : times.kv_bytes) += landed.bytes;
    (embedding ? times.embedding_transfer : times.kv_transfer) += landed.duration;
  }
  return landed;
}

std::optional<TaskTimes::Finished> TaskTimes::FinishEncode(scheduler::TaskId task,
                                                           base::TimePoint now) {
  auto it = records_.find(task);
  if (it == records_.end() || !it->second.first_submit) return std::nullopt;
  Record& record = it->second;
  record.times.encode = now - *record.first_submit;
  return Finished{record.request, record.gateway, record.times};
}

std::optional<StageTimes> TaskTimes::TakeForTokens(scheduler::TaskId task, base::TimePoint now) {
  auto it = records_.find(task);
  if (it == records_.end() || it->second.told) return std::nullopt;
  Record& record = it->second;
  record.told = true;
  if (record.request.stage == scheduler::Stage::kPrefill && record.first_submit) {
    record.times.prefill = now - *record.first_submit;
  }
  return record.times;
}

}  // namespace triptych::services
