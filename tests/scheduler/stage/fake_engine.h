#pragma once

// An engine made of numbers: KV blocks hold one word a token and layer, slots one a token, and a
// sampled token is a digest of every KV word that its row may read. So a block used twice, a stale
// slot or a piece in the wrong place changes the text.

#include <catch2/catch.hpp>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/plan/step_plan.h"
#include "scheduler/stage/stage_actions.h"

namespace triptych::scheduler::testing {

inline constexpr int32_t kVocabulary = 1000;
inline constexpr int64_t kWordBytes = 8;
inline constexpr uint64_t kUnwritten = ~uint64_t{0};

inline uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9E3779B97F4A7C15u + b + 0x632BE59BD9B4E019u;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9u;
  return x ^ (x >> 32);
}

inline uint64_t EmbeddingWord(uint64_t content_key, int32_t token) {
  return Mix(content_key, 7000 + token);
}

inline uint64_t KvWord(uint64_t input, const Position3& p) {
  return Mix(Mix(input, p.t), Mix(p.h, p.w)) & ~(uint64_t{1} << 63);
}

// What the text so far holds, by token.
using Uses = std::map<int32_t, TokenUse>;

// With a penalty the text counts too, so a use that is missing or counted twice changes the token.
inline SampledToken Draw(uint64_t digest, const SampleSpec& spec, const Uses& uses) {
  uint64_t word = Mix(digest, Mix(spec.params.seed, spec.index));
  for (const auto& [token, use] : uses) {
    word = Mix(word, Mix(token, Mix(use.in_answer, use.in_prompt)));
  }
  return {.token = static_cast<int32_t>(word % kVocabulary), .logprob = -1};
}

class FakeEngine {
 public:
  explicit FakeEngine(const StageConfig& config)
      : staging(config.staging_bytes / kWordBytes, kUnwritten),
        landing(config.landing_bytes / kWordBytes, kUnwritten),
        block_tokens_(config.profile.kv_block_tokens),
        page_slots_(config.profile.embedding_page_slots),
        num_layers_(config.num_layers),
        kv_(config.num_layers,
            std::vector<uint64_t>(static_cast<size_t>(config.profile.kv_blocks) * block_tokens_,
                                  kUnwritten)),
        slots_(config.profile.embedding_slots, kUnwritten) {}

  std::map<TaskId, uint64_t> patches;      // encode task -> content key
  std::vector<uint64_t> staging, landing;  // a word a token, at the byte offsets of buffers
  // Given and not run.
  std::deque<StepPlan> lanes[kNumLanes];
  std::deque<StepResult> results[kNumLanes];  // of steps that were run
  std::deque<ImportSpec> imports;
  std::deque<ExportSpec> exports;
  std::set<TaskId> broken;  // rows of these give logits that are not finite
  std::set<TaskId> mad;     // rows of these give a token that the model does not have
  int64_t rows_run = 0, chunks_run = 0, overlapped_steps = 0;

  void Submit(StepPlan plan) {
    std::deque<StepPlan>& lane = lanes[static_cast<int>(plan.lane)];
    const std::deque<StepResult>& told = results[static_cast<int>(plan.lane)];
    if (!lane.empty()) ++overlapped_steps;
    // A submitted step keeps the patches that it needs.
    for (const EncodeRow& row : plan.encodes) submitted_patches_[row.task] = patches.at(row.task);
    lane.push_back(std::move(plan));
    REQUIRE(lane.size() + told.size() <= 2);
  }

  // What a device may do next, in any order: the first import, each export whose step is over, a
  // result that is to be told, the first step of a lane. In this order, so that the first choice is
  // an order too.
  size_t num_choices() const {
    size_t ready = imports.empty() ? 0 : 1;
    for (const ExportSpec& spec : exports) ready += IsWritten(spec) ? 1 : 0;
    for (int lane = 0; lane < kNumLanes; ++lane) {
      ready += (results[lane].empty() ? 0 : 1) + (lanes[lane].empty() ? 0 : 1);
    }
    return ready;
  }
  // Nothing yet where a step was run: its result is told later.
  using Event = std::variant<std::monostate, BufferId, ExportResult, StepResult>;
  Event Run(size_t choice) {
    if (!imports.empty() && choice-- == 0) {
      const ImportSpec spec = std::move(imports.front());
      imports.pop_front();
      Import(spec);
      return spec.buffer.id;
    }
    for (auto at = exports.begin(); at != exports.end(); ++at) {
      if (!IsWritten(*at) || choice-- > 0) continue;
      const ExportSpec spec = std::move(*at);
      exports.erase(at);
      return Export(spec);
    }
    for (std::deque<StepResult>& lane : results) {
      if (lane.empty() || choice-- > 0) continue;
      StepResult result = std::move(lane.front());
      lane.pop_front();
      return result;
    }
    RunStep(lanes[0].empty() || choice > 0 ? lanes[1] : lanes[0]);
    return std::monostate();
  }

  // The words of a buffer.
  static absl::Span<uint64_t> Words(std::vector<uint64_t>& region, const PieceBuffer& buffer) {
    REQUIRE(buffer.offset % kWordBytes == 0);
    REQUIRE(buffer.offset + buffer.bytes <= static_cast<int64_t>(region.size()) * kWordBytes);
    return {region.data() + buffer.offset / kWordBytes,
            static_cast<size_t>(buffer.bytes / kWordBytes)};
  }
  // The oldest step of that lane, run and told.
  StepResult RunLanguageStep() {
    std::deque<StepResult>& told = results[static_cast<int>(Lane::kLanguage)];
    if (told.empty()) RunStep(lanes[static_cast<int>(Lane::kLanguage)]);
    StepResult result = std::move(told.front());
    told.pop_front();
    return result;
  }

  static uint64_t Checksum(absl::Span<const uint64_t> words) {
    uint64_t sum = 1;
    for (uint64_t word : words) sum = Mix(sum, word);
    return sum;
  }

 private:
  bool IsWritten(const ExportSpec& spec) const {
    const bool kv = spec.range.kind == TransferKind::kKv;
    return spec.after <= done_[static_cast<int>(kv ? Lane::kLanguage : Lane::kEncode)];
  }
  uint64_t& Kv(const std::vector<BlockId>& pages, int32_t layer, int32_t token) {
    return kv_.at(layer).at(static_cast<size_t>(pages.at(token / block_tokens_)) * block_tokens_ +
                            token % block_tokens_);
  }
  uint64_t& Slot(const std::vector<BlockId>& pages, int32_t token) {
    return slots_.at(static_cast<size_t>(pages.at(token / page_slots_)) * page_slots_ +
                     token % page_slots_);
  }
  // Calls `copy` with each word of a piece and its place in the buffer, which must be its size.
  template <typename Copy>
  void ForWords(const CacheRange& range, const std::vector<BlockId>& pages, size_t size,
                Copy copy) {
    const bool kv = range.kind == TransferKind::kKv;
    size_t at = 0;
    for (int32_t l = range.layer_begin; l < (kv ? range.layer_end : 1); ++l) {
      for (int32_t t = range.token_begin; t < range.token_end; ++t) {
        REQUIRE(at < size);
        copy(kv ? Kv(pages, l, t) : Slot(pages, t), at++);
      }
    }
    REQUIRE(at == size);
  }
  void Import(const ImportSpec& spec) {
    const absl::Span<uint64_t> words = Words(landing, spec.buffer);
    ForWords(spec.range, spec.pages, words.size(),
             [&](uint64_t& word, size_t at) { word = words[at]; });
  }
  ExportResult Export(const ExportSpec& spec) {
    const absl::Span<uint64_t> words = Words(staging, spec.buffer);
    ForWords(spec.range, spec.pages, words.size(), [&](const uint64_t& word, size_t at) {
      REQUIRE(word != kUnwritten);
      words[at] = word;
    });
    return {spec.buffer.id, Checksum(words)};
  }
  void Encode(const EncodeRow& row) {
    for (int32_t i = 0; i < row.num_tokens; ++i) {
      Slot(row.pages, i) = EmbeddingWord(submitted_patches_.at(row.task), i);
    }
  }
  void RunStep(std::deque<StepPlan>& lane) {
    const StepPlan plan = std::move(lane.front());
    lane.pop_front();
    StepResult result{.id = plan.id, .lane = plan.lane, .seconds = 0.001};
    for (const EncodeRow& row : plan.encodes) Encode(row);
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      result.rows.push_back(RunRow(plan.rows[i]));
      const std::vector<SampledToken>& tokens = result.rows.back().tokens;
      sampled_[{plan.id.value(), static_cast<int32_t>(i)}] = tokens.empty() ? 0 : tokens[0].token;
    }
    done_[static_cast<int>(plan.lane)] = plan.id;
    results[static_cast<int>(plan.lane)].push_back(std::move(result));
  }
  RowResult RunRow(const PlanRow& row) {
    ++rows_run;
    const auto count = static_cast<int32_t>(row.token_ids.size());
    if (count > 1) ++chunks_run;
    std::vector<uint64_t> inputs(row.token_ids.begin(), row.token_ids.end());
    if (row.sampled_by) {
      const auto source = std::pair(row.sampled_by->step.value(), row.sampled_by->row);
      inputs.back() = sampled_.at(source);
    }
    for (const EmbeddingRange& range : row.embeddings) {
      for (int32_t i = 0; i < range.count; ++i) {
        inputs[range.row_offset + i] = Slot(range.pages, range.item_begin + i);
        REQUIRE(inputs[range.row_offset + i] != kUnwritten);
      }
    }
    for (int32_t i = 0; i < count; ++i) {
      for (int32_t l = 0; l < num_layers_; ++l) {
        Kv(row.pages, l, row.token_begin + i) = KvWord(inputs[i], row.positions.at(i)) + l;
      }
    }
    RowResult result{.task = row.task};
    if (broken.contains(row.task)) result.numerical_error = true;
    if (!row.sample || result.numerical_error) return result;
    uint64_t digest = 0;
    for (int32_t t = 0; t < row.token_begin + count; ++t) {
      const uint64_t word = Kv(row.pages, 0, t);
      for (int32_t l = 1; l < num_layers_; ++l) REQUIRE(Kv(row.pages, l, t) == word + l);
      digest = Mix(digest, word);
    }
    Uses uses;
    for (const TokenUse& use : row.sample->uses) REQUIRE(uses.emplace(use.token, use).second);
    if (row.sample->params.has_penalty() && row.sampled_by) {
      ++uses[static_cast<int32_t>(inputs.back())].in_answer;
    }
    result.tokens.push_back(Draw(digest, *row.sample, uses));
    if (mad.contains(row.task)) result.tokens[0].token = kVocabulary;
    return result;
  }

  const int32_t block_tokens_;
  const int32_t page_slots_;
  const int32_t num_layers_;
  std::vector<std::vector<uint64_t>> kv_;  // by layer
  std::vector<uint64_t> slots_;
  StepId done_[kNumLanes];
  std::map<TaskId, uint64_t> submitted_patches_;
  std::map<std::pair<uint64_t, int32_t>, int32_t> sampled_;
};

}  // namespace triptych::scheduler::testing
