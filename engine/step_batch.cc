#include "engine/step_batch.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/embed.h"

namespace triptych::engine {
namespace {

constexpr int64_t kArrayAlignment = 16;
constexpr int64_t kBlockAlignment = 256;
constexpr int32_t kNoInput = -1;  // names nothing, see kernels/embed.h

class BlockCursor {
 public:
  explicit BlockCursor(void* base) : base_(static_cast<std::byte*>(base)) {}
  template <typename T = int32_t>
  T* Take(int64_t count) {
    T* taken = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    used_ += (bytes + kArrayAlignment - 1) / kArrayAlignment * kArrayAlignment;
    return taken;
  }
  int64_t used() const { return used_; }

 private:
  std::byte* const base_;
  int64_t used_ = 0;
};

StepArrays TakeArrays(const BatchLimits& limits, BlockCursor* cursor) {
  StepArrays arrays;
  arrays.inputs = cursor->Take(limits.tokens);
  arrays.row_of_token = cursor->Take(limits.tokens);
  arrays.positions = cursor->Take(3 * limits.tokens);
  arrays.slots = cursor->Take(limits.tokens);
  arrays.query_begin = cursor->Take(limits.rows + 1);
  arrays.token_begin = cursor->Take(limits.rows);
  arrays.page_begin = cursor->Take(limits.rows + 1);
  arrays.pages = cursor->Take(limits.pages);
  arrays.logits_tokens = cursor->Take(limits.sampled);
  arrays.sampling = cursor->Take<kernels::SampleRow>(limits.sampled);
  arrays.biases = cursor->Take<kernels::TokenBias>(limits.biases);
  arrays.counts = cursor->Take<kernels::TokenCount>(limits.counts);
  return arrays;
}

// Appends how tokens are drawn, with the rows' lists one after another.
class SamplingPacker {
 public:
  explicit SamplingPacker(const StepArrays& arrays) : to_(arrays) {}

  // `uncounted`: where the token of the row's sampled_by lies in the ring, or -1.
  void Add(const scheduler::SampleSpec& spec, int32_t uncounted) {
    const scheduler::SamplingParams& params = spec.params;
    const int32_t first_bias = biases_, first_count = counts_;
    for (const scheduler::TokenBias& bias : params.biases) {
      to_.biases[biases_++] = {bias.token, bias.bias};
    }
    for (const scheduler::TokenUse& use : spec.uses) {
      to_.counts[counts_++] = {use.token, use.in_answer, use.in_prompt};
    }
    to_.sampling[rows_++] = {.temperature = params.temperature,
                             .top_p = params.top_p,
                             .min_p = params.min_p,
                             .repetition_penalty = params.repetition_penalty,
                             .presence_penalty = params.presence_penalty,
                             .frequency_penalty = params.frequency_penalty,
                             .top_k = params.top_k,
                             .top_logprobs = params.top_logprobs,
                             .seed = params.seed,
                             .index = static_cast<uint64_t>(spec.index),
                             .bias_begin = first_bias,
                             .bias_end = biases_,
                             .count_begin = first_count,
                             .count_end = counts_,
                             .uncounted = params.has_penalty() ? uncounted : -1};
  }

 private:
  const StepArrays& to_;
  int32_t rows_ = 0, biases_ = 0, counts_ = 0;
};

// Fills the arrays row by row.
class Packer {
 public:
  Packer(const BatchShape& shape, const SampledRing& sampled, const StepArrays& arrays,
         int64_t tokens)
      : shape_(shape), sampled_(sampled), to_(arrays), tokens_(tokens) {
    to_.query_begin[0] = to_.page_begin[0] = 0;
  }

  void Add(const scheduler::PlanRow& row, int32_t index) {
    const auto count = static_cast<int64_t>(row.token_ids.size());
    CHECK_TRUE(count > 0 && row.positions.size() == row.token_ids.size() && row.token_begin >= 0);
    CHECK_LE(row.token_begin + count, static_cast<int64_t>(row.pages.size()) * shape_.block_tokens);
    Inputs(row, count);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = at_ + i, token = row.token_begin + i;
      to_.row_of_token[at] = index;
      to_.positions[at] = row.positions[i].t;
      to_.positions[tokens_ + at] = row.positions[i].h;
      to_.positions[2 * tokens_ + at] = row.positions[i].w;
      to_.slots[at] =
          static_cast<int32_t>(row.pages[token / shape_.block_tokens] * shape_.block_tokens +
                               token % shape_.block_tokens);
    }
    std::copy(row.pages.begin(), row.pages.end(), to_.pages + pages_);
    at_ += count;
    pages_ += static_cast<int64_t>(row.pages.size());
    to_.token_begin[rows_++] = row.token_begin;
    to_.query_begin[rows_] = static_cast<int32_t>(at_);
    to_.page_begin[rows_] = static_cast<int32_t>(pages_);
  }

  void AddPadding() {
    to_.inputs[at_] = 0;
    to_.row_of_token[at_] = rows_;
    for (int axis = 0; axis < 3; ++axis) to_.positions[axis * tokens_ + at_] = 0;
    to_.slots[at_++] = -1;
    to_.pages[pages_++] = 0;
    to_.token_begin[rows_++] = 0;
    to_.query_begin[rows_] = static_cast<int32_t>(at_);
    to_.page_begin[rows_] = static_cast<int32_t>(pages_);
  }

  int64_t tokens() const { return at_; }
  int64_t pages() const { return pages_; }
  int32_t rows() const { return rows_; }

 private:
  void Inputs(const scheduler::PlanRow& row, int64_t count) {
    int32_t* inputs = to_.inputs + at_;
    std::transform(row.token_ids.begin(), row.token_ids.end(), inputs,
                   [&](int32_t id) { return id >= 0 && id < shape_.vocab_size ? id : kNoInput; });
    if (row.sampled_by.has_value()) {
      inputs[count - 1] = kernels::EmbedSampled(sampled_.IndexOf(*row.sampled_by));
    }
    for (const scheduler::EmbeddingRange& range : row.embeddings) {
      CHECK_TRUE(range.row_offset >= 0 && range.count >= 0 && range.item_begin >= 0);
      CHECK_LE(int64_t{range.row_offset} + range.count, count);
      for (int32_t i = 0; i < range.count; ++i) {
        inputs[range.row_offset + i] = kernels::EmbedSlot(
            shape_.vocab_size,
            EmbeddingSlot(range.pages, range.item_begin + i, shape_.embedding_page_slots));
      }
    }
  }

  const BatchShape& shape_;
  const SampledRing& sampled_;
  const StepArrays& to_;
  const int64_t tokens_;
  int64_t at_ = 0, pages_ = 0;
  int32_t rows_ = 0;
};

}  // namespace

BatchLimits LimitsOf(const scheduler::StepPlan& plan) {
  BatchLimits limits{.rows = static_cast<int64_t>(plan.rows.size())};
  for (const scheduler::PlanRow& row : plan.rows) {
    limits.tokens += static_cast<int64_t>(row.token_ids.size());
    limits.pages += static_cast<int64_t>(row.pages.size());
    if (!row.sample.has_value()) continue;
    ++limits.sampled;
    limits.biases += static_cast<int64_t>(row.sample->params.biases.size());
    limits.counts += static_cast<int64_t>(row.sample->uses.size());
  }
  return limits;
}

int64_t StepBlockBytes(const BatchLimits& limits) {
  BlockCursor cursor(nullptr);
  TakeArrays(limits, &cursor);
  return (cursor.used() + kBlockAlignment - 1) / kBlockAlignment * kBlockAlignment;
}

StepArrays StepArraysAt(const BatchLimits& limits, void* base) {
  BlockCursor cursor(base);
  return TakeArrays(limits, &cursor);
}

int32_t SampledRing::Find(const scheduler::SampledBy& source) const {
  for (int64_t step = std::max<int64_t>(0, noted_ - kNamed); step < noted_; ++step) {
    const Step& known = steps_[step % kSteps];
    if (known.id != source.step) continue;
    const auto rows = static_cast<int32_t>(known.index_of_row.size());
    return source.row >= 0 && source.row < rows ? known.index_of_row[source.row] : -1;
  }
  return -1;
}

int32_t SampledRing::IndexOf(const scheduler::SampledBy& source) const {
  const int32_t index = Find(source);
  CHECK_GE(index, 0);
  return index;
}

int32_t SampledRing::Note(const scheduler::StepPlan& plan) {
  const auto first = static_cast<int32_t>(noted_ % kSteps * rows_);
  Step& step = steps_[noted_++ % kSteps];
  step.id = plan.id;
  step.index_of_row.clear();
  int32_t sampled = 0;
  for (const scheduler::PlanRow& row : plan.rows) {
    step.index_of_row.push_back(row.sample.has_value() ? first + sampled++ : -1);
  }
  CHECK_LE(sampled, rows_);
  return first;
}

StepBatch PackStep(const scheduler::StepPlan& plan, const BatchShape& shape,
                   const SampledRing& sampled, const StepArrays& arrays) {
  const BatchLimits size = LimitsOf(plan);
  const auto rows = static_cast<int32_t>(plan.rows.size());
  Packer packer(shape, sampled, arrays, std::max<int64_t>(size.tokens, shape.padded_rows));
  std::vector<int32_t> last_token(plan.rows.size());  // in the batch, by row of the plan
  const auto add = [&](int32_t row) {
    packer.Add(plan.rows[row], row);
    last_token[row] = static_cast<int32_t>(packer.tokens() - 1);
  };
  for (int32_t row = 0; row < rows; ++row) {
    if (plan.rows[row].token_ids.size() == 1) add(row);
  }
  StepBatch batch{.decode_rows = packer.rows()};
  for (int32_t row = 0; row < rows; ++row) {
    if (plan.rows[row].token_ids.size() != 1) add(row);
  }
  SamplingPacker sampling(arrays);
  for (int32_t row = 0; row < rows; ++row) {
    const scheduler::PlanRow& from = plan.rows[row];
    if (!from.sample.has_value()) continue;
    arrays.logits_tokens[batch.sampled++] = last_token[row];
    sampling.Add(*from.sample,
                 from.sampled_by.has_value() ? sampled.IndexOf(*from.sampled_by) : -1);
  }
  if (shape.padded_rows > 0) CHECK_TRUE(batch.decode_rows == rows && batch.sampled == rows);
  for (; packer.rows() < shape.padded_rows; ++batch.decode_rows) {
    packer.AddPadding();
    arrays.logits_tokens[batch.sampled++] = static_cast<int32_t>(packer.tokens() - 1);
    sampling.Add({}, -1);
  }
  batch.tokens = packer.tokens();
  batch.rows = packer.rows();
  batch.pages = packer.pages();
  return batch;
}

kernels::AttentionRows AttentionRowsOf(const StepBatch& batch, const StepArrays& host,
                                       const StepArrays& device) {
  const auto arrays = [](const StepArrays& from) {
    return kernels::AttentionRows::Arrays{.query_begin = from.query_begin,
                                          .token_begin = from.token_begin,
                                          .page_begin = from.page_begin,
                                          .pages = from.pages};
  };
  return {.rows = batch.rows,
          .decode_rows = batch.decode_rows,
          .tokens = batch.tokens,
          .pages = batch.pages,
          .host = arrays(host),
          .device = arrays(device)};
}

}  // namespace triptych::engine
