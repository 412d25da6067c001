#pragma once

// What a stage scheduler asks of an engine, and what comes back: plain data, valid on any device.
// Logical ids only; engine/memory maps them to addresses.
//
// Steps of one lane run one after another; lanes, imports and exports run beside each other. What a
// row or an encode reads is there when its step is submitted: a vector was encoded or imported by
// work that is over. An export alone may name what a step in flight writes.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/grid.h"
#include "scheduler/plan/ids.h"

namespace triptych::scheduler {

// 3-D rotary position of one token: (time, height, width).
struct Position3 {
  int32_t t = 0, h = 0, w = 0;
  friend bool operator==(const Position3&, const Position3&) = default;
};

using base::Grid;

// Added to the value of a token before filters see it; -infinity forbids the token.
struct TokenBias {
  int32_t token = 0;
  float bias = 0;
  friend bool operator==(const TokenBias&, const TokenBias&) = default;
};

// temperature 0 is greedy. top_k 0, top_p 1, min_p 0, repetition_penalty 1 and the other penalties
// 0 switch those off. What each does: kernels/sample.h.
struct SamplingParams {
  float temperature = 0;
  float top_p = 1;
  int32_t top_k = 0;
  uint64_t seed = 0;
  // -1: no log probabilities; k >= 0: that of the chosen token and of the k likeliest (k <= 20).
  int32_t top_logprobs = -1;
  float min_p = 0;               // 0 .. 1
  float repetition_penalty = 1;  // above 0
  float presence_penalty = 0;
  float frequency_penalty = 0;
  // At most kMaxTokenBiases, a token at most once: biases of the client, forbidden tokens,
  // suppressed ends.
  std::vector<TokenBias> biases;

  bool has_penalty() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
};

inline constexpr int kMaxTokenBiases = 1024;

// How often the text so far holds a token.
struct TokenUse {
  int32_t token = 0;
  int32_t in_answer = 0;
  int32_t in_prompt = 0;  // 0 or 1
  friend bool operator==(const TokenUse&, const TokenUse&) = default;
};

// Draw output token `index` (from 0, counted over the whole answer): the random number depends on
// (params.seed, index) alone, so a redone step draws the same.
struct SampleSpec {
  SamplingParams params;
  int32_t index = 0;
  // With a penalty: every token of the prompt and of the answer as far as it is known, by token.
  // The token of a row's `sampled_by` is not known; the engine counts it on top.
  std::vector<TokenUse> uses;
};

// Tokens [row_offset, row_offset + count) of a row take their input from the embedding pool instead
// of the embedding table: the vectors of tokens [item_begin, item_begin + count) of one item. A
// page of that pool has a fixed number of slots, and token i of an item lies in page
// pages[i / slots], slot i % slots of it.
struct EmbeddingRange {
  int32_t row_offset = 0;
  int32_t count = 0;
  int32_t item_begin = 0;
  std::vector<BlockId> pages;  // of the item
};

// The input of a row whose token an earlier step of its lane samples, one that may not have
// finished when this one is submitted: the last token of that row. It is the step before its own or
// the one before that; to name another is a fault of the planner, which every engine CHECKs.
struct SampledBy {
  StepId step;
  int32_t row = 0;
};

// A prefill chunk or a decode step of one sequence: tokens [token_begin, token_begin + count).
struct PlanRow {
  TaskId task;
  int32_t token_begin = 0;
  // [count]; the value is ignored under an EmbeddingRange, and for the last token if sampled_by.
  std::vector<int32_t> token_ids;
  std::vector<Position3> positions;  // [count]
  std::vector<EmbeddingRange> embeddings;
  std::optional<SampledBy> sampled_by;
  // Page table covering tokens [0, token_begin + count), at least.
  std::vector<BlockId> pages;
  // Absent: only KV is wanted (a chunk that is not the last).
  std::optional<SampleSpec> sample;
};

// Encode one item, whose patches the worker has provided to the executor under `task`. The output
// goes to the item's slots.
struct EncodeRow {
  TaskId task;
  Grid grid;
  int32_t num_tokens = 0;
  std::vector<BlockId> pages;  // of the item, as in EmbeddingRange
};

enum class TransferKind : uint8_t { kEmbedding, kKv };

// A range of one sequence's KV, or of one item's embeddings (tokens of the item; layers unused).
// Layout of the bytes: KV [layers, 2 (K, V), tokens, kv_heads, head_dim]; embeddings
// [tokens, hidden].
struct CacheRange {
  TransferKind kind = TransferKind::kKv;
  int32_t token_begin = 0, token_end = 0;
  int32_t layer_begin = 0, layer_end = 0;
};

// The memory of one piece: bytes [offset, offset + bytes) of a worker's staging region (what it
// sends) or of its landing region (what it receives). Both are fixed for the worker's life.
struct PieceBuffer {
  BufferId id;
  int64_t offset = 0;
  int64_t bytes = 0;
  friend bool operator==(const PieceBuffer&, const PieceBuffer&) = default;
};

// Scatter a checked landing buffer into the receiver's own blocks or slots.
struct ImportSpec {
  TaskId task;
  PieceBuffer buffer;
  CacheRange range;
  std::vector<BlockId> pages;  // of the sequence (KV) or of the item (embeddings)
};

// Gather blocks or slots into a staging buffer, once step `after` has written them: of the language
// lane for KV, of the encode lane for embeddings; 0 when what is gathered is there. A device may
// begin as soon as that step has passed the layers of the range.
struct ExportSpec {
  TaskId task;
  StepId after;
  PieceBuffer buffer;
  CacheRange range;
  std::vector<BlockId> pages;  // as of an import
};

// Encodes and rows of a shared worker do not wait for each other.
enum class Lane : uint8_t { kLanguage = 0, kEncode = 1 };
inline constexpr int kNumLanes = 2;

struct StepPlan {
  StepId id;
  Lane lane = Lane::kLanguage;
  std::vector<EncodeRow> encodes;  // of the encode lane
  std::vector<PlanRow> rows;       // of the language lane
  bool empty() const { return encodes.empty() && rows.empty(); }
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// One output token. `top` holds the likeliest alternatives when they were asked for.
struct SampledToken {
  int32_t token = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;
};

struct RowResult {
  TaskId task;
  std::vector<SampledToken> tokens;  // 0..k tokens
  // The logits were not finite: the request ends with `numerical_error`.
  bool numerical_error = false;
};

struct ExportResult {
  BufferId buffer;
  uint64_t checksum = 0;  // of the bytes, base/checksum.h
};

struct StepResult {
  StepId id;
  Lane lane = Lane::kLanguage;
  std::vector<RowResult> rows;  // as many, and in the order, of the plan's rows
  // Seconds of compute, for cost learning; not for decisions about correctness.
  double seconds = 0;
};

}  // namespace triptych::scheduler
