#pragma once

// What a modelled device computes instead of maths: each KV row of a layer and each embedding slot
// holds one 64-bit number that depends on everything a real one would depend on, so that a wrong
// block, a missing import or a stale embedding changes the tokens. One thread.

#include <cstdint>
#include <map>
#include <vector>

#include "absl/types/span.h"
#include "engine/executor.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::engine {

// Which tokens a modelled device gives.
struct FakeTokens {
  int32_t vocab_size = 32000;
  std::vector<int32_t> stop_token_ids;  // never given by chance
  // One token in so many is the first stop token; 0: answers end at their max_tokens.
  uint32_t stop_one_in = 0;
};

// kCarried: pieces hold 8 bytes a token (KV: and layer), the numbers themselves. kDeclared: buffers
// have a size and no bytes, and a token depends on its index alone.
enum class FakePayload : uint8_t { kCarried, kDeclared };

class FakeModel {
 public:
  // What the capacity's bytes per token (KV: and layer) must be under kCarried.
  static constexpr int64_t kBytesPerToken = 8;

  FakeModel(const Capacity& capacity, FakeTokens tokens, FakePayload payload);

  void Import(const scheduler::ImportSpec& spec, absl::Span<const uint8_t> bytes);
  // `digest` is that of the item's patches.
  void Encode(const scheduler::EncodeRow& row, uint64_t digest);
  // `last_token` replaces the row's last token where another row sampled it.
  scheduler::RowResult Run(const scheduler::PlanRow& row, const int32_t* last_token);
  void Export(const scheduler::ExportSpec& spec, absl::Span<uint8_t> bytes) const;

 private:
  size_t SlotAddress(const std::vector<scheduler::BlockId>& pages, int32_t token) const;
  size_t RowAddress(const std::vector<scheduler::BlockId>& pages, int32_t layer,
                    int32_t token) const;
  // Where each number of a piece lies in the pools, in the order of its bytes.
  std::vector<size_t> Addresses(const scheduler::CacheRange& range,
                                const std::vector<scheduler::BlockId>& pages) const;
  int32_t Sample(uint64_t state, const scheduler::SampleSpec& sample) const;

  const Capacity capacity_;
  const FakeTokens tokens_;
  const FakePayload payload_;
  std::vector<uint64_t> kv_;          // [layers, kv_blocks * kv_block_tokens]
  std::vector<uint64_t> embeddings_;  // [embedding_slots]
};

}  // namespace triptych::engine
