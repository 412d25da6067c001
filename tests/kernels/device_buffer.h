#pragma once

// Memory of either device for tests that run one body on both, and the numbers they compare.

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/kv_layout.h"
#include "kernels/storage_types.h"
#include "kernels/stream.h"

namespace triptych::kernels {

// False where the build has no CUDA or the machine no GPU; the CPU is always at hand.
bool IsAtHand(Device device);

// Waits for everything enqueued on the default stream; fails the test on an error.
void Synchronize(Device device);

// `bytes` of a device's memory, freed at the end. Copies are synchronous.
class DeviceBuffer {
 public:
  DeviceBuffer(Device device, int64_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  template <typename T>
  DeviceBuffer(Device device, const std::vector<T>& values)
      : DeviceBuffer(device, static_cast<int64_t>(values.size() * sizeof(T))) {
    Upload(values.data());
  }

  template <typename T>
  std::vector<T> Read() const {
    std::vector<T> values(bytes_ / sizeof(T));
    Download(values.data());
    return values;
  }

  void* get() const { return memory_; }
  int64_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  void Upload(const void* from);
  void Download(void* to) const;

  Device device_;
  int64_t bytes_;
  void* memory_ = nullptr;
};

// Values as the bytes of a dtype, rounded.
std::vector<char> Encoded(DType dtype, const std::vector<float>& values);

// Values as a dtype stores them: made from float32 with rounding, read back as float32.
class StoredValues {
 public:
  StoredValues(Device device, DType dtype, const std::vector<float>& values);
  std::vector<float> Read() const;
  void* get() const { return buffer_.get(); }

 private:
  DType dtype_;
  DeviceBuffer buffer_;
};

// Uniform in [-scale, scale], already rounded to `dtype`.
std::vector<float> RandomValues(std::mt19937* generator, int64_t count, DType dtype,
                                float scale = 2);
float Rounded(double value, DType dtype);

}  // namespace triptych::kernels
