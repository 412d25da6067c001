#pragma once

// The column of a device in the table of an op's test: where memory lies, what stream an op gets,
// how far a result may be off. A test body is written once, as a TEMPLATE_TEST_CASE over
// EVERY_DEVICE, and begins with SKIP_WITHOUT(TestType).

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda_context.h"
#include "kernels/thread_pool.h"
#include "kernels/workspace.h"
#include "tests/kernels/device_buffer.h"
#include "tests/support/skip.h"

namespace triptych::kernels {

struct OnCpu {
  static constexpr Device kDevice = Device::kCpu;
};
struct OnCuda {
  static constexpr Device kDevice = Device::kCuda;
};

#define EVERY_DEVICE OnCpu, OnCuda
#define SKIP_WITHOUT(Type) \
  if (!IsAtHand(Type::kDevice)) return testing::SkipTest("no GPU")

// A device as an op's test uses it: threads, a stream, scratch memory.
class Bench {
 public:
  explicit Bench(Device device)
      : device_(device), scratch_(device, kScratchBytes), workspace_(ScratchRef()) {}

  Device device() const { return device_; }
  bool cpu() const { return device_ == Device::kCpu; }
  Stream stream() {
    return {.device = device_,
            .pool = cpu() ? &pool_ : nullptr,
            .cuda = cpu() ? nullptr : &context_,
            .workspace = &workspace_};
  }
  // The stream's work is done and the op answered OK.
  void Require(const absl::Status& status) const {
    INFO(status.ToString());
    REQUIRE(status.ok());
    Synchronize(device_);
  }

  template <typename T>
  DeviceBuffer Put(const std::vector<T>& values) const {
    return DeviceBuffer(device_, values);
  }
  StoredValues Put(DType dtype, const std::vector<float>& values) const {
    return StoredValues(device_, dtype, values);
  }

 private:
  static constexpr int64_t kScratchBytes = 64 << 20;

  base::MemoryRef ScratchRef() const {
    return {.data = scratch_.get(),
            .bytes = kScratchBytes,
            .space = cpu() ? base::MemorySpace::kHost : base::MemorySpace::kCuda};
  }

  Device device_;
  ThreadPool pool_{3};
  CudaContext context_;
  DeviceBuffer scratch_;
  Workspace workspace_;
};

// Values further than `tolerance` of `scale` from the reference; a NaN is.
inline int CountOff(const std::vector<float>& got, const std::vector<double>& want,
                    double tolerance) {
  REQUIRE(got.size() == want.size());
  double scale = 0;
  for (double value : want) scale = std::max(scale, std::abs(value));
  int off = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    off += !(std::abs(got[i] - want[i]) <= tolerance * scale + 1e-30);
  }
  return off;
}

// Half a unit in the last place of the stored type, in parts of the value.
inline double Rounding(DType dtype) { return dtype == DType::kFloat32 ? 1e-7 : 1.0 / 256; }

}  // namespace triptych::kernels
