#pragma once

// What the two transfer machines ask of their owner (the stage scheduler): plain data. Those that
// are also StageActions are forwarded as they are.

#include <cstdint>
#include <optional>
#include <variant>

#include "absl/status/status.h"
#include "scheduler/plan/transfer_messages.h"
#include "scheduler/stage/stage_actions.h"

namespace triptych::scheduler {

// ---- to the owner of a TransferSender ----

// The consumer waits for it: stage pieces, as the budget allows.
struct TransferGranted {
  TransferKey key;
};

// Every piece is checked in at the consumer; nothing of it is staged any more.
struct TransferDelivered {
  TransferKey key;
};

// It will not be delivered under this key; nothing may be staged for it any more. CANCELLED: the
// consumer does not want it (any more), so nobody need be told. UNAVAILABLE: the peer is lost, does
// not answer or takes no bytes; `peer` names it.
// DATA_LOSS: pieces came over corrupt too often. FAILED_PRECONDITION: another model. INTERNAL: it
// does not fit what the consumer reserved.
struct TransferFailed {
  TransferKey key;
  absl::Status status;
  Incarnation peer;
};

// Staging memory has come free: a ReserveStaging that failed may succeed now.
struct StagingFree {};

// ---- to the owner of a TransferReceiver ----

// A checked piece lies in `buffer`. Import it, or not; then call Imported(), once no step that
// reads the buffer is unfinished.
struct PieceLanded {
  TaskId consumer;
  int32_t item = -1;
  CacheRange range;
  PieceBuffer buffer;
};

// Every piece of this input has been checked in; each PieceLanded came before. What is planned
// after their imports may read them.
struct TransferReceived {
  TaskId consumer;
  int32_t item = -1;
  TaskId producer;
  int32_t num_tokens = 0;                 // that it has
  std::optional<FirstToken> first_token;  // always there for KV
};

using TransferAction =
    std::variant<SendTransfer, PostSend, PostReceive, AbortPeer, TransferGranted, TransferDelivered,
                 TransferFailed, StagingFree, PieceLanded, TransferReceived>;

// The memory that one machine plans in.
struct TransferMemory {
  int64_t bytes = 0;      // of the region: all buffers together
  int64_t alignment = 1;  // of its buffers
};

// How long a side waits for an answer before it repeats its message: longer than a piece takes to
// move on a busy link, shorter than anybody's patience.
inline constexpr base::Duration kTransferRetry = std::chrono::milliseconds(500);
// After kUnknownTask: the assignment is on its way.
inline constexpr base::Duration kOfferRetry = std::chrono::milliseconds(250);
// Offers that came before what explains them.
inline constexpr base::Duration kParkedFor = std::chrono::seconds(2);
inline constexpr int kMaxParked = 1024;
// Tries of one piece that end corrupt or broken.
inline constexpr int kMaxPieceFailures = 8;
// Remembered peers that are lost, and consumers that are over, so that their messages stay without
// effect.
inline constexpr int kMaxRemembered = 4096;
// A peer that answers none of four repeated messages is out of reach, in one direction or in both.
inline constexpr base::Duration kLinkSilence = std::chrono::seconds(2);
// So is one whose handshake answers while no piece moves: 4.5 Mbit/s carry the largest in this
// time.
inline constexpr base::Duration kLinkStall = std::chrono::seconds(30);

}  // namespace triptych::scheduler
