#include "scheduler/cluster/ledger.h"

#include <utility>

#include "base/check.h"

namespace triptych::scheduler {

Amount& Amount::operator+=(const Amount& other) {
  kv_blocks += other.kv_blocks;
  embedding_slots += other.embedding_slots;
  sequences += other.sequences;
  return *this;
}

Amount& Amount::operator-=(const Amount& other) {
  kv_blocks -= other.kv_blocks;
  embedding_slots -= other.embedding_slots;
  sequences -= other.sequences;
  return *this;
}

bool Amount::Covers(const Amount& need) const {
  return kv_blocks >= need.kv_blocks && embedding_slots >= need.embedding_slots &&
         sequences >= need.sequences;
}

Credit& Credit::operator=(Credit&& other) noexcept {
  if (this == &other) return *this;
  Return();
  ledger_ = std::exchange(other.ledger_, nullptr);
  stage_ = other.stage_;
  cost_ = std::exchange(other.cost_, 0);
  waiting_ = std::exchange(other.waiting_, 0);
  sequence_ = other.sequence_;
  life_ = other.life_;
  return *this;
}

void Credit::AwaitInput() {
  if (ledger_ == nullptr) return;
  ledger_->cost_[static_cast<int>(stage_)] -= cost_;
  ledger_->waiting_[static_cast<int>(stage_)] += cost_;
  waiting_ = std::exchange(cost_, 0);
  ledger_->Tell();
}

void Credit::BecomeReady() {
  if (ledger_ == nullptr || waiting_ == 0) return;
  ledger_->waiting_[static_cast<int>(stage_)] -= waiting_;
  ledger_->cost_[static_cast<int>(stage_)] += waiting_;
  cost_ = std::exchange(waiting_, 0);
  ledger_->Tell();
}

void Credit::FinishWork() {
  if (ledger_ == nullptr) return;
  ledger_->cost_[static_cast<int>(stage_)] -= std::exchange(cost_, 0);
  ledger_->waiting_[static_cast<int>(stage_)] -= std::exchange(waiting_, 0);
  ledger_->Tell();
}

void Credit::Return() {
  if (ledger_ == nullptr) return;
  Ledger* ledger = std::exchange(ledger_, nullptr);
  ledger->cost_[static_cast<int>(stage_)] -= std::exchange(cost_, 0);
  ledger->waiting_[static_cast<int>(stage_)] -= std::exchange(waiting_, 0);
  --ledger->tasks_[static_cast<int>(stage_)];
  // Not reflected yet: the release follows the assignment, so together they change nothing.
  auto it = ledger->unreflected_.find(sequence_);
  if (life_ == ledger->life_ && it != ledger->unreflected_.end()) {
    ledger->unreflected_total_ -= it->second;
    ledger->unreflected_.erase(it);
  }
  ledger->Tell();
}

Ledger::~Ledger() { CHECK_EQ(tasks(), 0); }

Credit Ledger::Reserve(Stage stage, const Amount& need, int64_t cost, uint64_t sequence) {
  Credit credit;
  credit.ledger_ = this;
  credit.stage_ = stage;
  credit.cost_ = cost;
  credit.sequence_ = sequence;
  credit.life_ = life_;
  cost_[static_cast<int>(stage)] += cost;
  ++tasks_[static_cast<int>(stage)];
  if (sequence != 0) {
    CHECK_TRUE(unreflected_.emplace(sequence, need).second);
    unreflected_total_ += need;
  }
  Tell();
  return credit;
}

void Ledger::Report(const Amount& free, uint64_t handled_sequence) {
  reported_ = free;
  while (!unreflected_.empty() && unreflected_.begin()->first <= handled_sequence) {
    unreflected_total_ -= unreflected_.begin()->second;
    unreflected_.erase(unreflected_.begin());
  }
  Tell();
}

void Ledger::Restart(const Amount& free) {
  reported_ = free;
  unreflected_.clear();
  unreflected_total_ = Amount();
  ++life_;
  Tell();
}

Amount Ledger::free() const {
  Amount free = reported_;
  free -= unreflected_total_;
  return free;
}

}  // namespace triptych::scheduler
