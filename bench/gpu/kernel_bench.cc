// How close the memory-bound ops come to a plain device copy. Every figure counts bytes read
// plus bytes written; sets of buffers are rotated so that nothing stays in the L2 cache.
// Usage: bench_kernels OUT.json

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/bfloat16.h"
#include "base/check.h"
#include "bench/gpu/timed_graph.h"
#include "kernels/activation.h"
#include "kernels/checksum.h"
#include "kernels/cuda_context.h"
#include "kernels/page_copy.h"
#include "kernels/rms_norm.h"
#include "kernels/rope_append.h"
#include "kernels/rotate.h"
#include "kernels/sample.h"

namespace triptych::bench {
namespace {

using kernels::Device;
using kernels::DType;

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kCopyBytes = 64 * kMiB;
constexpr int kSets = 8;  // 8 x 2 x 64 MiB: 17 times the L2 of an H200
constexpr int kReplays = 60;

// Device memory of random bits (zeros can run faster than real contents), freed with the process.
// bf16 bits: exponents are kept near 1 so that arithmetic sees ordinary numbers.
char* RandomMemory(int64_t bytes) {
  static const std::vector<uint16_t> pattern = [] {
    std::mt19937 generator(1);
    std::vector<uint16_t> values(4 * kMiB);
    for (uint16_t& value : values) value = static_cast<uint16_t>((generator() & 0x80ff) | 0x3f00);
    return values;
  }();
  char* memory = nullptr;
  CheckCuda(cudaMalloc(reinterpret_cast<void**>(&memory), bytes), "malloc");
  const int64_t pattern_bytes = static_cast<int64_t>(pattern.size()) * 2;
  for (int64_t at = 0; at < bytes; at += pattern_bytes) {
    CheckCuda(cudaMemcpy(memory + at, pattern.data(), std::min(pattern_bytes, bytes - at),
                         cudaMemcpyHostToDevice),
              "fill");
  }
  return memory;
}

template <typename T>
T* Uploaded(const std::vector<T>& values) {
  void* memory = nullptr;
  CheckCuda(cudaMalloc(&memory, values.size() * sizeof(T)), "malloc");
  CheckCuda(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
            "upload");
  return static_cast<T*>(memory);
}

// A stream as ops take it, for the length of one call.
struct On {
  explicit On(cudaStream_t stream) : context{.stream = stream} {}
  operator kernels::Stream() { return {.device = Device::kCuda, .cuda = &context}; }  // NOLINT
  kernels::CudaContext context;
};

// Collects rows of the table and of the JSON file.
class Results {
 public:
  void Add(const std::string& name, const Timing& timing, int64_t bytes) {
    const double gb_s = static_cast<double>(bytes) / timing.median_us / 1e3;
    if (copy_gb_s_ == 0) copy_gb_s_ = gb_s;
    std::printf("%-58s %8.2f us (%.2f .. %.2f) %7.0f GB/s %5.1f %% of copy\n", name.c_str(),
                timing.median_us, timing.low_us, timing.high_us, gb_s, 100 * gb_s / copy_gb_s_);
    char row[512];
    std::snprintf(row, sizeof(row),
                  "%s\n  {\"name\": \"%s\", \"median_us\": %.3f, \"p10_us\": %.3f, \"p90_us\": "
                  "%.3f, \"bytes\": %lld, \"gb_s\": %.1f, \"of_copy\": %.4f}",
                  rows_.empty() ? "" : ",", name.c_str(), timing.median_us, timing.low_us,
                  timing.high_us, static_cast<long long>(bytes), gb_s, gb_s / copy_gb_s_);
    rows_ += row;
  }

  bool Write(const char* path, const char* gpu) const {
    std::FILE* file = std::fopen(path, "w");
    if (file == nullptr) return false;
    std::fprintf(file, "{\"gpu\": \"%s\", \"replays\": %d, \"results\": [%s\n]}\n", gpu, kReplays,
                 rows_.c_str());
    return std::fclose(file) == 0;
  }

 private:
  double copy_gb_s_ = 0;  // the first row's, which all others are held against
  std::string rows_;
};

void BenchCopy(const std::string& name, Results* results) {
  std::vector<char*> from, to;
  for (int i = 0; i < kSets; ++i) {
    from.push_back(RandomMemory(kCopyBytes));
    to.push_back(RandomMemory(kCopyBytes));
  }
  const Timing timing = TimeGraph(kSets, kReplays, [&](cudaStream_t stream, int i) {
    CheckCuda(cudaMemcpyAsync(to[i], from[i], kCopyBytes, cudaMemcpyDeviceToDevice, stream),
              "copy");
  });
  results->Add(name, timing, 2 * kCopyBytes);
  for (char* memory : from) CheckCuda(cudaFree(memory), "free");
  for (char* memory : to) CheckCuda(cudaFree(memory), "free");
}

struct PageShape {
  const char* name;
  int layers;
  int kv_heads;
  int head_dim;
  int64_t tokens;
  int64_t token_begin;
};

// Every set is a sequence of its own: shuffled blocks of the same pools, and its own buffer.
void BenchPages(const PageShape& shape, Results* results) {
  const kernels::KvLayout layout = {
      .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .dtype = DType::kBFloat16};
  const int64_t blocks = (shape.token_begin + shape.tokens + 15) / 16;
  const int64_t bytes = kernels::PageCopyBytes(layout, shape.layers, shape.tokens);
  std::vector<int32_t> ids(kSets * blocks);
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(2));
  const int32_t* page_table = Uploaded(ids);
  std::vector<void*> pools, buffers;
  for (int l = 0; l < shape.layers; ++l) {
    pools.push_back(RandomMemory(kSets * blocks * layout.block_bytes()));
  }
  for (int i = 0; i < kSets; ++i) buffers.push_back(RandomMemory(bytes));
  const auto args = [&](int i) {
    return kernels::PageCopyArgs{.layer_pages = pools,
                                 .num_blocks = kSets * blocks,
                                 .block_ids = page_table + i * blocks,
                                 .token_begin = shape.token_begin,
                                 .tokens = shape.tokens,
                                 .layout = layout,
                                 .buffer = buffers[i]};
  };
  const Timing gather = TimeGraph(kSets, kReplays, [&](cudaStream_t stream, int i) {
    CHECK_OK(kernels::GatherPages(args(i), On(stream)));
  });
  const Timing scatter = TimeGraph(kSets, kReplays, [&](cudaStream_t stream, int i) {
    CHECK_OK(kernels::ScatterPages(args(i), On(stream)));
  });
  results->Add(std::string("gather ") + shape.name, gather, 2 * bytes);
  results->Add(std::string("scatter ") + shape.name, scatter, 2 * bytes);
  for (void* memory : pools) CheckCuda(cudaFree(memory), "free");
  for (void* memory : buffers) CheckCuda(cudaFree(memory), "free");
}

void BenchRmsNorm(int64_t rows, int64_t hidden, bool with_residual, Results* results) {
  const int64_t bytes = rows * hidden * 2;
  std::vector<char*> x, out, residual;
  for (int i = 0; i < kSets; ++i) {
    x.push_back(RandomMemory(bytes));
    out.push_back(RandomMemory(bytes));
    residual.push_back(with_residual ? RandomMemory(bytes) : nullptr);
  }
  const char* weight = RandomMemory(hidden * 2);
  const Timing timing = TimeGraph(kSets, kReplays, [&](cudaStream_t stream, int i) {
    CHECK_OK(kernels::RmsNorm({.x = x[i],
                               .weight = weight,
                               .out = out[i],
                               .residual = residual[i],
                               .rows = rows,
                               .hidden = hidden,
                               .dtype = DType::kBFloat16},
                              On(stream)));
  });
  results->Add("rms_norm bf16 [" + std::to_string(rows) + ", " + std::to_string(hidden) + "]" +
                   (with_residual ? " with residual" : ""),
               timing, bytes * (with_residual ? 4 : 2));
  for (const auto& set : {x, out, residual}) {
    for (char* memory : set) CheckCuda(cudaFree(memory), "free");
  }
}

void BenchRopeAppend(int64_t tokens, Results* results) {
  constexpr int kHeads = 28, kKvHeads = 4, kHeadDim = 128;
  constexpr int64_t kRow = int64_t{kHeads + 2 * kKvHeads} * kHeadDim;
  const kernels::KvLayout layout = {
      .kv_heads = kKvHeads, .head_dim = kHeadDim, .dtype = DType::kBFloat16};
  const auto table = kernels::MakeRopeTable(kHeadDim, 1e6, {16, 24, 24});
  std::vector<int32_t> slots((tokens + 15) / 16 * 16), positions(3 * tokens);
  std::iota(slots.begin(), slots.end(), 0);
  std::shuffle(slots.begin(), slots.end(), std::mt19937(4));
  for (int64_t i = 0; i < 3 * tokens; ++i) positions[i] = static_cast<int32_t>(i % tokens);
  const int32_t* slot_ids = Uploaded(slots);
  const int32_t* token_positions = Uploaded(positions);
  const int64_t num_blocks = static_cast<int64_t>(slots.size()) / 16;
  std::vector<char*> qkv, pages;
  for (int i = 0; i < kSets; ++i) {
    qkv.push_back(RandomMemory(tokens * kRow * 2));
    pages.push_back(RandomMemory(num_blocks * layout.block_bytes()));
  }
  const Timing timing = TimeGraph(kSets, kReplays, [&](cudaStream_t stream, int i) {
    CHECK_OK(kernels::RopeAppend({.q = qkv[i],
                                  .k = qkv[i] + kHeads * kHeadDim * 2,
                                  .v = qkv[i] + (kHeads + kKvHeads) * kHeadDim * 2,
                                  .q_stride = kRow,
                                  .k_stride = kRow,
                                  .v_stride = kRow,
                                  .positions = token_positions,
                                  .slots = slot_ids,
                                  .pages = pages[i],
                                  .num_blocks = num_blocks,
                                  .layout = layout,
                                  .tokens = tokens,
                                  .heads = kHeads,
                                  .dtype = DType::kBFloat16,
                                  .table = &*table},
                                 On(stream)));
  });
  results->Add("rope_append bf16 " + std::to_string(tokens) + " tokens, 28 + 2 x 4 heads of 128",
               timing, 2 * tokens * kRow * 2);
  for (char* memory : qkv) CheckCuda(cudaFree(memory), "free");
  for (char* memory : pages) CheckCuda(cudaFree(memory), "free");
}

void BenchSwiGlu(int64_t rows, int64_t n, Results* results) {
  std::vector<char*> in, out;
  for (int i = 0; i < kSets; ++i) {
    in.push_back(RandomMemory(rows * n * 4));
    out.push_back(RandomMemory(rows * n * 2));
  }
  const Timing timing = TimeGraph(kSets, kReplays, [&](cudaStream_t stream, int i) {
    CHECK_OK(kernels::SwiGlu(
        {.gate_up = in[i], .out = out[i], .rows = rows, .n = n, .dtype = DType::kBFloat16},
        On(stream)));
  });
  results->Add("swiglu bf16 [" + std::to_string(rows) + ", " + std::to_string(n) + "]", timing,
               rows * n * 6);
  for (const auto& set : {in, out}) {
    for (char* memory : set) CheckCuda(cudaFree(memory), "free");
  }
}

void BenchRotate(int64_t tokens, Results* results) {
  constexpr int kHeads = 32, kHeadDim = 80;
  std::vector<char*> qkv;
  for (int i = 0; i < kSets; ++i) qkv.push_back(RandomMemory(tokens * 3840 * 2));
  const auto* angles = reinterpret_cast<const float*>(RandomMemory(tokens * kHeadDim * 2));
  const Timing timing = TimeGraph(kSets, kReplays, [&](cudaStream_t stream, int i) {
    CHECK_OK(kernels::Rotate({.x = qkv[i],
                              .x_stride = 3840,
                              .tokens = tokens,
                              .heads = kHeads,
                              .head_dim = kHeadDim,
                              .cosines = angles,
                              .sines = angles,
                              .dtype = DType::kBFloat16},
                             On(stream)));
  });
  results->Add("rotate bf16 " + std::to_string(tokens) + " tokens, 32 heads of 80 in rows of 3840",
               timing, 2 * tokens * kHeads * kHeadDim * 2);
  for (char* memory : qkv) CheckCuda(cudaFree(memory), "free");
}

void BenchChecksum(int64_t bytes, Results* results) {
  std::vector<char*> data;
  for (int i = 0; i < kSets; ++i) data.push_back(RandomMemory(bytes));
  auto* sums = reinterpret_cast<uint64_t*>(RandomMemory(kSets * 8));
  const Timing timing = TimeGraph(kSets, kReplays, [&](cudaStream_t stream, int i) {
    CHECK_OK(
        kernels::Checksum({.data = data[i], .bytes = bytes, .checksum = sums + i}, On(stream)));
  });
  results->Add("checksum " + std::to_string(bytes / kMiB) + " MiB", timing, bytes);
  for (char* memory : data) CheckCuda(cudaFree(memory), "free");
}

// Logits of 64 rows that are normally distributed, as bf16.
std::vector<uint16_t> NormalLogits(int64_t count, float deviation) {
  std::mt19937 generator(6);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<uint16_t> some(1000003), all(count);
  for (uint16_t& value : some) value = base::ToBFloat16(normal(generator)).bits;
  for (int64_t i = 0; i < count; ++i) all[i] = some[i % some.size()];
  return all;
}

void BenchSample(const std::string& name, float deviation, const kernels::SampleRow& params,
                 Results* results) {
  constexpr int64_t kRows = 64, kVocab = 152064;
  const std::vector<uint16_t> logits = NormalLogits(kRows * kVocab, deviation);
  std::vector<uint16_t*> sets;
  for (int i = 0; i < kSets; ++i) sets.push_back(Uploaded(logits));
  std::vector<kernels::SampleRow> rows(kRows, params);
  for (int64_t i = 0; i < kRows; ++i) rows[i].index = static_cast<uint64_t>(i);
  const kernels::SampleRow* device_rows = Uploaded(rows);
  auto* answers = Uploaded(std::vector<kernels::SampleResult>(kRows));
  const Timing timing = TimeGraph(kSets, kReplays, [&](cudaStream_t stream, int i) {
    CHECK_OK(kernels::Sample({.logits = sets[i],
                              .rows = kRows,
                              .vocab = kVocab,
                              .params = device_rows,
                              .results = answers,
                              .dtype = DType::kBFloat16},
                             On(stream)));
  });
  results->Add("sample 64 x 152064, " + name, timing, kRows * kVocab * 2);
  for (uint16_t* memory : sets) CheckCuda(cudaFree(memory), "free");
}

int Run(const char* path) {
  cudaDeviceProp properties;
  CheckCuda(cudaGetDeviceProperties(&properties, 0), "device");
  Results results;
  BenchCopy("copy 64 MiB, cudaMemcpyAsync", &results);
  BenchPages({"64 MiB, 32 layers x 1024 tokens, 4 heads of 128", 32, 4, 128, 1024, 0}, &results);
  BenchPages({"64 MiB, 1 layer x 32768 tokens, 4 heads of 128", 1, 4, 128, 32768, 0}, &results);
  BenchPages({"64 MiB, 32 layers x 1024 tokens from token 5", 32, 4, 128, 1024, 5}, &results);
  BenchPages({"64 MiB, 32 layers x 4096 tokens, 1 head of 128", 32, 1, 128, 4096, 0}, &results);
  BenchPages({"2 MiB, 1 layer x 1024 tokens, 4 heads of 128", 1, 4, 128, 1024, 0}, &results);
  for (bool with_residual : {false, true}) {
    BenchRmsNorm(8192, 3584, with_residual, &results);
  }
  BenchRmsNorm(64, 3584, true, &results);
  BenchRopeAppend(8192, &results);
  BenchRopeAppend(64, &results);
  BenchSwiGlu(4096, 18944, &results);
  BenchSwiGlu(43808, 3456, &results);
  BenchRotate(43808, &results);
  BenchChecksum(64 * kMiB, &results);
  BenchSample("greedy", 3, {}, &results);
  BenchSample("temperature 1", 3, {.temperature = 1}, &results);
  BenchSample("top-p 0.9, deviation 3", 3, {.temperature = 1, .top_p = 0.9f}, &results);
  BenchSample("top-p 0.9, deviation 0.5", 0.5f, {.temperature = 1, .top_p = 0.9f}, &results);
  BenchSample("top-k 50, top-p 0.9", 3, {.temperature = 1, .top_p = 0.9f, .top_k = 50}, &results);
  BenchSample("greedy, 20 log probabilities", 3, {.top_logprobs = 20}, &results);
  BenchCopy("copy 64 MiB again", &results);
  return results.Write(path, properties.name) ? 0 : 1;
}

}  // namespace
}  // namespace triptych::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: bench_kernels OUT.json\n");
    return 2;
  }
  return triptych::bench::Run(argv[1]);
}
