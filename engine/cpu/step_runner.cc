#include "engine/cpu/step_runner.h"

#include <algorithm>

#include "base/check.h"
#include "engine/row_results.h"
#include "kernels/sample.h"

namespace triptych::engine {
kernels::Stream StepRunner::StreamWith(int64_t bytes) {
  if (workspace_ == nullptr || workspace_->region().bytes < bytes) {
    workspace_.reset();
    scratch_ = HostMemory();
    absl::StatusOr<HostMemory> memory = HostMemory::Map(bytes);
    CHECK_OK(memory.status());
    scratch_ = *std::move(memory);
    workspace_ = std::make_unique<kernels::Workspace>(scratch_.ref());
  }
  return {.pool = parts_.pool.get(), .workspace = workspace_.get()};
}

void StepRunner::Encode(const scheduler::EncodeRow& row, const EncodeInput& input) {
  CHECK_TRUE(parts_.vision != nullptr && input.grid == row.grid);
  const models::VisionTower& tower = *parts_.vision;
  const PagedPool& pool = *parts_.embeddings;
  std::vector<int32_t> slots;
  for (int32_t i = 0; i < row.num_tokens; ++i) {
    slots.push_back(EmbeddingSlot(row.pages, i, pool.layout().block_tokens));
  }
  const models::VisionItem item{row.grid, slots};
  const absl::StatusOr<models::VisionSizes> sizes = models::SizesOf({item}, tower.config());
  CHECK_OK(sizes.status());
  block_.resize(models::VisionBlockBytes(*sizes, tower.config()));
  const models::VisionArrays arrays = models::VisionArraysAt(*sizes, tower.config(), block_.data());
  models::PackVisionBatch({item}, tower.config(), tower.spec(), arrays);
  CHECK_OK(tower.Encode({{row.grid, input.pixels.data(), input.num_frames}},
                        {.sizes = *sizes, .host = arrays, .device = arrays},
                        {pool.layers()[0], pool.slots()},
                        StreamWith(tower.WorkspaceBytes(sizes->patches))));
}

StepArrays StepRunner::Forward(const scheduler::StepPlan& plan) {
  CHECK_TRUE(parts_.decoder != nullptr);
  const models::Decoder& decoder = *parts_.decoder;
  const BatchLimits limits = LimitsOf(plan);
  block_.resize(StepBlockBytes(limits));
  const StepArrays arrays = StepArraysAt(limits, block_.data());
  const PagedPool& kv = *parts_.kv;
  const StepBatch batch =
      PackStep(plan,
               {.vocab_size = decoder.config().vocab_size,
                .block_tokens = kv.layout().block_tokens,
                .embedding_page_slots = parts_.embeddings->layout().block_tokens},
               ring_, arrays);
  const kernels::Stream stream = StreamWith(decoder.WorkspaceBytes(batch.tokens, batch.sampled));
  CHECK_OK(attention_.Make(AttentionRowsOf(batch, arrays, arrays), kv.layout(), kv.num_blocks(),
                           decoder.config().num_attention_heads, stream));
  errors_.assign(plan.rows.size(), 0);
  logits_.resize(batch.sampled * decoder.config().vocab_size);
  const bool has_pool = parts_.embeddings->slots() > 0;
  CHECK_OK(decoder.Forward(
      {.tokens = batch.tokens,
       .inputs = arrays.inputs,
       .positions = arrays.positions,
       .slots = arrays.slots,
       .attention = &attention_,
       .logits_rows = batch.sampled,
       .logits_tokens = arrays.logits_tokens,
       .sampled = sampled_.data(),
       .sampled_size = ring_.size(),
       .row_of_token = arrays.row_of_token,
       .errors = errors_.data()},
      {kv.layout(), kv.num_blocks(), kv.layers()},
      {has_pool ? parts_.embeddings->layers()[0] : nullptr, parts_.embeddings->slots()},
      logits_.data(), stream));
  return arrays;
}

scheduler::StepResult StepRunner::Run(const scheduler::StepPlan& plan) {
  const StepArrays arrays = plan.rows.empty() ? StepArrays() : Forward(plan);
  int32_t next = ring_.Note(plan);
  drawn_.resize(LimitsOf(plan).sampled);
  if (!drawn_.empty()) {
    CHECK_OK(kernels::Sample({.logits = logits_.data(),
                              .rows = static_cast<int64_t>(drawn_.size()),
                              .vocab = parts_.decoder->config().vocab_size,
                              .params = arrays.sampling,
                              .biases = arrays.biases,
                              .counts = arrays.counts,
                              .sampled = sampled_.data(),
                              .sampled_size = ring_.size(),
                              .results = drawn_.data(),
                              .ids = sampled_.data() + next},
                             StreamWith(0)));
  }
  // What follows a token that was drawn from nothing finds nothing either.
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    if (!plan.rows[i].sample.has_value()) continue;
    if (errors_[i] != 0) sampled_[next] = -1;
    ++next;
  }
  return {.id = plan.id, .lane = plan.lane, .rows = RowResultsOf(plan, drawn_, errors_)};
}

}  // namespace triptych::engine
