#include "engine/cpu/step_runner.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/sample.h"

namespace triptych::engine {
namespace {

// Two steps are in flight, so a row can name at most the step before its own or the one before it.
constexpr size_t kRememberedSteps = 2;

// What a decoder row borrows.
struct RowInputs {
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;
};

RowInputs InputsOf(const scheduler::PlanRow& row) {
  RowInputs inputs{.ids = row.token_ids, .positions = {}};
  const size_t count = row.positions.size();
  inputs.positions.resize(3 * count);
  for (size_t i = 0; i < count; ++i) {
    inputs.positions[i] = row.positions[i].t;
    inputs.positions[count + i] = row.positions[i].h;
    inputs.positions[2 * count + i] = row.positions[i].w;
  }
  // Ids under an embedding range are ignored, whatever they are.
  for (const scheduler::EmbeddingRange& range : row.embeddings) {
    for (int32_t i = 0; i < range.count; ++i) inputs.ids.at(range.row_offset + i) = 0;
  }
  return inputs;
}

// What the rows of a step ask of sampling, with their lists one after another.
struct SampleRows {
  std::vector<kernels::SampleRow> rows;
  std::vector<kernels::TokenBias> biases;
  std::vector<kernels::TokenCount> counts;
  std::vector<int32_t> uncounted;  // tokens that an earlier step sampled

  // `sampled` is the token of the row's sampled_by; null without.
  void Add(const scheduler::SampleSpec& spec, const int32_t* sampled) {
    const scheduler::SamplingParams& params = spec.params;
    kernels::SampleRow& row = rows.emplace_back();
    row = {.temperature = params.temperature,
           .top_p = params.top_p,
           .min_p = params.min_p,
           .repetition_penalty = params.repetition_penalty,
           .presence_penalty = params.presence_penalty,
           .frequency_penalty = params.frequency_penalty,
           .top_k = params.top_k,
           .top_logprobs = params.top_logprobs,
           .seed = params.seed,
           .index = static_cast<uint64_t>(spec.index),
           .bias_begin = static_cast<int32_t>(biases.size()),
           .count_begin = static_cast<int32_t>(counts.size())};
    for (const scheduler::TokenBias& bias : params.biases) {
      biases.push_back({bias.token, bias.bias});
    }
    for (const scheduler::TokenUse& use : spec.uses) {
      counts.push_back({use.token, use.in_answer, use.in_prompt});
    }
    row.bias_end = static_cast<int32_t>(biases.size());
    row.count_end = static_cast<int32_t>(counts.size());
    if (params.has_penalty() && sampled != nullptr) {
      row.uncounted = static_cast<int32_t>(uncounted.size());
      uncounted.push_back(*sampled);
    }
  }
};

void AddSampled(const kernels::SampleResult& drawn, scheduler::RowResult* result) {
  result->numerical_error = drawn.error != 0;
  if (result->numerical_error) return;
  scheduler::SampledToken& token = result->tokens.emplace_back();
  token.token = drawn.id;
  token.logprob = drawn.logprob;
  for (int i = 0; i < drawn.top_count; ++i) {
    token.top.push_back({drawn.top_ids[i], drawn.top_logprobs[i]});
  }
}

}  // namespace

void StepRunner::Encode(const scheduler::EncodeRow& row, const EncodeInput& input) {
  const base::Grid& grid = row.grid;
  const int64_t values = grid.patches() * parts_.vision->config().patch_elements();
  CHECK_EQ(static_cast<int64_t>(input.patches.size()), values);
  CHECK_EQ(parts_.vision->TokensOf(grid), row.num_tokens);
  const int64_t hidden = parts_.decoder->config().hidden_size;
  std::vector<float> out(row.num_tokens * hidden);
  CHECK_OK(parts_.vision->Encode(input.patches.data(), {grid}, out.data(), stream_));
  parts_.embeddings->ForRuns(row.pages, 0, row.num_tokens,
                             [&](float* values, int32_t offset, int32_t count) {
                               std::copy_n(out.data() + offset * hidden, count * hidden, values);
                             });
}

int32_t StepRunner::TokenOf(const scheduler::SampledBy& source) const {
  for (const Sampled& sampled : recent_) {
    if (sampled.step != source.step) continue;
    // A numerical error sampled nothing; its followers are discarded, so any token will do.
    return std::max(0, sampled.tokens.at(source.row));
  }
  CHECK_TRUE(false);  // it names no step that this one may follow
  return 0;
}

scheduler::StepResult StepRunner::Run(const scheduler::StepPlan& plan) {
  const models::ModelConfig& config = parts_.decoder->config();
  std::vector<RowInputs> inputs;
  std::vector<models::DecoderRow> rows;
  inputs.reserve(plan.rows.size());
  int64_t wanted = 0;
  for (const scheduler::PlanRow& row : plan.rows) {
    RowInputs& input = inputs.emplace_back(InputsOf(row));
    if (row.sampled_by.has_value()) input.ids.back() = TokenOf(*row.sampled_by);
    models::DecoderRow& out = rows.emplace_back();
    out.first_token = row.first_token;
    out.token_ids = input.ids;
    out.positions = input.positions;
    out.pages = row.pages;
    out.logits = row.sample.has_value() ? models::Logits::kLastToken : models::Logits::kNone;
    wanted += row.sample.has_value() ? 1 : 0;
    for (const scheduler::EmbeddingRange& range : row.embeddings) {
      parts_.embeddings->ForRuns(
          range.pages, range.item_begin, range.count,
          [&](const float* values, int32_t offset, int32_t count) {
            out.vectors.push_back({range.row_offset + offset, count, values});
          });
    }
  }
  const CpuKvPool& kv = *parts_.kv;
  std::vector<float> logits(wanted * config.vocab_size);
  CHECK_OK(parts_.decoder->Step(rows, {kv.layout(), kv.num_blocks(), kv.layers()}, logits.data(),
                                stream_));
  return {.id = plan.id, .lane = plan.lane, .rows = Sample(plan, logits)};
}

std::vector<scheduler::RowResult> StepRunner::Sample(const scheduler::StepPlan& plan,
                                                     const std::vector<float>& logits) {
  SampleRows asked;
  for (const scheduler::PlanRow& row : plan.rows) {
    if (!row.sample.has_value()) continue;
    const int32_t sampled = row.sampled_by.has_value() ? TokenOf(*row.sampled_by) : -1;
    asked.Add(*row.sample, row.sampled_by.has_value() ? &sampled : nullptr);
  }
  std::vector<kernels::SampleResult> drawn(asked.rows.size());
  CHECK_OK(kernels::Sample({.logits = logits.data(),
                            .rows = static_cast<int64_t>(asked.rows.size()),
                            .vocab = parts_.decoder->config().vocab_size,
                            .params = asked.rows.data(),
                            .biases = asked.biases.data(),
                            .counts = asked.counts.data(),
                            .sampled = asked.uncounted.data(),
                            .sampled_size = static_cast<int64_t>(asked.uncounted.size()),
                            .results = drawn.data()},
                           stream_));
  std::vector<scheduler::RowResult> results;
  Sampled sampled{.step = plan.id, .tokens = {}};
  size_t next = 0;
  for (const scheduler::PlanRow& row : plan.rows) {
    scheduler::RowResult& result = results.emplace_back();
    result.task = row.task;
    if (row.sample.has_value()) AddSampled(drawn[next++], &result);
    sampled.tokens.push_back(result.tokens.empty() ? -1 : result.tokens.back().token);
  }
  recent_.push_back(std::move(sampled));
  if (recent_.size() > kRememberedSteps) recent_.pop_front();
  return results;
}

}  // namespace triptych::engine
