#pragma once

// The buffers that one thread needs to attend a slice, grown and kept. For the CPU sides of
// attention alone.

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu_math.h"
#include "kernels/storage_types.h"

namespace triptych::kernels::internal {

struct AttentionScratch {
  std::vector<float> queries, output, work;
  std::vector<int32_t> limits;
  std::vector<const void*> keys, values;

  void Prepare(int64_t rows, int head_dim, int64_t num_keys) {
    queries.resize(rows * head_dim);
    output.resize(rows * PaddedLanes(head_dim));
    work.resize(AttentionScratchFloats(rows, head_dim));
    limits.resize(rows);
    keys.resize(num_keys);
    values.resize(num_keys);
  }

  void Run(int rows, int head_dim, DType type) {
    BestCpuMath().attend({.queries = queries.data(),
                          .rows = rows,
                          .head_dim = head_dim,
                          .limits = limits.data(),
                          .keys = keys.data(),
                          .values = values.data(),
                          .num_keys = static_cast<int32_t>(keys.size()),
                          .type = type,
                          .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
                          .output = output.data(),
                          .scratch = work.data()});
  }

  // Query or output `row` against element `at` of an array of `type`.
  void LoadQuery(int64_t row, int head_dim, const void* from, int64_t at, DType type) {
    float* to = &queries[row * head_dim];
    if (type == DType::kFloat32) {
      std::memcpy(to, static_cast<const float*>(from) + at, head_dim * sizeof(float));
      return;
    }
    const BFloat16* narrow = static_cast<const BFloat16*>(from) + at;
    for (int i = 0; i < head_dim; ++i) to[i] = ToFloat(narrow[i]);
  }
  void StoreOutput(int64_t row, int head_dim, void* to, int64_t at, DType type) const {
    const float* from = &output[row * PaddedLanes(head_dim)];
    if (type == DType::kFloat32) {
      std::memcpy(static_cast<float*>(to) + at, from, head_dim * sizeof(float));
      return;
    }
    BFloat16* narrow = static_cast<BFloat16*>(to) + at;
    for (int i = 0; i < head_dim; ++i) StoreFloat(from[i], narrow + i);
  }
};

// One a thread. What it keeps is bounded by the longest sequence and kQueriesPerSlice.
inline AttentionScratch& ThreadAttentionScratch() {
  thread_local AttentionScratch scratch;
  return scratch;
}

}  // namespace triptych::kernels::internal
