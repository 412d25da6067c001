#pragma once

// The rows of a step as flat arrays in one block of memory, so that a device gets them in one copy
// and at the same addresses each time. Pure: the CPU and a GPU run the same arrays.
//
// Rows with one query (decode steps, and chunks of one token) come first, the rest behind them,
// each in the plan's order: attention treats the two kinds apart. What is indexed by row of the
// result (errors, sampled tokens) keeps the plan's order.

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/attention_plan.h"
#include "kernels/sample.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::engine {

// The most that a block has room for; the places of its arrays depend on nothing else.
struct BatchLimits {
  int64_t tokens = 0;
  int64_t rows = 0;
  int64_t pages = 0;    // of all rows
  int64_t sampled = 0;  // rows that want a token
  int64_t biases = 0;   // of tokens, of all those rows
  int64_t counts = 0;
};

// What this plan needs.
BatchLimits LimitsOf(const scheduler::StepPlan& plan);

// The arrays of a block that begins at some address, on the host or on a device.
struct StepArrays {
  int32_t* inputs = nullptr;         // [tokens], as kernels/embed.h reads them
  int32_t* row_of_token = nullptr;   // [tokens], in the plan's order
  int32_t* positions = nullptr;      // [3, tokens of the batch]
  int32_t* slots = nullptr;          // [tokens], of the KV pool
  int32_t* query_begin = nullptr;    // [rows + 1], and so on: kernels/attention_plan.h
  int32_t* token_begin = nullptr;    // [rows]
  int32_t* page_begin = nullptr;     // [rows + 1]
  int32_t* pages = nullptr;          // [pages]
  int32_t* logits_tokens = nullptr;  // [sampled]: the last token of each row that wants one, in the
                                     // plan's order
  kernels::SampleRow* sampling = nullptr;  // [sampled]: how each is drawn
  kernels::TokenBias* biases = nullptr;    // [biases], one row's after another's
  kernels::TokenCount* counts = nullptr;   // [counts]
};

// A multiple of 256.
int64_t StepBlockBytes(const BatchLimits& limits);
// `base` is aligned to 16 bytes.
StepArrays StepArraysAt(const BatchLimits& limits, void* base);

// How much of the arrays a plan fills.
struct StepBatch {
  int64_t tokens = 0;
  int32_t rows = 0;
  int32_t decode_rows = 0;
  int64_t pages = 0;
  int64_t sampled = 0;
};

// Where the tokens of recent steps lie: a ring of kSteps times `rows` int32, one stretch a step,
// the tokens of its sampled rows in the plan's order. One thread.
class SampledRing {
 public:
  // Two steps are in flight, and results are read while the next are packed.
  static constexpr int kSteps = 4;
  // A row names the step before its own or the one before that.
  static constexpr int kNamed = 2;

  explicit SampledRing(int32_t rows) : rows_(rows) {}

  // Index of the token that `source` names; -1 for a step that is not among the latest kNamed noted
  // (an older one, or its own) and for what is no row of it that samples.
  int32_t Find(const scheduler::SampledBy& source) const;
  // The same, of what a planner may name: another is its fault, and a CHECK in every engine.
  int32_t IndexOf(const scheduler::SampledBy& source) const;
  // Takes the step up as the latest; the index of its first token. More than `rows` sampled rows
  // are a CHECK.
  int32_t Note(const scheduler::StepPlan& plan);
  int32_t size() const { return kSteps * rows_; }

 private:
  struct Step {
    scheduler::StepId id;
    std::vector<int32_t> index_of_row;  // -1: samples nothing
  };
  const int32_t rows_;
  int64_t noted_ = 0;
  std::array<Step, kSteps> steps_;
};

// Sizes of the pools and tables that inputs and slots refer to.
struct BatchShape {
  int64_t vocab_size = 0;
  int32_t block_tokens = 16;
  int32_t embedding_page_slots = 64;
  // At least so many rows, for plans of sampled rows of one token alone (CHECKed): what is added
  // reads token 0, sees the first slot of block 0, stores nothing and is drawn greedily. So a
  // captured graph runs batches of any size up to its own.
  int32_t padded_rows = 0;
};

// Slot of token `index` of an item that lies in `pages`.
inline int32_t EmbeddingSlot(const std::vector<scheduler::BlockId>& pages, int32_t index,
                             int32_t page_slots) {
  return pages.at(index / page_slots) * page_slots + index % page_slots;
}

// Writes the rows of `plan` to `arrays`, which have room for LimitsOf(plan) and the padding (a
// token, a page and a sampled row for each row of it). A plan that contradicts itself (positions,
// pages or embeddings that do not cover its tokens) is a CHECK: the planner is ours. A token id
// outside the vocabulary, which may have come over a wire, becomes an input that names nothing;
// pages are checked where they are used.
StepBatch PackStep(const scheduler::StepPlan& plan, const BatchShape& shape,
                   const SampledRing& sampled, const StepArrays& arrays);

// The attention's view of it; `host` and `device` are the same arrays on both.
kernels::AttentionRows AttentionRowsOf(const StepBatch& batch, const StepArrays& host,
                                       const StepArrays& device);

}  // namespace triptych::engine
