#include "engine/cpu/step_runner.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/checksum.h"
#include "kernels/page_copy.h"
#include "kernels/sample.h"

namespace triptych::engine {
namespace {

// Two steps are in flight, so a row can name at most the step before its own or the one before it.
constexpr size_t kRememberedSteps = 4;

// The pages of `range` in the pool against `buffer`.
kernels::PageCopyArgs PageCopyOf(const scheduler::CacheRange& range,
                                 const std::vector<scheduler::BlockId>& pages,
                                 absl::Span<uint8_t> buffer, const CpuKvPool& kv) {
  const int32_t layers = range.layer_end - range.layer_begin;
  const int32_t tokens = range.token_end - range.token_begin;
  CHECK_TRUE(range.layer_begin >= 0 && layers >= 0 && range.token_begin >= 0 && tokens >= 0);
  CHECK_LE(range.layer_end, static_cast<int32_t>(kv.layers().size()));
  CHECK_LE(range.token_end, static_cast<int64_t>(pages.size()) * kv.layout().block_tokens);
  CHECK_LE(kernels::PageCopyBytes(kv.layout(), layers, tokens),
           static_cast<int64_t>(buffer.size()));
  return {.layer_pages = kv.layers().subspan(range.layer_begin, layers),
          .num_blocks = kv.num_blocks(),
          .block_ids = pages.data(),
          .first_token = range.token_begin,
          .tokens = tokens,
          .layout = kv.layout(),
          .buffer = buffer.data()};
}

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

kernels::SampleRow SampleRowOf(const scheduler::SampleSpec& spec) {
  const scheduler::SamplingParams& params = spec.params;
  return {.temperature = params.temperature,
          .top_p = params.top_p,
          .top_k = params.top_k,
          .top_logprobs = params.top_logprobs,
          .seed = params.seed,
          .index = static_cast<uint64_t>(spec.index)};
}

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

scheduler::StepResult StepRunner::Run(const RunnableStep& step) {
  const scheduler::StepPlan& plan = step.plan;
  scheduler::StepResult result{.id = plan.id};
  for (size_t i = 0; i < plan.imports.size(); ++i) Import(plan.imports[i], step.import_bytes[i]);
  for (size_t i = 0; i < plan.encodes.size(); ++i) Encode(plan.encodes[i], *step.patches[i]);
  result.rows = RunRows(plan);
  for (size_t i = 0; i < plan.exports.size(); ++i) {
    result.exports.push_back(Export(plan.exports[i], step.export_bytes[i]));
  }
  return result;
}

void StepRunner::Import(const scheduler::ImportSpec& spec, absl::Span<uint8_t> bytes) {
  if (spec.range.kind == scheduler::TransferKind::kKv) {
    CHECK_OK(kernels::ScatterPages(PageCopyOf(spec.range, spec.pages, bytes, *parts_.kv), stream_));
    return;
  }
  const int32_t tokens = spec.range.token_end - spec.range.token_begin;
  const size_t token_bytes = sizeof(float) * parts_.decoder->config().hidden_size;
  CHECK_LE(tokens * token_bytes, bytes.size());
  parts_.embeddings->ForRuns(spec.pages, spec.range.token_begin, tokens,
                             [&](float* values, int32_t offset, int32_t count) {
                               std::memcpy(values, bytes.data() + offset * token_bytes,
                                           count * token_bytes);
                             });
}

scheduler::ExportResult StepRunner::Export(const scheduler::ExportSpec& spec,
                                           absl::Span<uint8_t> bytes) {
  int64_t size = 0;
  if (spec.range.kind == scheduler::TransferKind::kKv) {
    const kernels::PageCopyArgs copy = PageCopyOf(spec.range, spec.pages, bytes, *parts_.kv);
    CHECK_OK(kernels::GatherPages(copy, stream_));
    size = kernels::PageCopyBytes(copy.layout, static_cast<int64_t>(copy.layer_pages.size()),
                                  copy.tokens);
  } else {
    const int32_t tokens = spec.range.token_end - spec.range.token_begin;
    const int64_t token_bytes = int64_t{4} * parts_.decoder->config().hidden_size;
    size = tokens * token_bytes;
    CHECK_LE(size, static_cast<int64_t>(bytes.size()));
    parts_.embeddings->ForRuns(spec.pages, spec.range.token_begin, tokens,
                               [&](const float* values, int32_t offset, int32_t count) {
                                 std::memcpy(bytes.data() + offset * token_bytes, values,
                                             count * token_bytes);
                               });
  }
  return {.buffer = spec.buffer.id, .checksum = base::Checksum64(bytes.data(), size)};
}

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
    if (sampled.step == source.step) return sampled.tokens.at(source.row);
  }
  return -1;
}

std::vector<scheduler::RowResult> StepRunner::RunRows(const scheduler::StepPlan& plan) {
  const models::ModelConfig& config = parts_.decoder->config();
  std::vector<RowInputs> inputs;
  std::vector<models::DecoderRow> rows;
  inputs.reserve(plan.rows.size());
  int64_t wanted = 0;
  for (const scheduler::PlanRow& row : plan.rows) {
    RowInputs& input = inputs.emplace_back(InputsOf(row));
    if (row.sampled_by.has_value()) {
      // A numerical error sampled nothing; its followers are discarded, so any token will do.
      input.ids.back() = std::max(0, TokenOf(*row.sampled_by));
    }
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
  return Sample(plan, logits);
}

std::vector<scheduler::RowResult> StepRunner::Sample(const scheduler::StepPlan& plan,
                                                     const std::vector<float>& logits) {
  std::vector<kernels::SampleRow> asked;
  for (const scheduler::PlanRow& row : plan.rows) {
    if (row.sample.has_value()) asked.push_back(SampleRowOf(*row.sample));
  }
  std::vector<kernels::SampleResult> drawn(asked.size());
  CHECK_OK(kernels::Sample({.logits = logits.data(),
                            .rows = static_cast<int64_t>(asked.size()),
                            .vocab = parts_.decoder->config().vocab_size,
                            .params = asked.data(),
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
