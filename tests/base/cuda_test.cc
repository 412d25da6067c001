// What owns CUDA's things without a device: errors are statuses that say what was asked for.
// With one: copies go where they should, events order streams, and memory too large is refused.

#include "base/cuda.h"

#include <catch2/catch.hpp>
#include <cstring>

#include "base/check.h"
#include "tests/support/skip.h"

namespace triptych::base {
namespace {

TEST_CASE("CudaStatus: a failure says what failed and keeps its kind", "[base][cuda]") {
  CHECK(CudaStatus(0, "nothing").ok());
  const absl::Status no_memory = CudaStatus(2, "12 bytes");
  CHECK(no_memory.code() == absl::StatusCode::kResourceExhausted);
  CHECK(std::string(no_memory.message()).find("12 bytes") == 0);
  CHECK(CudaStatus(700, "step").code() == absl::StatusCode::kInternal);
}

TEST_CASE("Cuda: bytes go to the device and back, in the order of events", "[base][cuda][gpu]") {
  if (!DescribeCudaDevice(0).ok()) return testing::SkipTest("no CUDA device");
  auto out = CudaStream::Create(CudaPriority::kHigh);
  auto in = CudaStream::Create(CudaPriority::kLow);
  auto copied = CudaEvent::Create(CudaTiming::kOff);
  auto device = DeviceMemory::Allocate(0, 1 << 20);
  auto from = PinnedMemory::Allocate(1 << 20);
  auto to = PinnedMemory::Allocate(1 << 20);
  REQUIRE((out.ok() && in.ok() && copied.ok() && device.ok() && from.ok() && to.ok()));
  const auto bytes = from->ref().HostBytes();
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 256);
  CHECK_OK(out->Copy(device->ref(), from->ref()));
  CHECK_OK(copied->Record(out->get()));
  CHECK_OK(in->Wait(*copied));
  CHECK_OK(in->Copy(to->ref(), device->ref()));
  CHECK_OK(in->Synchronize());
  CHECK(std::memcmp(from->ref().data, to->ref().data, 1 << 20) == 0);
}

TEST_CASE("DeviceMemory: what no device has is refused", "[base][cuda][gpu]") {
  if (!DescribeCudaDevice(0).ok()) return testing::SkipTest("no CUDA device");
  const auto memory = DeviceMemory::Allocate(0, int64_t{1} << 45);
  CHECK(memory.status().code() == absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace triptych::base
