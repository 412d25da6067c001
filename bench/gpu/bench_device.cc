#include "bench/gpu/bench_device.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "base/bfloat16.h"

namespace triptych::bench {
namespace {

constexpr int64_t kNumbers = 16'000'057;  // a prime: no width of a model divides it

void* AllocateDevice(int64_t bytes) {
  void* memory = nullptr;
  CheckCuda(cudaMalloc(&memory, static_cast<size_t>(bytes)), "device memory");
  return memory;
}

}  // namespace

void CheckStatus(const absl::Status& status, const char* what) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
  std::exit(1);
}

BenchDevice::BenchDevice(int64_t workspace_bytes)
    : workspace_({.data = AllocateDevice(workspace_bytes),
                  .bytes = workspace_bytes,
                  .space = base::MemorySpace::kCuda}) {
  CheckCuda(cudaStreamCreate(&stream_), "stream");
  CheckCuda(cudaEventCreate(&begin_), "event");
  CheckCuda(cudaEventCreate(&end_), "event");
  context_.stream = stream_;
  CheckCuda(cudaDeviceGetAttribute(&context_.sm_count, cudaDevAttrMultiProcessorCount, 0), "count");
}

kernels::Stream BenchDevice::stream() {
  return {.device = kernels::Device::kCuda, .cuda = &context_, .workspace = &workspace_};
}

void* BenchDevice::Allocate(int64_t bytes) { return AllocateDevice(bytes); }

void* BenchDevice::RandomBFloat16(int64_t elements, float scale) {
  uint16_t*& numbers = numbers_[scale];
  if (numbers == nullptr) {
    std::minstd_rand generator(7);
    std::vector<uint16_t> drawn(kNumbers);
    for (uint16_t& number : drawn) {
      const float unit = static_cast<float>(generator()) / static_cast<float>(generator.max());
      number = base::ToBFloat16((2 * unit - 1) * scale).bits;
    }
    numbers = Upload(drawn);
  }
  auto* memory = static_cast<uint16_t*>(Allocate(elements * 2));
  next_ = (next_ + 1'234'577) % kNumbers;
  for (int64_t at = 0, from = next_; at < elements; from = 0) {
    const int64_t size = std::min(elements - at, kNumbers - from);
    CheckCuda(cudaMemcpyAsync(memory + at, numbers + from, static_cast<size_t>(size * 2),
                              cudaMemcpyDeviceToDevice, stream_),
              "copy");
    at += size;
  }
  return memory;
}

std::vector<double> BenchDevice::Download(const void* from, int64_t first, int64_t count) {
  std::vector<uint16_t> bits(static_cast<size_t>(count));
  Copy(bits.data(), static_cast<const uint16_t*>(from) + first, count * 2);
  std::vector<double> values;
  for (uint16_t value : bits) values.push_back(double{base::ToFloat(base::BFloat16{value})});
  return values;
}

void BenchDevice::Copy(void* to, const void* from, int64_t bytes) {
  CheckCuda(cudaStreamSynchronize(stream_), "synchronize");
  CheckCuda(cudaMemcpy(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault), "copy");
}

double BenchDevice::Time(const std::function<void()>& enqueue) {
  float ms = 0;
  CheckCuda(cudaEventRecord(begin_, stream_), "record");
  enqueue();
  CheckCuda(cudaEventRecord(end_, stream_), "record");
  CheckCuda(cudaEventSynchronize(end_), "synchronize");
  CheckCuda(cudaEventElapsedTime(&ms, begin_, end_), "elapsed");
  return ms;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace triptych::bench
