#include "models/weights/dummy_weights.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/bfloat16.h"
#include "base/checksum.h"

namespace triptych::models {
namespace {

constexpr int64_t kSlice = 1 << 16;  // elements that one thread draws at a time

struct Spread {
  float centre = 0, reach = 0;
};

Spread SpreadOf(absl::string_view name, absl::Span<const int64_t> shape) {
  if (shape.size() > 1) {
    int64_t inputs = 1;
    for (int64_t width : shape.subspan(1)) inputs *= width;
    return {0, std::sqrt(3.0f / static_cast<float>(inputs))};
  }
  if (absl::EndsWith(name, ".bias")) return {0, 0.02f};
  return {1, 0.1f};
}

// Four elements from each 64 random bits, so that a value depends on its index alone.
void Draw(uint64_t key, const Spread& spread, int64_t begin, int64_t end, uint16_t* out) {
  for (int64_t i = begin; i < end; i += 4) {
    const uint64_t bits = base::MixBits(key + 0x9e3779b97f4a7c15ULL * static_cast<uint64_t>(i / 4));
    for (int64_t j = i; j < std::min(i + 4, end); ++j) {
      const auto word = static_cast<int16_t>(bits >> (16 * (j - i)));
      const float value = spread.centre + spread.reach * static_cast<float>(word) / 32768.0f;
      out[j] = base::ToBFloat16(value).bits;
    }
  }
}

}  // namespace

absl::StatusOr<TensorView> DummyWeights::Get(absl::string_view name,
                                             absl::Span<const int64_t> expected_shape) const {
  int64_t count = 1;
  for (int64_t width : expected_shape) count *= width;
  if (expected_shape.empty() || count < 1) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' has no elements"));
  }
  const std::shared_ptr<uint16_t[]> values(new uint16_t[static_cast<size_t>(count)]);
  const uint64_t key = base::Checksum64(name.data(), name.size(), seed_);
  const Spread spread = SpreadOf(name, expected_shape);
  kernels::ParallelFor(pool_.get(), (count + kSlice - 1) / kSlice, [&](int64_t slice) {
    Draw(key, spread, slice * kSlice, std::min(count, (slice + 1) * kSlice), values.get());
  });
  return TensorView{.dtype = TensorType::kBFloat16,
                    .shape = {expected_shape.begin(), expected_shape.end()},
                    .bytes = values.get(),
                    .size_bytes = 2 * count,
                    .owner = values};
}

std::string DummyWeights::Digest(int) const {
  return absl::StrCat("dummy-weights-of", absl::Hex(seed_, absl::kZeroPad16));
}

}  // namespace triptych::models
