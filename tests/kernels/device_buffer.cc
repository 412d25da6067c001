#include "tests/kernels/device_buffer.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>

#ifdef TRIPTYCH_HAS_CUDA
#include <cuda_runtime_api.h>
#endif

namespace triptych::kernels {
std::vector<char> Encoded(DType dtype, const std::vector<float>& values) {
  std::vector<char> bytes(values.size() * SizeOf(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kFloat32) {
      StoreFloat(values[i], reinterpret_cast<float*>(bytes.data()) + i);
    } else {
      StoreFloat(values[i], reinterpret_cast<BFloat16*>(bytes.data()) + i);
    }
  }
  return bytes;
}

#ifdef TRIPTYCH_HAS_CUDA
bool IsAtHand(Device device) {
  int count = 0;
  return device == Device::kCpu || (cudaGetDeviceCount(&count) == cudaSuccess && count > 0);
}

void Synchronize(Device device) {
  if (device == Device::kCuda) REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
}
#else
bool IsAtHand(Device device) { return device == Device::kCpu; }
void Synchronize(Device) {}
#endif

DeviceBuffer::DeviceBuffer(Device device, int64_t bytes) : device_(device), bytes_(bytes) {
  if (device_ == Device::kCpu) {
    memory_ = std::malloc(bytes_ + 1);
    return;
  }
#ifdef TRIPTYCH_HAS_CUDA
  REQUIRE(cudaMalloc(&memory_, bytes_ + 1) == cudaSuccess);
#endif
}

DeviceBuffer::~DeviceBuffer() {
  if (device_ == Device::kCpu) {
    std::free(memory_);
    return;
  }
#ifdef TRIPTYCH_HAS_CUDA
  cudaFree(memory_);
#endif
}

void DeviceBuffer::Upload(const void* from) {
  if (device_ == Device::kCpu) {
    std::memcpy(memory_, from, bytes_);
    return;
  }
#ifdef TRIPTYCH_HAS_CUDA
  REQUIRE(cudaMemcpy(memory_, from, bytes_, cudaMemcpyHostToDevice) == cudaSuccess);
#endif
}

void DeviceBuffer::Download(void* to) const {
  if (device_ == Device::kCpu) {
    std::memcpy(to, memory_, bytes_);
    return;
  }
#ifdef TRIPTYCH_HAS_CUDA
  REQUIRE(cudaMemcpy(to, memory_, bytes_, cudaMemcpyDeviceToHost) == cudaSuccess);
#endif
}

StoredValues::StoredValues(Device device, DType dtype, const std::vector<float>& values)
    : dtype_(dtype), buffer_(device, Encoded(dtype, values)) {}

std::vector<float> StoredValues::Read() const {
  if (dtype_ == DType::kFloat32) return buffer_.Read<float>();
  std::vector<float> values;
  for (BFloat16 value : buffer_.Read<BFloat16>()) values.push_back(ToFloat(value));
  return values;
}

std::vector<float> RandomValues(std::mt19937* generator, int64_t count, DType dtype, float scale) {
  std::uniform_real_distribution<float> distribution(-scale, scale);
  std::vector<float> values(count);
  for (float& value : values) value = Rounded(distribution(*generator), dtype);
  return values;
}

float Rounded(double value, DType dtype) {
  const float narrow = static_cast<float>(value);
  if (dtype == DType::kFloat32) return narrow;
  BFloat16 stored;
  StoreFloat(narrow, &stored);
  return ToFloat(stored);
}

}  // namespace triptych::kernels
