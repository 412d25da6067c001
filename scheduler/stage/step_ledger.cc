#include "scheduler/stage/step_ledger.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace triptych::scheduler {
namespace {

constexpr uint64_t kNobody = std::numeric_limits<uint64_t>::max();

// Takes the entry of `buffer` out of `map`.
template <typename Record>
std::pair<uint64_t, Record> Take(std::map<BufferId, std::pair<uint64_t, Record>>& map,
                                 BufferId buffer) {
  auto node = map.extract(buffer);
  CHECK_TRUE(!node.empty());
  return std::move(node.mapped());
}

}  // namespace

void StepLedger::Submitted(StepRecord record) {
  CHECK_TRUE(record.id == next_id(record.lane));
  Steps& lane = of(record.lane);
  ++lane.last;
  lane.steps.emplace_back(++last_ticket_, std::move(record));
}

void StepLedger::ImportSubmitted(LandedPiece piece) {
  const BufferId buffer = piece.piece.buffer.id;
  piece_tickets_.insert(++last_ticket_);
  imports_[buffer] = {last_ticket_, std::move(piece)};
}

void StepLedger::ExportSubmitted(ExportRecord record) {
  const BufferId buffer = record.buffer.id;
  piece_tickets_.insert(++last_ticket_);
  exports_[buffer] = {last_ticket_, std::move(record)};
}

StepRecord StepLedger::Finished(Lane lane, StepId id) {
  std::deque<std::pair<uint64_t, StepRecord>>& steps = of(lane).steps;
  CHECK_TRUE(!steps.empty() && steps.front().second.id == id);
  StepRecord record = std::move(steps.front().second);
  steps.pop_front();
  GiveBack();
  return record;
}

LandedPiece StepLedger::ImportFinished(BufferId buffer) {
  auto [ticket, piece] = Take(imports_, buffer);
  piece_tickets_.erase(ticket);
  GiveBack();
  return std::move(piece);
}

ExportRecord StepLedger::ExportFinished(BufferId buffer) {
  auto [ticket, record] = Take(exports_, buffer);
  piece_tickets_.erase(ticket);
  GiveBack();
  return std::move(record);
}

void StepLedger::Retire(BlockHandle blocks) {
  if (!blocks.empty()) blocks_.push_back({last_ticket_, std::move(blocks)});
  GiveBack();
}

void StepLedger::RetireSlots(BlockHandle pages) {
  if (!pages.empty()) slots_.push_back({last_ticket_, std::move(pages)});
  GiveBack();
}

int32_t StepLedger::retired_blocks() const {
  int32_t count = 0;
  for (const Retired& retired : blocks_) count += retired.pages.size();
  return count;
}

uint64_t StepLedger::OldestUserOfBlocks() const {
  const auto& steps = of(Lane::kLanguage).steps;
  const uint64_t step = steps.empty() ? kNobody : steps.front().first;
  return piece_tickets_.empty() ? step : std::min(step, *piece_tickets_.begin());
}

uint64_t StepLedger::OldestUserOfSlots() const {
  const auto& encodes = of(Lane::kEncode).steps;
  const uint64_t oldest = OldestUserOfBlocks();
  return encodes.empty() ? oldest : std::min(oldest, encodes.front().first);
}

void StepLedger::GiveBack() {
  while (!blocks_.empty() && blocks_.front().ticket < OldestUserOfBlocks()) blocks_.pop_front();
  while (!slots_.empty() && slots_.front().ticket < OldestUserOfSlots()) slots_.pop_front();
}

}  // namespace triptych::scheduler
