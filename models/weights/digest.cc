#include "models/weights/digest.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"

namespace triptych::models {
namespace {

// The second half finds a slice in the cache that the first has just read.
constexpr size_t kSlice = size_t{256} << 10;

}  // namespace

void Digest::Add(absl::string_view label, absl::Span<const char> bytes, kernels::ThreadPool* pool) {
  const size_t slices = (bytes.size() + kSlice - 1) / kSlice;
  std::vector<uint64_t> sums(2 * slices);
  kernels::ParallelFor(pool, static_cast<int64_t>(slices), [&](int64_t i) {
    const auto slice = static_cast<size_t>(i);
    const absl::Span<const char> part = bytes.subspan(slice * kSlice, kSlice);
    for (size_t half = 0; half < 2; ++half) {
      sums[half * slices + slice] = base::Checksum64(part.data(), part.size(), half);
    }
  });
  for (size_t half = 0; half < 2; ++half) {
    halves_[half] = base::Checksum64(label.data(), label.size(), halves_[half]);
    halves_[half] =
        base::Checksum64(&sums[half * slices], slices * sizeof(uint64_t), halves_[half]);
  }
}

std::string Digest::Hex() const {
  return absl::StrCat(absl::Hex(halves_[0], absl::kZeroPad16),
                      absl::Hex(halves_[1], absl::kZeroPad16));
}

}  // namespace triptych::models
