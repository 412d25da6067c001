#pragma once

// Outputs on their way to a consumer and inputs on their way in: between workers through
// scheduler/transfer, inside this worker in memory.

#include <optional>
#include <vector>

#include "scheduler/plan/step_plan.h"
#include "scheduler/plan/transfer_messages.h"
#include "scheduler/stage/stage_state.h"

namespace triptych::scheduler {

// ---- sending ----
// Tells the consumer's worker what will come.
void OfferEmbedding(StageState& state, EncodeTask& task);
// The same for the KV of a prefill task, to the decode task that it is bound to; replaces an
// earlier one. Nothing for a consumer on this worker.
void OfferKv(StageState& state, PrefillTask& task);
// No more pieces of this output; buffers in use come back when they are free. Nothing when there is
// none.
void StopSending(StageState& state, std::optional<OutgoingPieces>& outgoing);

// ---- receiving ----
// The reservations of the items; of the KV.
void ExpectItems(StageState& state, const PrefillTask& task);
void ExpectKv(StageState& state, DecodeTask& task);
// The table entry of one item: its embedding comes from that producer, whatever came before.
void BindProducer(StageState& state, PrefillTask& task, const InputProducer& input);
void StopReceiving(StageState& state, const TaskId& consumer);
// The item is in its slots.
void ItemIsHere(StageState& state, PrefillTask& task, int32_t item);

// ---- pieces ----
// Imports of what landed. Exports of what is granted and computed, or being computed by a step that
// was submitted.
void PlanImports(StageState& state);
void PlanExports(StageState& state);
// The input is here with its last import.
void ImportDone(StageState& state, BufferId buffer);
void ExportDone(StageState& state, const ExportResult& result);
// The first token is sampled: the piece that waited for it may go.
void StageLastPiece(StageState& state, PrefillTask& task);

// Carries out what the transfer machines ask for, in order; false when there was nothing. To be
// called after every event, and before a step that uses what they acquired.
bool ForwardTransfers(StageState& state);

// ---- in memory ----
// Decode tasks that wait for a prefill task of this worker take its blocks once it is done.
void TakeOver(StageState& state, PrefillTask& producer);

}  // namespace triptych::scheduler
