#include <algorithm>
#include <cstring>

#include "kernels/move_rows.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

constexpr int64_t kBytesPerSlice = 64 << 10;

void MoveRow(const MoveRowsArgs& args, internal::MoveRowsDirection direction, int64_t row) {
  const int64_t size = SizeOf(args.dtype), bytes = args.width * size;
  const int64_t index = args.indices[row];
  const bool inside = index >= 0 && index < args.indexed_rows;
  const auto* x = static_cast<const uint8_t*>(args.x);
  auto* out = static_cast<uint8_t*>(args.out);
  if (direction == internal::MoveRowsDirection::kScatter) {
    if (inside)
      std::memcpy(out + index * args.out_stride * size, x + row * args.x_stride * size, bytes);
    return;
  }
  uint8_t* to = out + row * args.out_stride * size;
  if (inside) {
    std::memcpy(to, x + index * args.x_stride * size, bytes);
  } else {
    std::memset(to, 0, bytes);
  }
}

}  // namespace

void internal::MoveRowsCpu(const MoveRowsArgs& args, MoveRowsDirection direction,
                           ThreadPool* pool) {
  const int64_t step = std::max<int64_t>(1, kBytesPerSlice / (args.width * SizeOf(args.dtype)));
  ParallelFor(pool, (args.rows + step - 1) / step, [&](int64_t slice) {
    const int64_t end = std::min(args.rows, (slice + 1) * step);
    for (int64_t row = slice * step; row < end; ++row) MoveRow(args, direction, row);
  });
}

}  // namespace triptych::kernels
