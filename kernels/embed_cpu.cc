#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/embed.h"
#include "kernels/storage_types.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

constexpr int64_t kTokensPerSlice = 16;

// A vector and its type; null: the input names nothing.
struct Source {
  const void* values = nullptr;
  DType dtype = DType::kFloat32;
};

const void* RowOf(const void* rows, int64_t row, int64_t stride, DType dtype) {
  return static_cast<const uint8_t*>(rows) + row * stride * SizeOf(dtype);
}

Source SourceOf(const EmbedArgs& args, int64_t input) {
  if (input <= -2) {
    const int64_t index = -2 - input;
    if (index >= args.sampled_size) return {};
    input = args.sampled[index];
    if (input >= args.vocab_size) return {};
  }
  if (input < 0 || input >= args.vocab_size + args.pool_slots) return {};
  if (input < args.vocab_size) {
    return {RowOf(args.table, input, args.width, args.table_dtype), args.table_dtype};
  }
  return {RowOf(args.pool, input - args.vocab_size, args.pool_stride, args.pool_dtype),
          args.pool_dtype};
}

template <typename From, typename To>
void Copy(const void* from, int64_t n, void* to) {
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(to, from, n * sizeof(To));
  } else {
    const auto* in = static_cast<const From*>(from);
    auto* out = static_cast<To*>(to);
    for (int64_t i = 0; i < n; ++i) StoreFloat(ToFloat(in[i]), out + i);
  }
}

template <typename From>
void CopyTo(DType to, const void* from, int64_t n, void* out) {
  to == DType::kFloat32 ? Copy<From, float>(from, n, out) : Copy<From, BFloat16>(from, n, out);
}

void EmbedToken(const EmbedArgs& args, int64_t token) {
  const Source source = SourceOf(args, args.inputs[token]);
  const int64_t bytes = args.width * SizeOf(args.dtype);
  uint8_t* out = static_cast<uint8_t*>(args.out) + token * bytes;
  if (source.values == nullptr) {
    std::memset(out, 0, bytes);
    if (args.errors != nullptr) {
      std::atomic_ref<int32_t>(args.errors[args.row_of_token[token]]).store(1);
    }
  } else if (source.dtype == DType::kFloat32) {
    CopyTo<float>(args.dtype, source.values, args.width, out);
  } else {
    CopyTo<BFloat16>(args.dtype, source.values, args.width, out);
  }
}

}  // namespace

void internal::EmbedCpu(const EmbedArgs& args, ThreadPool* pool) {
  ParallelFor(pool, (args.tokens + kTokensPerSlice - 1) / kTokensPerSlice, [&](int64_t slice) {
    const int64_t end = std::min(args.tokens, (slice + 1) * kTokensPerSlice);
    for (int64_t token = slice * kTokensPerSlice; token < end; ++token) EmbedToken(args, token);
  });
}

}  // namespace triptych::kernels
