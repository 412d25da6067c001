#include "engine/modelled/fake_model.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/checksum.h"

namespace triptych::engine {
namespace {

using base::MixBits;

uint64_t Combine(uint64_t a, uint64_t b) { return MixBits(a * 0x9e3779b97f4a7c15ULL + b + 1); }

// Of token `token` in a pool of `size` words whose pages hold `page_tokens`.
size_t Address(const std::vector<scheduler::BlockId>& pages, int32_t token, int32_t page_tokens,
               size_t size) {
  const scheduler::BlockId page = pages.at(static_cast<size_t>(token / page_tokens));
  const int64_t address = int64_t{page} * page_tokens + token % page_tokens;
  CHECK_TRUE(page >= 0 && address < static_cast<int64_t>(size));
  return static_cast<size_t>(address);
}

}  // namespace

FakeModel::FakeModel(const Capacity& capacity, FakeTokens tokens, FakePayload payload)
    : capacity_(capacity), tokens_(std::move(tokens)), payload_(payload) {
  if (payload_ == FakePayload::kDeclared) return;
  CHECK_EQ(capacity_.kv_bytes_per_token, kBytesPerToken * capacity_.num_layers);
  CHECK_EQ(capacity_.embedding_bytes_per_token, kBytesPerToken);
  kv_.resize(static_cast<size_t>(capacity_.num_layers) * static_cast<size_t>(capacity_.kv_blocks) *
             static_cast<size_t>(capacity_.kv_block_tokens));
  embeddings_.resize(static_cast<size_t>(capacity_.embedding_slots));
}

size_t FakeModel::RowAddress(const std::vector<scheduler::BlockId>& pages, int32_t layer,
                             int32_t token) const {
  const size_t layer_size = kv_.size() / static_cast<size_t>(capacity_.num_layers);
  return static_cast<size_t>(layer) * layer_size +
         Address(pages, token, capacity_.kv_block_tokens, layer_size);
}

size_t FakeModel::SlotAddress(const std::vector<scheduler::BlockId>& pages, int32_t token) const {
  return Address(pages, token, capacity_.embedding_page_slots, embeddings_.size());
}

std::vector<size_t> FakeModel::Addresses(const scheduler::CacheRange& range,
                                         const std::vector<scheduler::BlockId>& pages) const {
  const bool kv = range.kind == scheduler::TransferKind::kKv;
  CHECK_TRUE(!kv || (range.layer_begin >= 0 && range.layer_end <= capacity_.num_layers));
  std::vector<size_t> addresses;
  for (int32_t layer = range.layer_begin; layer < (kv ? range.layer_end : 1); ++layer) {
    for (int32_t token = range.token_begin; token < range.token_end; ++token) {
      addresses.push_back(kv ? RowAddress(pages, layer, token) : SlotAddress(pages, token));
    }
  }
  return addresses;
}

void FakeModel::Import(const scheduler::ImportSpec& spec, absl::Span<const uint8_t> bytes) {
  if (payload_ == FakePayload::kDeclared) return;
  std::vector<uint64_t>& pool = spec.range.kind == scheduler::TransferKind::kKv ? kv_ : embeddings_;
  const std::vector<size_t> addresses = Addresses(spec.range, spec.pages);
  CHECK_EQ(bytes.size(), addresses.size() * kBytesPerToken);
  for (size_t i = 0; i < addresses.size(); ++i) {
    std::memcpy(&pool[addresses[i]], bytes.data() + i * kBytesPerToken, kBytesPerToken);
  }
}

void FakeModel::Export(const scheduler::ExportSpec& spec, absl::Span<uint8_t> bytes) const {
  if (payload_ == FakePayload::kDeclared) return;
  const std::vector<uint64_t>& pool =
      spec.range.kind == scheduler::TransferKind::kKv ? kv_ : embeddings_;
  const std::vector<size_t> addresses = Addresses(spec.range, spec.pages);
  CHECK_EQ(bytes.size(), addresses.size() * kBytesPerToken);
  for (size_t i = 0; i < addresses.size(); ++i) {
    std::memcpy(bytes.data() + i * kBytesPerToken, &pool[addresses[i]], kBytesPerToken);
  }
}

void FakeModel::Encode(const scheduler::EncodeRow& row, uint64_t digest) {
  if (payload_ == FakePayload::kDeclared) return;
  for (int32_t i = 0; i < row.num_tokens; ++i) {
    embeddings_[SlotAddress(row.pages, i)] = Combine(digest, static_cast<uint64_t>(i));
  }
}

scheduler::RowResult FakeModel::Run(const scheduler::PlanRow& row, const int32_t* last_token) {
  scheduler::RowResult result{.task = row.task};
  const auto count = static_cast<int32_t>(row.token_ids.size());
  uint64_t state = 0;
  for (int32_t i = 0; i < count && payload_ == FakePayload::kCarried; ++i) {
    const int32_t token = row.token_begin + i;
    uint64_t input = static_cast<uint64_t>(row.token_ids[static_cast<size_t>(i)]);
    if (i == count - 1 && last_token != nullptr) input = static_cast<uint64_t>(*last_token);
    for (const scheduler::EmbeddingRange& range : row.embeddings) {
      if (i < range.row_offset || i >= range.row_offset + range.count) continue;
      input = embeddings_[SlotAddress(range.pages, range.item_begin + i - range.row_offset)];
    }
    const scheduler::Position3& position = row.positions[static_cast<size_t>(i)];
    state = Combine(input, static_cast<uint64_t>(position.t));
    state = Combine(state, static_cast<uint64_t>(position.h));
    state = Combine(state, static_cast<uint64_t>(position.w));
    // "Attention": to the row before, which depends on all earlier ones, and to two further back,
    // which may have been overwritten since; in all layers.
    for (const int32_t other : {token - 1, token / 2 - 1, token / 3 - 1}) {
      for (int32_t layer = 0; other >= 0 && layer < capacity_.num_layers; ++layer) {
        state = Combine(state, kv_[RowAddress(row.pages, layer, other)]);
      }
    }
    for (int32_t layer = 0; layer < capacity_.num_layers; ++layer) {
      kv_[RowAddress(row.pages, layer, token)] = Combine(state, static_cast<uint64_t>(layer));
    }
  }
  if (row.sample.has_value()) result.tokens.push_back({.token = Sample(state, *row.sample)});
  return result;
}

int32_t FakeModel::Sample(uint64_t state, const scheduler::SampleSpec& sample) const {
  const auto index = static_cast<uint64_t>(sample.index);
  uint64_t draw = Combine(Combine(state, sample.params.seed), index);
  const auto& stops = tokens_.stop_token_ids;
  if (tokens_.stop_one_in > 0 && !stops.empty() && draw % tokens_.stop_one_in == 0) {
    return stops.front();
  }
  auto token = static_cast<int32_t>(draw % static_cast<uint64_t>(tokens_.vocab_size));
  while (std::find(stops.begin(), stops.end(), token) != stops.end()) {
    draw = MixBits(draw + 1);
    token = static_cast<int32_t>(draw % static_cast<uint64_t>(tokens_.vocab_size));
  }
  return token;
}

}  // namespace triptych::engine
