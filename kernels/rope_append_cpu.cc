#include <algorithm>

#include "kernels/rope_append.h"
#include "kernels/rope_append_angle.h"
#include "kernels/storage_types.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

constexpr int64_t kTokensPerTask = 8;

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

// Rotates `heads` heads that follow each other; `to` may be `from`.
template <typename From, typename To>
void Rotate(const From* from, const Rotation& rotation, int heads, int head_dim, To* to) {
  const int half = head_dim / 2;
  for (int h = 0; h < heads; ++h, from += head_dim, to += head_dim) {
    int i = 0;
    for (; i + 4 <= half; i += 4) {
      const Float4 a = Load4(from + i);
      const Float4 b = Load4(from + half + i);
      const Float4 cosine = Load4(rotation.cosine + i);
      const Float4 sine = Load4(rotation.sine + i);
      Store4(a * cosine - b * sine, to + i);
      Store4(b * cosine + a * sine, to + half + i);
    }
    for (; i < half; ++i) {
      const float a = ToFloat(from[i]);
      const float b = ToFloat(from[half + i]);
      StoreFloat(a * rotation.cosine[i] - b * rotation.sine[i], to + i);
      StoreFloat(b * rotation.cosine[i] + a * rotation.sine[i], to + half + i);
    }
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
      Rotate(q, rotation, args.heads, layout.head_dim, q);
    }
    const int32_t slot = args.slots[t];
    if (slot < 0) continue;
    Stored* key = static_cast<Stored*>(args.pages) +
                  layout.KeyOffset(slot / layout.block_tokens, slot % layout.block_tokens);
    Rotate(static_cast<const Activation*>(args.k) + t * args.k_stride, rotation, layout.kv_heads,
           layout.head_dim, key);
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
  ParallelFor(pool, (args.tokens + kTokensPerTask - 1) / kTokensPerTask, [&](int64_t task) {
    run(args, task * kTokensPerTask, std::min(args.tokens, (task + 1) * kTokensPerTask));
  });
}

}  // namespace triptych::kernels
