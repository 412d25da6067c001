#include "scheduler/cluster/size_classes.h"

namespace triptych::scheduler {

SizeClasses::Kind SizeClasses::KindOf(const WorkerProfile& p) {
  return {p.roles.bits,           p.kv_block_tokens, p.kv_blocks,  p.embedding_slots,
          p.embedding_page_slots, p.max_sequences,   p.max_encodes};
}

void SizeClasses::Add(const WorkerProfile& profile) {
  Entry& entry = kinds_[KindOf(profile)];
  if (entry.empty == nullptr) {
    entry.empty = std::make_unique<WorkerView>(profile, Amount());
    entry.empty->ledger.Report(entry.empty->total(), 0);
  }
  if (entry.living++ == 0) Reindex();
}

void SizeClasses::Remove(const WorkerProfile& profile, base::TimePoint now) {
  Entry& entry = kinds_.at(KindOf(profile));
  if (--entry.living > 0) return;
  entry.gone_at = now;
  Reindex();
}

bool SizeClasses::Expire(base::TimePoint now, base::Duration grace) {
  const size_t gone = std::erase_if(kinds_, [&](const auto& kind) {
    return kind.second.living == 0 && now - kind.second.gone_at >= grace;
  });
  if (gone > 0) Reindex();
  return gone > 0;
}

void SizeClasses::Reindex() {
  for (int i = 0; i < kNumStages; ++i) {
    view_.kinds[i].clear();
    living_[i].clear();
    for (const auto& [kind, entry] : kinds_) {
      const WorkerView* empty = entry.empty.get();
      if (!empty->profile.roles.has(static_cast<Stage>(i))) continue;
      view_.kinds[i].push_back(empty);
      if (entry.living > 0) living_[i].push_back(empty);
    }
  }
}

}  // namespace triptych::scheduler
