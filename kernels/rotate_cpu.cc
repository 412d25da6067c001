#include <algorithm>

#include "kernels/rotate.h"
#include "kernels/rotate_pairs.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

constexpr int64_t kTokensPerSlice = 32;

template <typename T>
void RotateTokens(const RotateArgs& args, int64_t begin, int64_t end) {
  const int half = args.head_dim / 2;
  for (int64_t token = begin; token < end; ++token) {
    T* x = static_cast<T*>(args.x) + token * args.x_stride;
    RotatePairs(x, args.cosines + token * half, args.sines + token * half, args.heads,
                args.head_dim, x);
  }
}

}  // namespace

void internal::RotateCpu(const RotateArgs& args, ThreadPool* pool) {
  const auto run = args.dtype == DType::kFloat32 ? RotateTokens<float> : RotateTokens<BFloat16>;
  ParallelFor(pool, (args.tokens + kTokensPerSlice - 1) / kTokensPerSlice, [&](int64_t slice) {
    run(args, slice * kTokensPerSlice, std::min(args.tokens, (slice + 1) * kTokensPerSlice));
  });
}

}  // namespace triptych::kernels
