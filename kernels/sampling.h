#pragma once

// Logits to one token. Random numbers come from Philox4x32-10 (Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3") keyed by (seed, index), so a redone step draws the same token.
// CPU only. Stateless; safe from any thread.

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace triptych::kernels {

struct SampleArgs {
  float temperature = 0;  // 0 is greedy: the likeliest token, ties to the lower id
  float top_p = 1;        // 1 switches the filter off
  int32_t top_k = 0;      // 0 switches the filter off
  uint64_t seed = 0;
  uint64_t index = 0;         // of the token in the answer
  int32_t top_logprobs = -1;  // -1 none, k >= 0: that of the token and of the k likeliest
};

struct Sample {
  bool finite = true;  // False: a logit was NaN or infinite; the rest is meaningless.
  int32_t token = 0;
  float logprob = 0;  // at temperature 1, over the whole vocabulary
  std::vector<std::pair<int32_t, float>> top;
};

// `logits` [vocabulary], at least one. Filters apply in the order temperature, top_k, top_p; the
// likeliest token always stays.
Sample SampleToken(absl::Span<const float> logits, const SampleArgs& args);

// Lowest index of the largest value.
int32_t ArgMax(absl::Span<const float> values);

// Uniform in [0, 1), 24 bits, a function of (seed, index) alone.
float PhiloxUniform(uint64_t seed, uint64_t index);

}  // namespace triptych::kernels
