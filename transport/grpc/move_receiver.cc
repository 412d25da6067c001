#include "transport/grpc/move_receiver.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace triptych::transport {

void MoveReceiver::Receive(uint64_t sequence, Operation operation) {
  std::shared_ptr<Source> resumed;
  std::function<void()> done;
  {
    base::MutexLock lock(&mutex_);
    if (aborted_) {
      done = [f = std::move(operation.on_done)] { f(absl::AbortedError("transfer aborted")); };
    } else {
      highest_posted_ = std::max(highest_posted_, sequence);
      posted_[sequence] = std::move(operation);
      if (stalled_ && Take(source_->chunk(), &done) == Taken::kYes) {
        stalled_ = false;
        resumed = source_;
      }
    }
  }
  if (done) done();
  if (resumed != nullptr) resumed->ReadNext();
}

void MoveReceiver::OnChunk(const std::shared_ptr<Source>& source) {
  std::function<void()> done;
  std::shared_ptr<Source> replaced;
  bool stall = false;
  {
    base::MutexLock lock(&mutex_);
    if (source_ != source) {
      replaced = std::exchange(source_, source);
      stalled_ = false;
      under_way_ = 0;  // a new stream begins each piece anew
    }
    stall = stalled_ = Take(source->chunk(), &done) == Taken::kStalled;
  }
  if (replaced != nullptr) replaced->Cancel();
  if (done) done();
  if (!stall) source->ReadNext();
}

MoveReceiver::Taken MoveReceiver::Take(const v1::MoveChunk& chunk, std::function<void()>* done) {
  const uint64_t sequence = chunk.sequence();
  auto it = posted_.find(sequence);
  if (it == posted_.end()) {
    // Receives are posted in order without gaps: this one was completed already, or is yet to come.
    return sequence <= highest_posted_ || aborted_ ? Taken::kYes : Taken::kStalled;
  }
  if (under_way_ != sequence) {
    under_way_ = sequence;
    received_ = 0;
  }
  Operation& operation = it->second;
  const auto complete = [&](absl::Status status) {
    *done = [f = std::move(operation.on_done), status] { f(status); };
    posted_.erase(it);
  };
  const int64_t size =
      chunk.declared_only() ? chunk.total_bytes() : static_cast<int64_t>(chunk.payload().size());
  const base::MemoryRef& landing = operation.landing;
  const bool fits = chunk.total_bytes() == landing.bytes && chunk.offset() == received_ &&
                    size <= landing.bytes - received_ &&
                    chunk.declared_only() == landing.declared_only();
  if (!fits) {
    complete(absl::DataLossError("piece differs from what was announced"));
    return Taken::kYes;
  }
  if (!landing.declared_only()) {
    std::memcpy(landing.Sub(received_, size).HostBytes().data(), chunk.payload().data(), size);
  }
  received_ += size;
  if (received_ == landing.bytes) complete(absl::OkStatus());
  return Taken::kYes;
}

void MoveReceiver::OnClosed(const std::shared_ptr<Source>& source) {
  std::map<uint64_t, Operation> failed;
  {
    base::MutexLock lock(&mutex_);
    if (source_ != source) return;
    source_ = nullptr;
    stalled_ = false;
    under_way_ = 0;
    failed.swap(posted_);
  }
  for (auto& [sequence, operation] : failed) {
    operation.on_done(absl::UnavailableError("peer is gone"));
  }
}

void MoveReceiver::Abort() {
  std::map<uint64_t, Operation> failed;
  std::shared_ptr<Source> source;
  {
    base::MutexLock lock(&mutex_);
    aborted_ = true;
    stalled_ = false;
    source = std::exchange(source_, nullptr);
    failed.swap(posted_);
  }
  if (source != nullptr) source->Cancel();
  for (auto& [sequence, operation] : failed) {
    operation.on_done(absl::AbortedError("transfer aborted"));
  }
}

}  // namespace triptych::transport
