#pragma once

// The tasks of one worker. A task is its assignment and a state; a state owns its blocks and slots,
// and leaving it gives them back (through StepLedger::Retire while a step may still use them).

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <variant>
#include <vector>

#include "scheduler/cache/block_table.h"
#include "scheduler/plan/gateway_messages.h"
#include "scheduler/plan/transfer_messages.h"
#include "scheduler/plan/worker_messages.h"
#include "scheduler/stage/sequence.h"
#include "scheduler/stage/token_outbox.h"
#include "scheduler/transfer/sender.h"

namespace triptych::scheduler {

// Pieces of one output on their way to a consumer on another worker: which were exported.
struct OutgoingPieces {
  TransferKey key;
  TransferKind kind = TransferKind::kKv;
  int32_t num_tokens = 0;
  int32_t exported = 0;   // tokens [0, exported) are in submitted exports, in all layers
  int32_t range_end = 0;  // tokens [exported, range_end) are, in layers [0, layers)
  int32_t layers = 0;
  int32_t next_index = 0;  // of pieces
  bool granted = false;
  // The last piece of KV, exported before the token that goes with it was known.
  std::optional<StagedPiece> awaits_token;
};

// ---- encode -------------------------------------------------------------------------------------
// `slots` are pages of slots; empty when the consumer is on this worker: the row then writes into
// its.

struct AwaitingMedia {
  BlockHandle slots;
  std::optional<Grid> grid;  // known once pulled
};
struct EncodeReady {
  BlockHandle slots;
  Grid grid;
};
struct Encoding {
  BlockHandle slots;
  StepId step;
  uint64_t consumer_life = 0;  // in memory: of the prefill task whose slots are written
};
struct DeliveringEmbedding {
  BlockHandle slots;
};
struct EncodeDelivered {};

struct EncodeTask {
  AssignEncode assign;
  uint64_t life = 0;   // of this admission, unlike any other: results of an earlier one are stale
  bool local = false;  // the consumer is a task of this worker
  std::optional<OutgoingPieces> outgoing;
  std::variant<AwaitingMedia, EncodeReady, Encoding, DeliveringEmbedding, EncodeDelivered> state;
};

// ---- prefill ------------------------------------------------------------------------------------

struct PrefillItem {
  int32_t num_tokens = 0;
  BlockHandle slots;  // pages; empty again once the last chunk that reads them has finished
  std::optional<TaskId> producer;
  bool received = false;  // every piece is checked in; the producer does not change any more
  bool landed = false;    // and in its slots: rows may read it
};

struct AwaitingPrompt {
  BlockTable blocks;
};
struct Prefilling {
  BlockTable blocks;
  Sequence sequence;
};
// The first token is sampled; KV is kept for decode workers until the task is released. `blocks` is
// empty when a decode task of this worker took them over, or when the first token ended the answer.
struct PrefillKept {
  BlockTable blocks;
  Sequence sequence;
  FirstToken first;
  Finish finish = Finish::kNone;
  bool taken_over = false;
};

// The logits were not finite; the gateway is told until the task is released. `blocks` is empty.
struct PrefillBroken {
  BlockTable blocks;
};

struct PrefillTask {
  AssignPrefill assign;
  uint64_t life = 0;  // of this admission, unlike any other: results of an earlier one are stale
  std::vector<PrefillItem> items;
  std::optional<TokenOutbox> outbox;
  std::optional<BindConsumer> consumer;
  bool out_of_reach = false;  // the consumer's worker is: the scheduler has been told, or will be
  std::optional<OutgoingPieces> outgoing;
  std::variant<AwaitingPrompt, Prefilling, PrefillKept, PrefillBroken> state;
};

// ---- decode -------------------------------------------------------------------------------------

// Waits for its parameters and for the KV of the prompt with the first token.
struct AwaitingKv {
  BlockTable blocks;
  std::optional<PulledInput> input;
  std::optional<FirstToken> first;  // set once every piece is imported
};
struct Decoding {
  BlockTable blocks;
  Sequence sequence;
};
// Every token is made; they wait for the gateway's acknowledgement.
struct DecodeConcluding {};
struct DecodeDelivered {};

struct DecodeTask {
  AssignDecode assign;
  uint64_t life = 0;   // of this admission, unlike any other: results of an earlier one are stale
  bool local = false;  // the producer is a task of this worker
  std::optional<TokenOutbox> outbox;
  int32_t own_index = 0;  // of the first token that this task samples
  bool started = false;   // DecodeStarted was said
  StepId served_in;       // the last step that had a row of it
  std::variant<AwaitingKv, Decoding, DecodeConcluding, DecodeDelivered> state;
};

}  // namespace triptych::scheduler
