#pragma once

// The sending half of a batched stream: messages gather while a write is under way and then leave
// as one batch. Not a queue without end: beyond its bound a message is refused. ClientStream and
// ServerStream each have one; how a batch is written is theirs.

#include <cstdint>
#include <deque>
#include <functional>
#include <type_traits>
#include <utility>

#include "base/mutex.h"
#include "triptych/v1/common.pb.h"

namespace triptych::services {

// `Batch` has an `envelope` and repeated `messages`. Thread-safe.
template <typename Batch>
class BatchWriter {
 public:
  using Message = std::decay_t<decltype(std::declval<Batch>().messages(0))>;
  // Begins to write a batch, which stays unchanged until OnWritten. Called under the writer's lock,
  // never while another write is under way and never after Close: it must not call back.
  using StartWrite = std::function<void(const Batch*)>;
  enum class Added { kYes, kClosed, kFull };

  static constexpr size_t kMaxPending = 1 << 16;
  static constexpr size_t kMaxPendingBytes = size_t{64} << 20;
  // A batch ends with the message that passes this: a quarter of what an internal server accepts,
  // so that whatever gathered while the peer slept does not break the stream when it wakes.
  static constexpr size_t kBatchBytes = size_t{1} << 20;

  explicit BatchWriter(StartWrite start_write) : start_write_(std::move(start_write)) {}

  // The message stays until the next Flush, or until the write under way ends. kFull: it is
  // refused, the bound is reached.
  Added Add(Message message) {
    const size_t bytes = message.ByteSizeLong();
    base::MutexLock lock(&mutex_);
    if (closed_) return Added::kClosed;
    if (pending_.size() >= kMaxPending || pending_bytes_ + bytes > kMaxPendingBytes) {
      return Added::kFull;
    }
    pending_bytes_ += bytes;
    pending_.push_back({std::move(message), bytes});
    return Added::kYes;
  }

  void Flush() {
    base::MutexLock lock(&mutex_);
    WriteNext();
  }

  // The write under way has ended.
  void OnWritten(bool ok) {
    base::MutexLock lock(&mutex_);
    writing_now_ = false;
    if (ok) WriteNext();
  }

  // No write starts from now on. The first call runs `finish`, under the lock.
  template <typename Finish>
  void Close(Finish finish) {
    base::MutexLock lock(&mutex_);
    if (std::exchange(closed_, true)) return;
    finish();
  }

  // Copied into each batch from now on; the sequence is filled in.
  void set_envelope(v1::Envelope envelope) {
    base::MutexLock lock(&mutex_);
    envelope_ = std::move(envelope);
  }

 private:
  struct Pending {
    Message message;
    size_t bytes = 0;
  };

  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (closed_ || writing_now_ || pending_.empty()) return;
    writing_.Clear();
    *writing_.mutable_envelope() = envelope_;
    writing_.mutable_envelope()->set_sequence(next_sequence_);
    for (size_t bytes = 0; !pending_.empty() && bytes < kBatchBytes; pending_.pop_front()) {
      bytes += pending_.front().bytes;
      pending_bytes_ -= pending_.front().bytes;
      *writing_.add_messages() = std::move(pending_.front().message);
    }
    next_sequence_ += writing_.messages_size();
    writing_now_ = true;
    start_write_(&writing_);
  }

  const StartWrite start_write_;
  base::Mutex mutex_;
  std::deque<Pending> pending_ ABSL_GUARDED_BY(mutex_);
  size_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  Batch writing_ ABSL_GUARDED_BY(mutex_);
  v1::Envelope envelope_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 1;
  bool writing_now_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace triptych::services
