#pragma once

// A decoder on the CPU with pools of its own, for tests and measurements.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/check.h"
#include "engine/memory/host_memory.h"
#include "engine/step_batch.h"
#include "kernels/thread_pool.h"
#include "kernels/workspace.h"
#include "models/decoder/decoder.h"
#include "models/weights/checkpoint.h"

namespace triptych::testing {

class DecoderBench {
 public:
  DecoderBench(const std::string& dir, int threads, int32_t blocks, int32_t visual_slots)
      : pool_(threads), memory_(&pool_) {
    const models::ModelConfig config = *models::LoadModelConfig(dir);
    const auto weights = *models::Checkpoint::Open(dir);
    decoder_ = *models::Decoder::Load(*weights, config, SpecOf(config, *weights).decoder, &memory_);
    kv_.layout = {.kv_heads = config.num_kv_heads, .head_dim = config.head_dim};
    kv_.num_blocks = blocks;
    for (int i = 0; i < config.num_layers; ++i) {
      regions_.push_back(*engine::HostMemory::Map(blocks * kv_.layout.block_bytes()));
      layers_.push_back(regions_.back().ref().data);
    }
    kv_.layers = layers_;
    visual_.resize(size_t{1} * visual_slots * config.hidden_size);
    visual_slots_ = visual_slots;
  }

  // The logits of the rows that want some, and of each row whether an input named nothing.
  std::vector<float> Step(const scheduler::StepPlan& plan) {
    const engine::BatchLimits limits = engine::LimitsOf(plan);
    block_.resize(engine::StepBlockBytes(limits));
    const engine::StepArrays arrays = engine::StepArraysAt(limits, block_.data());
    const engine::StepBatch batch = engine::PackStep(
        plan, {.vocab_size = config().vocab_size, .embedding_page_slots = 1}, ring_, arrays);
    const int64_t bytes = decoder_->WorkspaceBytes(batch.tokens, batch.sampled);
    if (scratch_.ref().bytes < bytes) scratch_ = *engine::HostMemory::Map(bytes);
    kernels::Workspace workspace(scratch_.ref());
    const kernels::Stream stream{.pool = &pool_, .workspace = &workspace};
    CHECK_OK(attention_.Make(engine::AttentionRowsOf(batch, arrays, arrays), kv_.layout,
                             kv_.num_blocks, config().num_attention_heads, stream));
    errors_.assign(plan.rows.size(), 0);
    std::vector<float> logits(batch.sampled * config().vocab_size);
    CHECK_OK(decoder_->Forward({.tokens = batch.tokens,
                                .inputs = arrays.inputs,
                                .positions = arrays.positions,
                                .slots = arrays.slots,
                                .attention = &attention_,
                                .logits_rows = batch.sampled,
                                .logits_tokens = arrays.logits_tokens,
                                .row_of_token = arrays.row_of_token,
                                .errors = errors_.data()},
                               kv_, {visual_.data(), visual_slots_}, logits.data(), stream));
    CHECK_LE(workspace.high_water(), bytes);
    return logits;
  }

  const models::ModelConfig& config() const { return decoder_->config(); }
  std::vector<float>& visual() { return visual_; }
  const std::vector<int32_t>& errors() const { return errors_; }

 private:
  kernels::ThreadPool pool_;
  models::HostWeightMemory memory_;
  std::unique_ptr<models::Decoder> decoder_;
  std::vector<engine::HostMemory> regions_;
  std::vector<void*> layers_;
  models::KvPools kv_;
  std::vector<float> visual_;
  int64_t visual_slots_ = 0;
  engine::SampledRing ring_{1};
  std::vector<std::byte> block_;
  engine::HostMemory scratch_;
  kernels::AttentionPlan attention_;
  std::vector<int32_t> errors_;
};

}  // namespace triptych::testing
