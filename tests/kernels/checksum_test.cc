// Defends that every device computes the sum that base/checksum.h defines.

#include "kernels/checksum.h"

#include "base/checksum.h"
#include "tests/kernels/on_device.h"

namespace triptych::kernels {
namespace {

TEMPLATE_TEST_CASE("Checksum: is the host's, for any size", "[kernels]", EVERY_DEVICE) {
  SKIP_WITHOUT(TestType);
  Bench bench(TestType::kDevice);
  std::mt19937 generator(3);
  for (int64_t size : {0, 1, 8, 4095, 4096, 4097, 262144, 262145, 3000001}) {
    INFO(size << " bytes");
    std::vector<uint8_t> bytes(size);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator());
    const DeviceBuffer data = bench.Put(bytes);
    const DeviceBuffer sum = bench.Put(std::vector<uint64_t>{0});
    bench.Require(Checksum({.data = data.get(), .bytes = size, .checksum = sum.as<uint64_t>()},
                           bench.stream()));
    CHECK(sum.Read<uint64_t>()[0] == base::Checksum64(bytes.data(), bytes.size()));
  }
}

TEST_CASE("Checksum: refuses what it cannot run", "[kernels]") {
  uint64_t sum = 0;
  CHECK(Checksum({.bytes = 1, .checksum = &sum}, {}).code() == absl::StatusCode::kInvalidArgument);
  CHECK(Checksum({.data = &sum, .bytes = 1}, {}).code() == absl::StatusCode::kInvalidArgument);
  CHECK(Checksum({.data = &sum, .bytes = -1, .checksum = &sum}, {}).code() ==
        absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace triptych::kernels
