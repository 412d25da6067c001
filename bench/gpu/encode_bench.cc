// A whole encode of Qwen2.5-VL's vision tower, random weights, built of the ops and cuBLASLt: from
// resized 8-bit frames in pinned memory to embeddings, pictures of 1024 x 1024 (1036 x 1036 when
// resized). Milliseconds, and model FLOPs against 8192^3 products timed in turn.
// Usage: bench_encode OUT.json [7b|3b] [PICTURES...]; see README.md.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/gpu/bench_device.h"
#include "bench/gpu/gemm.h"
#include "bench/gpu/row_checks.h"
#include "kernels/activation.h"
#include "kernels/linear_swiglu.h"
#include "kernels/move_rows.h"
#include "kernels/patchify.h"
#include "kernels/rms_norm.h"
#include "kernels/segment_attention.h"
#include "models/vision/window_order.h"

namespace triptych::bench {
namespace {

using base::DType;
constexpr DType kType = DType::kBFloat16;
constexpr int kRepeats = 5;
constexpr base::Grid kGrid = {.t = 1, .h = 74, .w = 74};
constexpr int kInner = 3420;        // of the published model
constexpr int kPaddedInner = 3456;  // as loaded: rows of 16-byte vectors

models::VisionConfig TowerConfig(const char* shape) {
  models::VisionConfig config;
  config.depth = 32;
  config.hidden_size = 1280;
  config.num_heads = 16;
  config.intermediate_size = kPaddedInner;
  config.fullatt_block_indexes = {7, 15, 23, 31};
  config.out_hidden_size = std::strcmp(shape, "3b") == 0 ? 2048 : 3584;
  return config;
}

struct Block {
  const void *norm1, *qkv, *qkv_bias, *proj, *proj_bias, *norm2, *gate_up, *gate_up_bias, *down,
      *down_bias;
};

class Tower {
 public:
  Tower(const models::VisionConfig& config, int most_pictures, BenchDevice* device, Gemms* gemms);
  void Plan(int pictures);
  // Whether gate_up and SwiGLU are one kernel.
  void Fuse(bool fused) { fused_ = fused; }
  void Encode();
  // Parts of an Encode() and what the last block left, after it.
  void Check(std::string* json);
  double Flops() const;

 private:
  int64_t rows() const { return pictures_ * kGrid.patches(); }
  void Norm(const void* weight);
  void RunGateUp(const Block& block);
  void RunFeedForward(const Block& block);
  void RunBlock(int index);
  double AttentionError();
  void Turn(int64_t row, std::vector<double>* values) const;

  const models::VisionConfig config_;
  BenchDevice* device_;
  Gemms* gemms_;
  int pictures_ = 0;
  bool fused_ = false;
  kernels::PixelTable table_;
  uint8_t* pinned_ = nullptr;
  uint8_t* frames_;
  const void *patch_, *merger_norm_, *first_, *first_bias_, *second_, *second_bias_;
  std::vector<Block> blocks_;
  void *patches_, *reading_, *x_, *normed_, *qkv_, *attended_, *gate_up_, *inner_, *merged_,
      *tokens_, *out_;
  std::vector<int32_t> windows_, frames_of_;
  int32_t *unit_at_, *device_windows_, *device_frames_;
  float *cosines_, *sines_;
  std::vector<std::pair<float, float>> turns_;  // the same, on the host
};

int64_t FrameBytes() { return int64_t{3} * kGrid.h * 14 * kGrid.w * 14; }

Tower::Tower(const models::VisionConfig& config, int most_pictures, BenchDevice* device,
             Gemms* gemms)
    : config_(config), device_(device), gemms_(gemms) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t rows = most_pictures * kGrid.patches(), merged = 4 * hidden;
  const float scale = 1.7f / std::sqrt(static_cast<float>(hidden));
  const auto random = [&](int64_t elements) { return device->RandomBFloat16(elements, scale); };
  for (int i = 0; i < config.depth; ++i) {
    blocks_.push_back({device->RandomBFloat16(hidden, 1), random(3 * hidden * hidden),
                       random(3 * hidden), random(hidden * hidden), random(hidden),
                       device->RandomBFloat16(hidden, 1), random(2 * inner * hidden),
                       random(2 * inner), random(inner * hidden), random(hidden)});
  }
  patch_ = random(hidden * config.patch_elements());
  merger_norm_ = device->RandomBFloat16(hidden, 1);
  first_ = random(merged * merged);
  first_bias_ = random(merged);
  second_ = random(merged * config.out_hidden_size);
  second_bias_ = random(config.out_hidden_size);
  table_ = kernels::MakePixelTable({0.48145466f, 0.4578275f, 0.40821073f},
                                   {0.26862954f, 0.26130258f, 0.27577711f});
  void* pinned = nullptr;
  CheckCuda(cudaMallocHost(&pinned, static_cast<size_t>(most_pictures * FrameBytes())), "pinned");
  pinned_ = static_cast<uint8_t*>(pinned);
  std::minstd_rand generator(5);
  for (int64_t i = 0; i < most_pictures * FrameBytes(); ++i) {
    pinned_[i] = static_cast<uint8_t>(generator() >> 8);
  }
  frames_ = static_cast<uint8_t*>(device->Allocate(most_pictures * FrameBytes()));
  patches_ = device->Allocate(rows * config.patch_elements() * 2);
  reading_ = device->Allocate(rows * hidden * 2);
  x_ = device->Allocate(rows * hidden * 2);
  normed_ = device->Allocate(rows * hidden * 2);
  qkv_ = device->Allocate(rows * 3 * hidden * 2);
  attended_ = device->Allocate(rows * hidden * 2);
  gate_up_ = device->Allocate(rows * 2 * inner * 2);
  inner_ = device->Allocate(rows * inner * 2);
  merged_ = device->Allocate(rows / 4 * merged * 2);
  tokens_ = device->Allocate(rows / 4 * config.out_hidden_size * 2);
  out_ = device->Allocate(rows / 4 * config.out_hidden_size * 2);
}

void Tower::Plan(int pictures) {
  pictures_ = pictures;
  const models::WindowOrder order = models::OrderByWindow(kGrid, config_);
  const int half = config_.head_dim() / 2, quarter = half / 2;
  std::vector<int32_t> unit_at;
  std::vector<float> cosines, sines;
  windows_ = frames_of_ = {0};
  turns_.clear();
  for (int p = 0; p < pictures; ++p) {
    const auto first_unit = static_cast<int32_t>(unit_at.size());
    const int32_t first_patch = 4 * first_unit;
    for (int32_t unit : order.unit_at) unit_at.push_back(first_unit + unit);
    for (size_t i = 1; i < order.window_offsets.size(); ++i) {
      windows_.push_back(first_patch + order.window_offsets[i]);
    }
    frames_of_.push_back(first_patch + order.frame_offsets[1]);
    for (size_t i = 0; i < order.rows.size(); ++i) {
      for (int j = 0; j < half; ++j) {
        const int position = j < quarter ? order.rows[i] : order.columns[i];
        const double angle = position / std::pow(1e4, 2.0 * (j % quarter) / half);
        cosines.push_back(static_cast<float>(std::cos(angle)));
        sines.push_back(static_cast<float>(std::sin(angle)));
        turns_.push_back({cosines.back(), sines.back()});
      }
    }
  }
  unit_at_ = device_->Upload(unit_at);
  device_windows_ = device_->Upload(windows_);
  device_frames_ = device_->Upload(frames_of_);
  cosines_ = device_->Upload(cosines);
  sines_ = device_->Upload(sines);
}

void Tower::Norm(const void* weight) {
  CheckStatus(kernels::RmsNorm({.x = x_,
                                .weight = weight,
                                .out = normed_,
                                .rows = rows(),
                                .hidden = config_.hidden_size,
                                .dtype = kType},
                               device_->stream()),
              "norm");
}

void Tower::RunGateUp(const Block& block) {
  gemms_->Multiply({normed_, rows(), config_.hidden_size, block.gate_up,
                    int64_t{2} * config_.intermediate_size, block.gate_up_bias, nullptr, gate_up_});
}

// gate_up and SwiGLU, in one kernel or two.
void Tower::RunFeedForward(const Block& block) {
  const int64_t inner = config_.intermediate_size;
  const kernels::Stream stream = device_->stream();
  if (fused_) {
    const int error = kernels::internal::SwiGluProductCuda({.x = normed_,
                                                            .rows = rows(),
                                                            .inputs = config_.hidden_size,
                                                            .x_stride = config_.hidden_size,
                                                            .weight = block.gate_up,
                                                            .n = inner,
                                                            .bias = block.gate_up_bias,
                                                            .out = inner_,
                                                            .out_stride = inner},
                                                           stream);
    return CheckCuda(static_cast<cudaError_t>(error), "fused product");
  }
  RunGateUp(block);
  CheckStatus(
      kernels::SwiGlu(
          {.gate_up = gate_up_, .out = inner_, .rows = rows(), .n = inner, .dtype = kType}, stream),
      "swiglu");
}

void Tower::RunBlock(int index) {
  const Block& block = blocks_[index];
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const kernels::Stream stream = device_->stream();
  const std::vector<int>& full = config_.fullatt_block_indexes;
  const bool whole = std::find(full.begin(), full.end(), index) != full.end();
  Norm(block.norm1);
  gemms_->Multiply({normed_, rows(), hidden, block.qkv, 3 * hidden, block.qkv_bias, nullptr, qkv_});
  CheckStatus(kernels::SegmentAttention({.qkv = qkv_,
                                         .out = attended_,
                                         .heads = config_.num_heads,
                                         .head_dim = config_.head_dim(),
                                         .offsets = whole ? frames_of_ : windows_,
                                         .device_offsets = whole ? device_frames_ : device_windows_,
                                         .cosines = cosines_,
                                         .sines = sines_,
                                         .dtype = kType},
                                        stream),
              "attention");
  gemms_->Multiply({attended_, rows(), hidden, block.proj, hidden, block.proj_bias, x_, x_});
  Norm(block.norm2);
  RunFeedForward(block);
  gemms_->Multiply({inner_, rows(), inner, block.down, hidden, block.down_bias, x_, x_});
}

void Tower::Encode() {
  const int64_t hidden = config_.hidden_size, elements = config_.patch_elements();
  const kernels::Stream stream = device_->stream();
  CheckCuda(cudaMemcpyAsync(frames_, pinned_, static_cast<size_t>(pictures_ * FrameBytes()),
                            cudaMemcpyHostToDevice, device_->cuda_stream()),
            "copy");
  for (int p = 0; p < pictures_; ++p) {
    CheckStatus(
        kernels::Patchify({.frames = frames_ + p * FrameBytes(),
                           .num_frames = 1,
                           .grid = kGrid,
                           .out = static_cast<uint16_t*>(patches_) + p * kGrid.patches() * elements,
                           .table = &table_,
                           .dtype = kType},
                          stream),
        "patchify");
  }
  gemms_->Multiply({patches_, rows(), elements, patch_, hidden, nullptr, nullptr, reading_});
  CheckStatus(kernels::GatherRows({.x = reading_,
                                   .out = x_,
                                   .indices = unit_at_,
                                   .rows = rows() / 4,
                                   .indexed_rows = rows() / 4,
                                   .width = 4 * hidden,
                                   .dtype = kType},
                                  stream),
              "gather");
  for (int i = 0; i < config_.depth; ++i) RunBlock(i);
  Norm(merger_norm_);
  gemms_->Multiply(
      {normed_, rows() / 4, 4 * hidden, first_, 4 * hidden, first_bias_, nullptr, merged_});
  CheckStatus(kernels::Gelu({.x = merged_, .count = rows() * hidden, .dtype = kType}, stream),
              "gelu");
  gemms_->Multiply({merged_, rows() / 4, 4 * hidden, second_, config_.out_hidden_size, second_bias_,
                    nullptr, tokens_});
  CheckStatus(kernels::ScatterRows({.x = tokens_,
                                    .out = out_,
                                    .indices = unit_at_,
                                    .rows = rows() / 4,
                                    .indexed_rows = rows() / 4,
                                    .width = config_.out_hidden_size,
                                    .dtype = kType},
                                   stream),
              "scatter");
}

// As the window kernel turns Q and K on their way in.
void Tower::Turn(int64_t row, std::vector<double>* values) const {
  const int half = config_.head_dim() / 2;
  for (int i = 0; i < half; ++i) {
    const double c = turns_[row * half + i].first, s = turns_[row * half + i].second;
    const double low = (*values)[i], high = (*values)[i + half];
    (*values)[i] = low * c - high * s;
    (*values)[i + half] = high * c + low * s;
  }
}

double Tower::AttentionError() {
  const int head_dim = config_.head_dim();
  const int64_t hidden = config_.hidden_size;
  std::vector<double> expected, got;
  for (int index : {config_.depth - 2, config_.depth - 1}) {
    RunBlock(index);
    const std::vector<int32_t>& offsets = index == config_.depth - 1 ? frames_of_ : windows_;
    for (int64_t token : {int64_t{0}, int64_t{70}, rows() / 2, rows() - 1}) {
      const int head = static_cast<int>(token * 5 % config_.num_heads);
      const auto end = std::upper_bound(offsets.begin(), offsets.end(), token);
      std::vector<std::vector<double>> keys, values;
      const int64_t column = int64_t{head} * head_dim;
      const auto part = [&](int64_t row, int which) {  // Q, K or V as it is attended
        std::vector<double> values =
            device_->Download(qkv_, (row * 3 + which) * hidden + column, head_dim);
        if (which < 2 && index != config_.depth - 1) Turn(row, &values);  // Frames are turned.
        return values;
      };
      for (int64_t j = *(end - 1); j < *end; ++j) {
        keys.push_back(part(j, 1));
        values.push_back(part(j, 2));
      }
      const std::vector<double> out = Attend(part(token, 0), keys, values);
      expected.insert(expected.end(), out.begin(), out.end());
      const std::vector<double> on_device =
          device_->Download(attended_, token * hidden + column, head_dim);
      got.insert(got.end(), on_device.begin(), on_device.end());
    }
  }
  return RelativeError(expected, got);
}

void Tower::Check(std::string* json) {
  const double attention = AttentionError();
  const int64_t inner = config_.intermediate_size;
  const Block& block = blocks_.back();
  RunGateUp(block);  // of what the last block's feed-forward saw
  const double gemm = GemmError(device_, {normed_, rows(), config_.hidden_size, block.gate_up,
                                          2 * inner, block.gate_up_bias, nullptr, gate_up_});
  char text[200];
  std::snprintf(text, sizeof(text),
                "\"error_attention\": %.2e, \"error_swiglu\": %.2e, \"error_gemm\": %.2e",
                attention, SwiGluError(device_, gate_up_, inner_, rows(), inner), gemm);
  *json += text;
}

// With the published width of the feed-forward layers: padding is no work.
double Tower::Flops() const {
  const auto n = static_cast<double>(rows());
  const double hidden = config_.hidden_size, patches = static_cast<double>(kGrid.patches());
  const double block = 2 * n * hidden * (4 * hidden + 3 * kInner);
  const auto full = static_cast<double>(config_.fullatt_block_indexes.size());
  double windows = 0;
  for (size_t i = 1; i < windows_.size(); ++i) {
    windows += 4 * std::pow(windows_[i] - windows_[i - 1], 2) * hidden;
  }
  return config_.depth * block + full * pictures_ * 4 * patches * patches * hidden +
         (config_.depth - full) * windows + 2 * n * hidden * config_.patch_elements() +
         2 * n / 4 * 4 * hidden * (4 * hidden + config_.out_hidden_size);
}

std::string Measure(Tower* tower, int pictures, bool fused, BenchDevice* device, Gemms* gemms) {
  tower->Plan(pictures);
  tower->Fuse(fused);
  tower->Encode();  // chooses the products' algorithms
  std::vector<double> encode_ms, ceiling_tflops;
  // Alone first, as a single request meets a GPU, then in turn with the ceiling, at full power.
  std::vector<double> alone_ms;
  for (int i = 0; i < 3; ++i) alone_ms.push_back(device->Time([&] { tower->Encode(); }));
  for (int i = 0; i < kRepeats; ++i) {
    encode_ms.push_back(device->Time([&] { tower->Encode(); }));
    ceiling_tflops.push_back(gemms->CeilingTflops(encode_ms.back() / 2));
  }
  const double ms = Median(encode_ms), ceiling = Median(ceiling_tflops);
  const double tflops = tower->Flops() / ms * 1e-9;
  char text[300];
  std::snprintf(text, sizeof(text),
                "{\"pictures\": %d, \"fused\": %d, \"ms_alone\": %.2f, \"ms\": %.2f, \"ms_low\": "
                "%.2f, \"ms_high\": %.2f, "
                "\"ms_a_picture\": %.2f, \"tflops\": %.0f, \"ceiling_tflops\": %.0f, "
                "\"percent\": %.1f, ",
                pictures, fused ? 1 : 0, Median(alone_ms), ms,
                *std::min_element(encode_ms.begin(), encode_ms.end()),
                *std::max_element(encode_ms.begin(), encode_ms.end()), ms / pictures, tflops,
                ceiling, 100 * tflops / ceiling);
  std::string json = text;
  tower->Check(&json);
  json += "}";
  std::printf("%s\n", json.c_str());
  std::fflush(stdout);
  return json;
}

int Run(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_encode OUT.json [7b|3b] [PICTURES...]\n");
    return 2;
  }
  const char* shape = argc > 2 ? argv[2] : "7b";
  std::vector<int> counts;
  for (int i = 3; i < argc; ++i) counts.push_back(std::atoi(argv[i]));
  if (counts.empty()) counts = {1, 8, 32};
  const int most = *std::max_element(counts.begin(), counts.end());
  BenchDevice device(int64_t{most} * kGrid.patches() * 16 * 4 + (1 << 20));
  Gemms gemms(&device);
  Tower tower(TowerConfig(shape), most, &device, &gemms);
  std::string json = std::string("{\"shape\": \"") + shape + "\", \"encode\": [";
  for (size_t i = 0; i < counts.size(); ++i) {
    if (i > 0) json += ",\n ";
    json += Measure(&tower, counts[i], false, &device, &gemms) + ",\n ";
    json += Measure(&tower, counts[i], true, &device, &gemms);
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
