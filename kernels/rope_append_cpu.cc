#include <algorithm>

#include "kernels/rope_append.h"
#include "kernels/rope_append_angle.h"
#include "kernels/rotate_pairs.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

constexpr int64_t kTokensPerSlice = 8;

// The rotation of one token: one (cosine, sine) a frequency.
struct Rotation {
  float cosine[kMaxRopeHeadDim / 2];
  float sine[kMaxRopeHeadDim / 2];
};

void RotationOf(const RopeAppendArgs& args, int64_t token, Rotation* rotation) {
  const RopeTable& table = *args.table;
  float position[3];
  for (int axis = 0; axis < 3; ++axis) {
    position[axis] = static_cast<float>(args.positions[axis * args.positions_stride + token]);
  }
  for (int i = 0; i < table.head_dim / 2; ++i) {
    const SineCosine value = RopeSineCosine(position[table.axis[i]] * table.inv_freq[i]);
    rotation->cosine[i] = value.cosine;
    rotation->sine[i] = value.sine;
  }
}

template <typename From, typename To>
void Convert(const From* from, int64_t count, To* to) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) Store4(Load4(from + i), to + i);
  for (; i < count; ++i) StoreFloat(ToFloat(from[i]), to + i);
}

template <typename Activation, typename Stored>
void RotateAndStore(const RopeAppendArgs& args, int64_t begin, int64_t end) {
  const KvLayout& layout = args.layout;
  Rotation rotation;
  for (int64_t t = begin; t < end; ++t) {
    RotationOf(args, t, &rotation);
    if (args.heads > 0) {
      Activation* q = static_cast<Activation*>(args.q) + t * args.q_stride;
      RotatePairs(q, rotation.cosine, rotation.sine, args.heads, layout.head_dim, q);
    }
    const Activation* k = static_cast<const Activation*>(args.k) + t * args.k_stride;
    const int32_t slot = args.slots[t];
    Stored* key =
        static_cast<Stored*>(args.pages) +
        (slot < 0 ? 0 : layout.KeyOffset(slot / layout.block_tokens, slot % layout.block_tokens));
    if (slot >= 0) {
      RotatePairs(k, rotation.cosine, rotation.sine, layout.kv_heads, layout.head_dim, key);
    }
    if (args.rotated_k != nullptr) {
      RotatePairs(k, rotation.cosine, rotation.sine, layout.kv_heads, layout.head_dim,
                  static_cast<Activation*>(args.rotated_k) + t * args.k_stride);
    }
    if (slot < 0) continue;
    Convert(static_cast<const Activation*>(args.v) + t * args.v_stride, layout.token_elements(),
            key + layout.half_block_elements());
  }
}

template <typename Activation>
auto RotateAndStoreInto(DType stored) {
  return stored == DType::kFloat32 ? RotateAndStore<Activation, float>
                                   : RotateAndStore<Activation, BFloat16>;
}

}  // namespace

void internal::RopeAppendCpu(const RopeAppendArgs& args, ThreadPool* pool) {
  const auto run = args.dtype == DType::kFloat32 ? RotateAndStoreInto<float>(args.layout.dtype)
                                                 : RotateAndStoreInto<BFloat16>(args.layout.dtype);
  ParallelFor(pool, (args.tokens + kTokensPerSlice - 1) / kTokensPerSlice, [&](int64_t slice) {
    run(args, slice * kTokensPerSlice, std::min(args.tokens, (slice + 1) * kTokensPerSlice));
  });
}

}  // namespace triptych::kernels
