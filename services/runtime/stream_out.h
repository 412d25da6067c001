#pragma once

// The sending half of a batched stream: messages gather while a write is under way and then leave
// as one batch. Not a queue without end: beyond its bound a message is refused.

#include <cstdint>
#include <type_traits>
#include <utility>

#include "triptych/v1/common.pb.h"

namespace triptych::services {

// `Batch` has an `envelope` and repeated `messages`. Not thread-safe: its stream locks around it.
template <typename Batch>
class StreamOut {
 public:
  using Message = std::decay_t<decltype(std::declval<Batch>().messages(0))>;
  static constexpr int kMaxPending = 1 << 16;

  // False when the bound is reached.
  bool Add(Message&& message) {
    if (pending_.messages_size() >= kMaxPending) return false;
    *pending_.add_messages() = std::move(message);
    return true;
  }

  // Fills `writing()` with what has gathered. False when there is nothing.
  bool Next() {
    if (pending_.messages_size() == 0) return false;
    writing_.Clear();
    writing_.Swap(&pending_);
    *writing_.mutable_envelope() = envelope_;
    writing_.mutable_envelope()->set_sequence(next_sequence_);
    next_sequence_ += writing_.messages_size();
    return true;
  }

  const Batch& writing() const { return writing_; }
  // Copied into each batch from now on; the sequence is filled in.
  void set_envelope(v1::Envelope envelope) { envelope_ = std::move(envelope); }
  const v1::Envelope& envelope() const { return envelope_; }

 private:
  Batch pending_;
  Batch writing_;
  v1::Envelope envelope_;
  uint64_t next_sequence_ = 1;
};

}  // namespace triptych::services
