#pragma once

// Logits to one token a row. A draw is the arg-max over the kept ids of
//   (value - largest value) * (1 / temperature) + Gumbel(seed, index, id)
// (gumbel.h; a float32 difference, then one fused multiply-add): distributed as the softmax over
// what is kept (Gumbel 1954, the "Gumbel-max trick"), needs no sort, and is the same whatever the
// batch, the device or the cut of the work. It depends on (seed, index) and the row's own logits
// alone, so a redone step draws the same token. Ties go to the lower id.
//
// Order: penalties, then biases give each id its value; temperature; top_k; top_p over what top_k
// left; min_p. top_k and top_p become thresholds on the value, found by histograms of its bits;
// ids that tie with the threshold all stay. The weight of an id is e^((value - largest) /
// temperature) as a fixed-point number of 40 fractional bits, so that sums have no order.
// Log probabilities are of the raw logits at temperature 1. Stateless; safe from any thread.

#include <cstdint>

#include "absl/status/status.h"
#include "base/dtype.h"
#include "kernels/stream.h"

namespace triptych::kernels {

using base::DType;

inline constexpr int kMaxTopLogprobs = 20;

// What one row asks. Plain data in the memory of the stream's device.
struct SampleRow {
  float temperature = 0;  // below 1e-5 greedy: the largest value, ties to the lower id
  float top_p = 1;        // 1 and above switch it off; the largest value always stays
  float min_p = 0;        // keeps weights of at least min_p times the largest; 0 is off
  // For ids that the prompt or the answer holds: a positive logit is divided by it, another
  // multiplied; 1 is off. Above 0.
  float repetition_penalty = 1;
  float presence_penalty = 0;   // subtracted once for each id that the answer holds
  float frequency_penalty = 0;  // subtracted for each time that the answer holds the id
  int32_t top_k = 0;            // 0 switches it off
  int32_t top_logprobs = -1;    // -1 none, k >= 0: of the token and of the k likeliest
  uint64_t seed = 0;
  uint64_t index = 0;  // of the token in the answer
  // Ranges of `biases` and `counts`; an id comes at most once in each.
  int32_t bias_begin = 0, bias_end = 0;
  int32_t count_begin = 0, count_end = 0;
  // Index in `sampled` of a token of the answer that an earlier step drew and that the counts do
  // not hold yet; -1 without.
  int32_t uncounted = -1;
  int32_t reserved = 0;
};

// Added to the value; -infinity forbids the id.
struct TokenBias {
  int32_t id = 0;
  float bias = 0;
};

// What the text so far holds of an id.
struct TokenCount {
  int32_t id = 0;
  int32_t in_answer = 0;  // times
  int32_t in_prompt = 0;  // 0 or 1
};

struct SampleResult {
  int32_t id = -1;  // -1: see error
  float logprob = 0;
  // 1: a logit was NaN or infinite, or every id is forbidden. The rest is meaningless then.
  int32_t error = 0;
  int32_t top_count = 0;  // of the arrays below: min(top_logprobs, vocab)
  int32_t top_ids[kMaxTopLogprobs] = {};
  float top_logprobs[kMaxTopLogprobs] = {};
};

// Pointers are borrowed and lie in the memory of the stream's device.
struct SampleArgs {
  const void* logits = nullptr;  // [rows, vocab]
  int64_t logits_stride = 0;     // elements from row to row; 0 stands for vocab
  int64_t rows = 0;
  int64_t vocab = 0;
  const SampleRow* params = nullptr;   // [rows]
  const TokenBias* biases = nullptr;   // of all rows
  const TokenCount* counts = nullptr;  // of all rows
  const int32_t* sampled = nullptr;    // what SampleRow::uncounted indexes
  int64_t sampled_size = 0;            // an index outside it counts nothing
  SampleResult* results = nullptr;     // [rows]
  int32_t* ids = nullptr;              // null, or [rows]: the same ids again, for embed.h
  DType dtype = DType::kFloat32;       // of logits
};

// Enqueues on a CUDA stream and does not synchronise; done on return on the CPU. Ids of biases and
// counts outside the vocabulary are ignored. InvalidArgument: a null pointer, a bad size or type.
// Unimplemented: CUDA in a build without it. Internal: the launch failed.
absl::Status Sample(const SampleArgs& args, const Stream& stream);

namespace internal {
// Checked arguments, strides filled in, rows > 0. The CUDA one answers a cudaError_t.
void SampleCpu(const SampleArgs& args, ThreadPool* pool);
int SampleCuda(const SampleArgs& args, const Stream& stream);
}  // namespace internal

}  // namespace triptych::kernels
