// A whole prefill of Qwen2.5-VL's language model at the 7B or 3B shape, random weights, built of
// the ops and cuBLASLt: milliseconds, and model FLOPs against an 8192^3 product timed in turn.
// Usage: bench_prefill OUT.json [7b|3b] [[ROWSx]TOKENS[@BEFORE][f]...]; see README.md.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu/bench_device.h"
#include "bench/gpu/gemm.h"
#include "bench/gpu/row_checks.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/linear_swiglu.h"
#include "kernels/rms_norm.h"

namespace triptych::bench {
namespace {

using base::DType;
constexpr DType kType = DType::kBFloat16;
constexpr int kRepeats = 5;
constexpr int kBlockTokens = 16;

struct Shape {
  const char* name;
  int layers, hidden, heads, kv_heads, inner;
  int64_t vocab;
  int head_dim() const { return 128; }
  int64_t qkv_width() const { return int64_t{heads + 2 * kv_heads} * head_dim(); }
  int64_t layer_parameters() const {
    return int64_t{hidden} * (qkv_width() + int64_t{heads} * head_dim() + int64_t{3} * inner);
  }
};

constexpr Shape kShapes[] = {{"7b", 28, 3584, 28, 4, 18944, 152064},
                             {"3b", 36, 2048, 16, 2, 11008, 151936}};

// `rows` chunks of `tokens` each, `before` of whose tokens are in the pages already.
struct Batch {
  int64_t rows = 1, tokens = 0, before = 0;

  int64_t all() const { return rows * tokens; }
  int64_t pages_of_row() const { return (before + tokens + kBlockTokens - 1) / kBlockTokens; }
};

// "4096", "8x1500" or "2x4096@8192"; an f behind it: gate_up and SwiGLU are one kernel.
Batch ParseBatch(const std::string& text) {
  Batch batch;
  const size_t rows = text.find('x'), before = text.find('@');
  if (rows != std::string::npos) batch.rows = std::atoll(text.c_str());
  batch.tokens = std::atoll(text.c_str() + (rows == std::string::npos ? 0 : rows + 1));
  if (before != std::string::npos) batch.before = std::atoll(text.c_str() + before + 1);
  return batch;
}

struct Layer {
  const void *norm1, *qkv, *qkv_bias, *o, *norm2, *gate_up, *down;
  void* pool;
};

// Weights and, for up to `most_tokens`, activations; KV of `pages`.
class Model {
 public:
  Model(const Shape& shape, int64_t most_tokens, int64_t pages, BenchDevice* device, Gemms* gemms);
  void Plan(const Batch& batch);
  // Whether gate_up and SwiGLU are one kernel.
  void Fuse(bool fused) { fused_ = fused; }
  void Forward();
  // Of the last layer, after a Forward().
  void Check(std::string* json);
  double Flops() const;

 private:
  void RunGateUp(const Layer& layer, int64_t rows);
  void RunFeedForward(const Layer& layer, int64_t rows);
  void RunLayer(const Layer& layer, bool is_last);
  double AttentionError();

  const Shape shape_;
  BenchDevice* device_;
  Gemms* gemms_;
  const int64_t num_blocks_;
  Batch batch_;
  bool fused_ = false;
  int64_t tokens_ = 0;  // of the batch
  std::vector<Layer> layers_;
  const void *table_, *final_norm_, *head_;
  void *x_, *normed_, *qkv_, *attended_, *gate_up_, *inner_, *logits_;
  std::vector<int32_t> block_ids_;
  int32_t *inputs_, *positions_, *slots_;
  std::vector<int32_t> query_begin_, token_begin_, page_begin_;
  kernels::RopeTable rope_;
  kernels::AttentionPlan plan_;
  kernels::KvLayout layout_;
};

Model::Model(const Shape& shape, int64_t most_tokens, int64_t pages, BenchDevice* device,
             Gemms* gemms)
    : shape_(shape), device_(device), gemms_(gemms), num_blocks_(pages + 7) {
  const int64_t hidden = shape.hidden, wide = shape.heads * int64_t{shape.head_dim()};
  const float scale = 1.7f / std::sqrt(static_cast<float>(hidden));
  layout_ = {.block_tokens = kBlockTokens,
             .kv_heads = shape.kv_heads,
             .head_dim = shape.head_dim(),
             .dtype = kType};
  for (int l = 0; l < shape.layers; ++l) {
    layers_.push_back({device->RandomBFloat16(hidden, 1),
                       device->RandomBFloat16(shape.qkv_width() * hidden, scale),
                       device->RandomBFloat16(shape.qkv_width(), 1),
                       device->RandomBFloat16(hidden * wide, scale),
                       device->RandomBFloat16(hidden, 1),
                       device->RandomBFloat16(int64_t{2} * shape.inner * hidden, scale),
                       device->RandomBFloat16(hidden * shape.inner, scale),
                       device->RandomBFloat16(num_blocks_ * layout_.block_elements(), 1)});
  }
  table_ = device->RandomBFloat16(shape.vocab * hidden, 1);
  head_ = device->RandomBFloat16(shape.vocab * hidden, scale);
  final_norm_ = device->RandomBFloat16(hidden, 1);
  x_ = device->Allocate(most_tokens * hidden * 2);
  normed_ = device->Allocate(most_tokens * hidden * 2);
  qkv_ = device->Allocate(most_tokens * shape.qkv_width() * 2);
  attended_ = device->Allocate(most_tokens * wide * 2);
  gate_up_ = device->Allocate(most_tokens * 2 * shape.inner * 2);
  inner_ = device->Allocate(most_tokens * shape.inner * 2);
  logits_ = device->Allocate(shape.vocab * 2);
  block_ids_.resize(num_blocks_);
  std::iota(block_ids_.begin(), block_ids_.end(), 0);
  std::shuffle(block_ids_.begin(), block_ids_.end(), std::minstd_rand(3));
  auto rope = kernels::MakeRopeTable(shape.head_dim(), 1e6, {16, 24, 24});
  CheckStatus(rope.status(), "rope");
  rope_ = *rope;
}

void Model::Plan(const Batch& batch) {
  batch_ = batch;
  tokens_ = batch.all();
  const int64_t row_pages = batch.pages_of_row();
  std::vector<int32_t> inputs(tokens_), positions(3 * tokens_), slots(tokens_);
  for (int64_t i = 0; i < tokens_; ++i) {
    const int64_t at = batch.before + i % batch.tokens;
    const int32_t block = block_ids_[i / batch.tokens * row_pages + at / kBlockTokens];
    inputs[i] = static_cast<int32_t>((i * 7919) % shape_.vocab);
    for (int axis = 0; axis < 3; ++axis) positions[axis * tokens_ + i] = static_cast<int32_t>(at);
    slots[i] = block * kBlockTokens + static_cast<int32_t>(at % kBlockTokens);
  }
  inputs_ = device_->Upload(inputs);
  positions_ = device_->Upload(positions);
  slots_ = device_->Upload(slots);
  query_begin_ = page_begin_ = {0};
  for (int64_t row = 1; row <= batch.rows; ++row) {
    query_begin_.push_back(static_cast<int32_t>(row * batch.tokens));
    page_begin_.push_back(static_cast<int32_t>(row * row_pages));
  }
  token_begin_.assign(batch.rows, static_cast<int32_t>(batch.before));
  const kernels::AttentionRows rows = {
      .rows = static_cast<int32_t>(batch.rows),
      .tokens = tokens_,
      .pages = batch.rows * row_pages,
      .host = {query_begin_.data(), token_begin_.data(), page_begin_.data(), block_ids_.data()},
      .device = {device_->Upload(query_begin_), device_->Upload(token_begin_),
                 device_->Upload(page_begin_), device_->Upload(block_ids_)}};
  CheckStatus(plan_.Make(rows, layout_, num_blocks_, shape_.heads, device_->stream()), "plan");
}

void Model::RunGateUp(const Layer& layer, int64_t rows) {
  gemms_->Multiply(
      {normed_, rows, shape_.hidden, layer.gate_up, 2 * shape_.inner, nullptr, nullptr, gate_up_});
}

// gate_up and SwiGLU, in one kernel or two.
void Model::RunFeedForward(const Layer& layer, int64_t rows) {
  const kernels::Stream stream = device_->stream();
  if (fused_) {
    const int error = kernels::internal::SwiGluProductCuda({.x = normed_,
                                                            .rows = rows,
                                                            .inputs = shape_.hidden,
                                                            .x_stride = shape_.hidden,
                                                            .weight = layer.gate_up,
                                                            .n = shape_.inner,
                                                            .out = inner_,
                                                            .out_stride = shape_.inner},
                                                           stream);
    return CheckCuda(static_cast<cudaError_t>(error), "fused product");
  }
  RunGateUp(layer, rows);
  CheckStatus(
      kernels::SwiGlu(
          {.gate_up = gate_up_, .out = inner_, .rows = rows, .n = shape_.inner, .dtype = kType},
          stream),
      "swiglu");
}

// Behind the attention of the last layer only the last token goes on, as models/decoder does it.
void Model::RunLayer(const Layer& layer, bool is_last) {
  const int64_t hidden = shape_.hidden, wide = shape_.heads * int64_t{shape_.head_dim()};
  const kernels::Stream stream = device_->stream();
  const auto row_of = [](void* matrix, int64_t row, int64_t width) {
    return static_cast<void*>(static_cast<uint16_t*>(matrix) + row * width);
  };
  const auto norm = [&](const void* x, int64_t rows, const void* weight) {
    CheckStatus(kernels::RmsNorm({.x = x,
                                  .weight = weight,
                                  .out = normed_,
                                  .rows = rows,
                                  .hidden = hidden,
                                  .dtype = kType},
                                 stream),
                "norm");
  };
  norm(x_, tokens_, layer.norm1);
  gemms_->Multiply(
      {normed_, tokens_, hidden, layer.qkv, shape_.qkv_width(), layer.qkv_bias, nullptr, qkv_});
  CheckStatus(kernels::AppendAndAttend({.qkv = qkv_,
                                        .out = attended_,
                                        .heads = shape_.heads,
                                        .pool = layer.pool,
                                        .num_blocks = num_blocks_,
                                        .layout = layout_,
                                        .rope = &rope_,
                                        .positions = positions_,
                                        .slots = slots_,
                                        .plan = &plan_,
                                        .dtype = kType},
                                       stream),
              "attention");
  const int64_t first = is_last ? tokens_ - 1 : 0, rows = tokens_ - first;
  void* const x = row_of(x_, first, hidden);
  gemms_->Multiply({row_of(attended_, first, wide), rows, wide, layer.o, hidden, nullptr, x, x});
  norm(x, rows, layer.norm2);
  RunFeedForward(layer, rows);
  gemms_->Multiply({inner_, rows, shape_.inner, layer.down, hidden, nullptr, x, x});
}

void Model::Forward() {
  const int64_t hidden = shape_.hidden;
  const kernels::Stream stream = device_->stream();
  CheckStatus(kernels::Embed({.inputs = inputs_,
                              .tokens = tokens_,
                              .table = table_,
                              .vocab_size = shape_.vocab,
                              .out = x_,
                              .width = hidden,
                              .table_dtype = kType,
                              .pool_dtype = kType,
                              .dtype = kType},
                             stream),
              "embed");
  for (const Layer& layer : layers_) RunLayer(layer, &layer == &layers_.back());
  const auto* last = static_cast<const uint16_t*>(x_) + (tokens_ - 1) * hidden;
  CheckStatus(kernels::RmsNorm({.x = last,
                                .weight = final_norm_,
                                .out = normed_,
                                .rows = 1,
                                .hidden = hidden,
                                .dtype = kType},
                               stream),
              "norm");
  gemms_->Multiply({normed_, 1, hidden, head_, shape_.vocab, nullptr, nullptr, logits_});
}

// Of queries of the first row.
double Model::AttentionError() {
  const int head_dim = shape_.head_dim(), group = shape_.heads / shape_.kv_heads;
  const int64_t wide = int64_t{shape_.heads} * head_dim;
  std::vector<double> expected, got;
  for (int64_t token : {int64_t{0}, int64_t{129}, batch_.tokens / 2, batch_.tokens - 1}) {
    const int head = static_cast<int>(token * 5 % shape_.heads);
    std::vector<std::vector<double>> keys, values;
    for (int64_t j = 0; j <= batch_.before + token; ++j) {
      const int64_t at =
          layout_.KeyOffset(block_ids_[j / kBlockTokens], static_cast<int>(j % kBlockTokens)) +
          head / group * head_dim;
      keys.push_back(device_->Download(layers_.back().pool, at, head_dim));
      values.push_back(
          device_->Download(layers_.back().pool, at + layout_.half_block_elements(), head_dim));
    }
    const std::vector<double> out = Attend(
        device_->Download(qkv_, token * shape_.qkv_width() + int64_t{head} * head_dim, head_dim),
        keys, values);
    expected.insert(expected.end(), out.begin(), out.end());
    const std::vector<double> on_device =
        device_->Download(attended_, token * wide + int64_t{head} * head_dim, head_dim);
    got.insert(got.end(), on_device.begin(), on_device.end());
  }
  return RelativeError(expected, got);
}

void Model::Check(std::string* json) {
  const Layer& layer = layers_.back();
  const double attention = AttentionError();
  // The last norm overwrote row 0 of `normed_`, so both are made again from what it is now.
  RunFeedForward(layer, tokens_);
  RunGateUp(layer, tokens_);
  const GemmArgs gate_up = {normed_,          tokens_, shape_.hidden, layer.gate_up,
                            2 * shape_.inner, nullptr, nullptr,       gate_up_};
  char text[200];
  std::snprintf(text, sizeof(text),
                "\"error_attention\": %.2e, \"error_swiglu\": %.2e, \"error_gemm\": %.2e",
                attention, SwiGluError(device_, gate_up_, inner_, tokens_, shape_.inner),
                GemmError(device_, gate_up));
  *json += text;
}

double Model::Flops() const {
  const auto n = static_cast<double>(tokens_);
  const double left_out =
      static_cast<double>(shape_.layer_parameters() - int64_t{shape_.qkv_width()} * shape_.hidden);
  const double linear = 2 * n * static_cast<double>(shape_.layer_parameters()) * shape_.layers -
                        2 * (n - 1) * left_out;
  const auto chunk = static_cast<double>(batch_.tokens),
             before = static_cast<double>(batch_.before);
  const double attention =
      4 * n * (before + chunk / 2) * shape_.heads * shape_.head_dim() * shape_.layers;
  return linear + attention + 2.0 * static_cast<double>(shape_.hidden * shape_.vocab);
}

std::string Measure(Model* model, const std::string& name, BenchDevice* device, Gemms* gemms) {
  const bool fused = name.back() == 'f';
  model->Fuse(fused);
  model->Plan(ParseBatch(name));
  model->Forward();  // chooses the products' algorithms
  std::vector<double> forward_ms, ceiling_tflops, forward_tflops;
  // Alone first, as a single request meets a GPU, then in turn with the ceiling, at full power.
  std::vector<double> alone_ms;
  for (int i = 0; i < 3; ++i) alone_ms.push_back(device->Time([&] { model->Forward(); }));
  for (int i = 0; i < kRepeats; ++i) {
    forward_ms.push_back(device->Time([&] { model->Forward(); }));
    ceiling_tflops.push_back(gemms->CeilingTflops(forward_ms.back() / 2));
    forward_tflops.push_back(model->Flops() / forward_ms.back() * 1e-9);
  }
  const double ms = Median(forward_ms), ceiling = Median(ceiling_tflops);
  const double tflops = Median(forward_tflops);
  char text[300];
  std::snprintf(text, sizeof(text),
                "{\"batch\": \"%s\", \"ms_alone\": %.2f, \"ms\": %.2f, \"ms_low\": "
                "%.2f, \"ms_high\": %.2f, "
                "\"tflops\": %.0f, \"ceiling_tflops\": %.0f, \"percent\": %.1f, ",
                name.c_str(), Median(alone_ms), ms,
                *std::min_element(forward_ms.begin(), forward_ms.end()),
                *std::max_element(forward_ms.begin(), forward_ms.end()), tflops, ceiling,
                100 * tflops / ceiling);
  std::string json = text;
  model->Check(&json);
  json += "}";
  std::printf("%s\n", json.c_str());
  std::fflush(stdout);
  return json;
}

int Run(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_prefill OUT.json [7b|3b] [[ROWSx]TOKENS[@BEFORE][f]...]\n");
    return 2;
  }
  const Shape& shape = argc > 2 && std::strcmp(argv[2], "3b") == 0 ? kShapes[1] : kShapes[0];
  std::vector<std::string> batches(argv + std::min(argc, 3), argv + argc);
  if (batches.empty()) batches = {"1500", "4096", "16384"};
  int64_t most_tokens = 0, most_pages = 0;
  for (const std::string& name : batches) {
    const Batch batch = ParseBatch(name);
    most_tokens = std::max(most_tokens, batch.all());
    most_pages = std::max(most_pages, batch.rows * batch.pages_of_row());
  }
  BenchDevice device(1 << 20);
  Gemms gemms(&device);
  Model model(shape, most_tokens, most_pages, &device, &gemms);
  std::string json = std::string("{\"shape\": \"") + shape.name + "\", \"prefill\": [";
  for (size_t i = 0; i < batches.size(); ++i) {
    if (i > 0) json += ",\n ";
    json += Measure(&model, batches[i], &device, &gemms);
  }
  json += "]}\n";
  std::FILE* file = std::fopen(argv[1], "w");
  if (file == nullptr) return 1;
  std::fputs(json.c_str(), file);
  return std::fclose(file);
}

}  // namespace
}  // namespace triptych::bench

int main(int argc, char** argv) { return triptych::bench::Run(argc, argv); }
