#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cpu_math.h"
#include "kernels/gumbel.h"
#include "kernels/sample.h"
#include "kernels/storage_types.h"
#include "kernels/thread_pool.h"

namespace triptych::kernels {
namespace {

constexpr float kGreedyBelow = 1e-5f;
constexpr int kGumbelBlock = 64;
constexpr float kForbidden = -std::numeric_limits<float>::infinity();

// Buffers of one thread, grown and kept: three floats an id.
struct Scratch {
  std::vector<float> logits, values, weights;
};

Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

// Ordered as the values are; -0 must have been turned into +0.
uint32_t KeyOf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

// 40 fractional bits: sums of a vocabulary's weights, each at most 1, stay far below 2^64.
uint64_t FixedPoint(float weight) { return static_cast<uint64_t>(weight * 0x1p40f); }

// --- Thresholds ------------------------------------------------------------------------------

// The smallest key of which the keys at or above `floor` and it weigh `target` or more together:
// digit by digit, from the top, by a histogram of each: no sort. `weight_of(i)` is a uint64, so
// sums have no order; `target` is at most the sum of all.
template <typename WeightOf>
uint32_t FindThreshold(absl::Span<const float> values, uint32_t floor, uint64_t target,
                       const WeightOf& weight_of) {
  constexpr int kDigitBits[] = {11, 11, 10};
  uint64_t sums[1 << 11];
  uint32_t prefix = 0;  // The digits found so far, as the top bits of a key.
  uint64_t above = 0;
  int shift = 32;
  for (const int bits : kDigitBits) {
    const uint32_t known = shift == 32 ? 0 : ~uint32_t{0} << shift;
    shift -= bits;
    const uint32_t mask = (1u << bits) - 1;
    std::fill_n(sums, mask + 1, uint64_t{0});
    for (size_t i = 0; i < values.size(); ++i) {
      const uint32_t key = KeyOf(values[i]);
      if (key >= floor && (key & known) == prefix) sums[(key >> shift) & mask] += weight_of(i);
    }
    uint32_t digit = mask;
    while (digit > 0 && above + sums[digit] < target) above += sums[digit--];
    prefix |= digit << shift;
  }
  return prefix;
}

// Keys below it are not kept. `weights` is filled where top_p or min_p needs it.
uint32_t KeepFrom(absl::Span<const float> values, const SampleRow& row, float largest, float scale,
                  std::vector<float>* weights) {
  uint32_t floor = KeyOf(kForbidden) + 1;
  const auto count = static_cast<int64_t>(values.size());
  if (row.top_k > 0 && row.top_k < count) {
    // Forbidden ids fill up what is short of top_k.
    const uint32_t found = FindThreshold(values, 0, row.top_k, [](size_t) { return uint64_t{1}; });
    floor = std::max(floor, found);
  }
  if (!(row.top_p < 1) && !(row.min_p > 0)) return floor;
  weights->resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) (*weights)[i] = (values[i] - largest) * scale;
  BestCpuMath().exp(weights->data(), count, weights->data());
  if (row.top_p < 1) {
    uint64_t total = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      if (KeyOf(values[i]) >= floor) total += FixedPoint((*weights)[i]);
    }
    const double share = std::max(0.0, double{row.top_p}) * static_cast<double>(total);
    const uint64_t target = std::clamp<uint64_t>(static_cast<uint64_t>(share), 1, total);
    floor = std::max(floor, FindThreshold(values, floor, target,
                                          [&](size_t i) { return FixedPoint((*weights)[i]); }));
  }
  return floor;
}

// --- One row ---------------------------------------------------------------------------------

// Where the largest value is; the lowest id of equal ones.
int32_t ArgMax(absl::Span<const float> values) {
  return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

int32_t Draw(absl::Span<const float> values, const SampleRow& row, int32_t best,
             std::vector<float>* weights) {
  const float largest = values[best], scale = 1.0f / row.temperature;
  const uint32_t floor = KeepFrom(values, row, largest, scale, weights);
  const auto count = static_cast<int32_t>(values.size());
  int32_t drawn = best;
  float best_score = kForbidden;
  float numbers[kGumbelBlock];
  for (int32_t first = 0; first < count; first += kGumbelBlock) {
    const int32_t end = std::min(count, first + kGumbelBlock);
    bool filled = false;
    for (int32_t id = first; id < end; ++id) {
      if (KeyOf(values[id]) < floor) continue;
      if (row.min_p > 0 && id != best && (*weights)[id] < row.min_p) continue;
      if (!filled) {
        BestCpuMath().gumbel(row.seed, row.index, static_cast<uint32_t>(first / kGumbelBlock),
                             numbers);
        filled = true;
      }
      const float score = std::fmaf(values[id] - largest, scale, numbers[id - first]);
      if (score > best_score) {
        best_score = score;
        drawn = id;
      }
    }
  }
  return drawn;
}

void Penalise(const SampleRow& row, const TokenCount& count, float* value) {
  if (count.in_answer > 0 || count.in_prompt > 0) {
    *value = *value > 0 ? *value / row.repetition_penalty : *value * row.repetition_penalty;
  }
  if (count.in_answer <= 0) return;
  *value -= row.presence_penalty;
  *value -= row.frequency_penalty * static_cast<float>(count.in_answer);
}

// The logits with penalties and biases; -0 becomes +0.
void MakeValues(const SampleArgs& args, const SampleRow& row, absl::Span<const float> logits,
                std::vector<float>* values) {
  values->resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) (*values)[i] = logits[i] + 0.0f;
  int32_t uncounted = -1;
  if (row.uncounted >= 0 && row.uncounted < args.sampled_size) {
    uncounted = args.sampled[row.uncounted];
  }
  bool counted = false;
  for (int32_t i = row.count_begin; i < row.count_end; ++i) {
    TokenCount count = args.counts[i];
    if (count.id < 0 || count.id >= args.vocab) continue;
    if (count.id == uncounted) {
      ++count.in_answer;
      counted = true;
    }
    Penalise(row, count, &(*values)[count.id]);
  }
  if (!counted && uncounted >= 0 && uncounted < args.vocab) {
    Penalise(row, {.id = uncounted, .in_answer = 1}, &(*values)[uncounted]);
  }
  for (int32_t i = row.bias_begin; i < row.bias_end; ++i) {
    const TokenBias& bias = args.biases[i];
    if (bias.id >= 0 && bias.id < args.vocab) (*values)[bias.id] += bias.bias;
  }
}

// Log probabilities at temperature 1 over the raw logits, of the drawn id and of the likeliest.
void AddLogprobs(absl::Span<const float> logits, const SampleRow& row, std::vector<float>* weights,
                 SampleResult* result) {
  const float largest = logits[ArgMax(logits)];
  weights->resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) (*weights)[i] = logits[i] - largest;
  BestCpuMath().exp(weights->data(), static_cast<int64_t>(weights->size()), weights->data());
  double sum = 0;
  for (float weight : *weights) sum += weight;
  const float log_total = largest + static_cast<float>(std::log(sum));
  result->logprob = logits[result->id] - log_total;
  const int most =
      std::min<int>({row.top_logprobs, kMaxTopLogprobs, static_cast<int>(logits.size())});
  // Insertion into the best so far, likeliest first, equal ones by id.
  int count = 0;
  for (size_t i = 0; i < logits.size() && most > 0; ++i) {
    if (count == most && !(logits[i] > logits[result->top_ids[count - 1]])) continue;
    int at = count < most ? count++ : count - 1;
    for (; at > 0 && logits[i] > logits[result->top_ids[at - 1]]; --at) {
      result->top_ids[at] = result->top_ids[at - 1];
    }
    result->top_ids[at] = static_cast<int32_t>(i);
  }
  result->top_count = count;
  for (int i = 0; i < count; ++i) {
    result->top_logprobs[i] = logits[result->top_ids[i]] - log_total;
  }
}

bool AllFinite(absl::Span<const float> logits) {
  uint32_t bad = 0;
  for (float logit : logits) {
    bad |= static_cast<uint32_t>((std::bit_cast<uint32_t>(logit) & 0x7f800000u) == 0x7f800000u);
  }
  return bad == 0;
}

absl::Span<const float> LogitsOf(const SampleArgs& args, int64_t row, std::vector<float>* widened) {
  const auto count = static_cast<size_t>(args.vocab);
  const int64_t at = row * args.logits_stride;
  if (args.dtype == DType::kFloat32) return {static_cast<const float*>(args.logits) + at, count};
  const BFloat16* from = static_cast<const BFloat16*>(args.logits) + at;
  widened->resize(count);
  for (size_t i = 0; i < count; ++i) (*widened)[i] = ToFloat(from[i]);
  return *widened;
}

SampleResult SampleOne(const SampleArgs& args, int64_t index) {
  const SampleRow& row = args.params[index];
  Scratch& scratch = ThreadScratch();
  const absl::Span<const float> logits = LogitsOf(args, index, &scratch.logits);
  SampleResult result{.error = 1};
  if (!AllFinite(logits)) return result;
  MakeValues(args, row, logits, &scratch.values);
  const int32_t best = ArgMax(scratch.values);
  // Forbidden altogether, or made not finite by its penalties.
  if (!std::isfinite(scratch.values[best])) return result;
  result.error = 0;
  result.id =
      row.temperature < kGreedyBelow ? best : Draw(scratch.values, row, best, &scratch.weights);
  if (row.top_logprobs >= 0) AddLogprobs(logits, row, &scratch.weights, &result);
  return result;
}

}  // namespace

void internal::SampleCpu(const SampleArgs& args, ThreadPool* pool) {
  ParallelFor(pool, args.rows, [&](int64_t row) {
    args.results[row] = SampleOne(args, row);
    if (args.ids != nullptr) args.ids[row] = args.results[row].id;
  });
}

}  // namespace triptych::kernels
