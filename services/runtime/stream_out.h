#pragma once

// The sending half of a batched stream: messages gather while a write is under way and then leave
// as one batch. Not a queue without end: beyond its bound a message is refused.

#include <cstdint>
#include <deque>
#include <type_traits>
#include <utility>

#include "triptych/v1/common.pb.h"

namespace triptych::services {

// `Batch` has an `envelope` and repeated `messages`. Not thread-safe: its stream locks around it.
template <typename Batch>
class StreamOut {
 public:
  using Message = std::decay_t<decltype(std::declval<Batch>().messages(0))>;
  static constexpr size_t kMaxPending = 1 << 16;
  static constexpr size_t kMaxPendingBytes = size_t{64} << 20;
  // A batch ends with the message that passes this: a quarter of what an internal server accepts,
  // so that whatever gathered while the peer slept does not break the stream when it wakes.
  static constexpr size_t kBatchBytes = size_t{1} << 20;

  // False when the bound is reached.
  bool Add(Message&& message) {
    const size_t bytes = message.ByteSizeLong();
    if (pending_.size() >= kMaxPending || pending_bytes_ + bytes > kMaxPendingBytes) return false;
    pending_bytes_ += bytes;
    pending_.push_back({std::move(message), bytes});
    return true;
  }

  // Fills `writing()` with what has gathered, up to a batch's size. False when there is nothing.
  bool Next() {
    if (pending_.empty()) return false;
    writing_.Clear();
    *writing_.mutable_envelope() = envelope_;
    writing_.mutable_envelope()->set_sequence(next_sequence_);
    for (size_t bytes = 0; !pending_.empty() && bytes < kBatchBytes; pending_.pop_front()) {
      bytes += pending_.front().bytes;
      pending_bytes_ -= pending_.front().bytes;
      *writing_.add_messages() = std::move(pending_.front().message);
    }
    next_sequence_ += writing_.messages_size();
    return true;
  }

  const Batch& writing() const { return writing_; }
  // Copied into each batch from now on; the sequence is filled in.
  void set_envelope(v1::Envelope envelope) { envelope_ = std::move(envelope); }
  const v1::Envelope& envelope() const { return envelope_; }

 private:
  struct Pending {
    Message message;
    size_t bytes = 0;
  };
  std::deque<Pending> pending_;
  size_t pending_bytes_ = 0;
  Batch writing_;
  v1::Envelope envelope_;
  uint64_t next_sequence_ = 1;
};

}  // namespace triptych::services
