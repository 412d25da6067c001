#pragma once

// The handshake between two workers, as plain data: Offer -> Grant -> Ready -> Go -> bytes ->
// PieceAcknowledged. One Offer and Grant a (producer, consumer) pair; Ready and Go are pipelined.
// Bytes move outside of these messages, through transport, in the order of `sequence`.

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "scheduler/plan/ids.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::scheduler {

// What is transferred: the output of `producer` into the reservation of `consumer`. `attempt`
// counts the producer's offers of it, so that answers to an earlier one are dropped.
struct TransferKey {
  TaskId producer;
  TaskId consumer;
  int32_t item = -1;  // embeddings: which item; KV: -1
  uint32_t attempt = 0;
  friend auto operator<=>(const TransferKey&, const TransferKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const TransferKey& k) {
    return H::combine(std::move(h), k.producer, k.consumer, k.item, k.attempt);
  }
};

// How the bytes of a payload are written.
enum class PayloadKind : uint8_t {
  kPlain,  // the fingerprint's storage type, token by token
};

// Some of the attention heads of KV; empty: all of them, and for embeddings.
struct HeadRange {
  int32_t begin = 0;
  int32_t end = 0;
  friend bool operator==(const HeadRange&, const HeadRange&) = default;
};

// Tokens [from_token, num_tokens). An item has at most as many as were reserved for it: here is its
// true count.
struct Offer {
  TransferKey key;
  std::string fingerprint;
  TransferKind kind = TransferKind::kKv;
  PayloadKind payload = PayloadKind::kPlain;
  HeadRange heads;
  int32_t from_token = 0;
  int32_t num_tokens = 0;
  int64_t bytes = 0;  // of all pieces
};

// Also the answer to a Ready that is repeated while its piece waits for landing memory.
struct Grant {
  TransferKey key;
};

struct Deny {
  enum class Reason : uint8_t {
    kUnknownTask,  // not assigned here (yet): offer again after a while
    kWrongFingerprint,
    kMismatch,  // size, item or producer differ from the reservation
    kOver,      // already checked in, or the task has ended: stop
  };
  TransferKey key;
  Reason reason = Reason::kUnknownTask;
};

// The first token travels with the last KV piece.
struct FirstToken {
  int32_t index = 0;  // in the answer
  SampledToken token;
};

// A staged piece. `index` counts the pieces of this key from 0.
struct Ready {
  TransferKey key;
  int32_t index = 0;
  CacheRange range;
  int64_t bytes = 0;
  uint64_t checksum = 0;
  enum class Position : uint8_t { kMore, kLast } position = Position::kMore;
  std::optional<FirstToken> first_token;
};

// The receiver has landing memory for this piece and has posted (or will post, in the order of
// `sequence`) its receive: both sides complete it, cancelled or not. `sequence` counts the
// operations from this sender to this receiver from 1, without gaps. `over_below` is the lowest of
// them that is still open: those below are over at the receiver, also where their Go was lost, and
// nobody waits for them. `connection` counts the times that bytes broke on their way.
struct Go {
  TransferKey key;
  int32_t index = 0;
  uint64_t sequence = 0;
  uint64_t over_below = 0;
  uint64_t connection = 0;
};

struct PieceAcknowledged {
  TransferKey key;
  int32_t index = 0;
  // kCorrupt: the checksum differs; send it again (a new Ready with the same index).
  enum class Verdict : uint8_t { kCheckedIn, kCorrupt } verdict = Verdict::kCheckedIn;
};

// Either side gives up on the key. Operations after Go still complete.
struct AbortTransfer {
  TransferKey key;
};

using TransferMessage =
    std::variant<Offer, Grant, Deny, Ready, Go, PieceAcknowledged, AbortTransfer>;

}  // namespace triptych::scheduler
