#include "scheduler/stage/handover.h"

namespace triptych::scheduler {

void OfferEmbedding(StageState&, EncodeTask&) {}
void OfferKv(StageState&, PrefillTask&) {}
void StopSending(StageState&, std::optional<OutgoingPieces>&) {}
void ExpectKv(StageState&, DecodeTask&) {}
void BindProducer(StageState&, PrefillTask& task, const InputProducer& input) {
  if (input.item < 0 || input.item >= static_cast<int32_t>(task.items.size())) return;
  PrefillItem& item = task.items[input.item];
  if (!item.landed) item.producer = input.producer;
}
void StopReceiving(StageState&, const TaskId&) {}
void PlanImports(StageState&, StepPlan&, StepRecord&) {}
void PlanExports(StageState&, StepPlan&, StepRecord&) {}
void ImportsDone(StageState&, const StepRecord&) {}
void ExportsDone(StageState&, const StepRecord&, const std::vector<ExportResult>&) {}
void TransferMessageCame(StageState&, Incarnation, const TransferMessage&) {}
void PieceSent(StageState&, Incarnation, uint64_t, absl::Status) {}
void PieceReceived(StageState&, Incarnation, uint64_t, absl::Status, uint64_t) {}
void TransferPeerLost(StageState&, Incarnation) {}
void TransferTime(StageState&) {}
base::TimePoint TransferDeadline(const StageState&) { return base::kNever; }

}  // namespace triptych::scheduler
