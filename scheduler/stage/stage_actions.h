#pragma once

// What a stage scheduler is configured with and what it asks of the loop that owns it: plain data.

#include <cstdint>
#include <variant>
#include <vector>

#include "scheduler/plan/gateway_messages.h"
#include "scheduler/plan/step_plan.h"
#include "scheduler/plan/transfer_messages.h"
#include "scheduler/plan/worker_messages.h"
#include "scheduler/request/layout.h"

namespace triptych::scheduler {

struct StageConfig {
  // Roles, fingerprint, own incarnation and capacity. Tasks of other roles are refused.
  WorkerProfile profile;
  LayoutRules layout;
  int32_t num_layers = 1;
  int64_t embedding_bytes_per_token = 0;
  int32_t max_position = 1 << 20;  // longest sequence, in tokens

  int32_t chunk_tokens = 512;  // most tokens of one sequence in a step
  // What a prompt has before an item that is not there yet is worth a row from so many tokens on:
  // a step reads all weights, and fewer go with the item's own for nothing.
  int32_t least_early_tokens = 1;
  int32_t step_tokens = 1024;             // of all rows of a step, decode rows included
  int32_t max_batch = 64;                 // rows of a step
  int64_t encode_patches_a_step = 16384;  // one item always fits
  int max_steps_in_flight = 2;            // of each lane
  int max_pieces_in_flight = 64;          // imports and exports, each

  // Of pieces, sent and received; that of one block where a block is larger. Both regions hold one.
  int64_t max_piece_bytes = 16 << 20;
  // Layers of KV in a piece; 0: all. Fewer let a piece leave while its step computes later layers,
  // on a device that announces them (engine/executor.h), and cost a round of messages each.
  int32_t layer_group = 0;
  int64_t staging_bytes = int64_t{256} << 20;  // the region of outgoing pieces
  int64_t landing_bytes = int64_t{256} << 20;  // the region of incoming pieces
  int64_t buffer_alignment = 256;              // of buffers inside their regions

  // Whether the model has such a token.
  bool IsToken(int32_t id) const { return id >= 0 && id < layout.vocab_size; }
};

struct SendToScheduler {
  WorkerToScheduler message;
};

// Ask the gateway for the input of a task; answer with OnPulled. For an encode task the item's
// media come along; they are decoded, given to the executor, and OnMediaReady is called.
struct Pull {
  PullRequest request;
  PeerAddress gateway;
};

// Media, patches and a running pull of this task are no longer wanted.
struct DropInput {
  TaskId task;
};

struct SendTransfer {
  PeerAddress peer;
  TransferMessage message;
};

// Hand a staging or a landing buffer to transport, in the order of `sequence` for each peer. Answer
// with OnPieceSent / OnPieceReceived, also when the peer is lost.
struct PostSend {
  PeerAddress peer;
  uint64_t sequence = 0;
  PieceBuffer buffer;
};
struct PostReceive {
  PeerAddress peer;
  uint64_t sequence = 0;
  PieceBuffer buffer;
};

// Work for the engine. Answer with OnStepResult, OnImported, OnExported.
struct SubmitStep {
  StepPlan plan;
};
struct SubmitImport {
  ImportSpec spec;
};
struct SubmitExport {
  ExportSpec spec;
};

struct SendTokens {
  PeerAddress gateway;
  TokenBatch batch;
};

// Close the data connection to this peer; everything posted on it completes with an error.
struct AbortPeer {
  Incarnation peer;
};

// To be carried out in the order in which they were taken.
using StageAction =
    std::variant<SendToScheduler, Pull, DropInput, SendTransfer, PostSend, PostReceive, SubmitStep,
                 SubmitImport, SubmitExport, SendTokens, AbortPeer>;

// What is held, now. All 0 at rest.
struct StageStats {
  int32_t tasks = 0;
  int32_t kv_blocks = 0;
  int32_t embedding_slots = 0;
  int32_t in_flight = 0;     // steps, imports and exports
  int64_t staged_bytes = 0;  // of pieces to be sent
  int64_t landed_bytes = 0;  // of pieces received
  int32_t transfers = 0;     // of either end
  friend bool operator==(const StageStats&, const StageStats&) = default;
};

}  // namespace triptych::scheduler
