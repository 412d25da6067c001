#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cpu_math.h"
#include "kernels/sampling.h"

namespace triptych::kernels {
namespace {

std::vector<float> Weights(absl::Span<const float> logits, float max, float temperature) {
  std::vector<float> weights(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = (logits[i] - max) / temperature;
  BestCpuMath().exp(weights.data(), weights.size(), weights.data());
  return weights;
}

// The `count` best ids by value, ties to the lower id.
std::vector<int32_t> Best(absl::Span<const float> values, size_t count) {
  std::vector<int32_t> ids(values.size());
  std::iota(ids.begin(), ids.end(), 0);
  count = std::min(count, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + count, ids.end(), [&](int32_t a, int32_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  });
  ids.resize(count);
  return ids;
}

int32_t Draw(absl::Span<const float> logits, float max, const SampleArgs& args) {
  const std::vector<float> weights = Weights(logits, max, args.temperature);
  const size_t keep = args.top_k > 0 ? args.top_k : weights.size();
  std::vector<int32_t> ids = Best(weights, keep);
  double total = 0;
  for (int32_t id : ids) total += weights[id];
  if (args.top_p < 1) {
    double sum = 0;
    size_t kept = 0;
    while (kept < ids.size() && sum < args.top_p * total) sum += weights[ids[kept++]];
    ids.resize(std::max<size_t>(kept, 1));
    total = kept == 0 ? weights[ids[0]] : sum;
  }
  double left = PhiloxUniform(args.seed, args.index) * total;
  for (int32_t id : ids) {
    left -= weights[id];
    if (left < 0) return id;
  }
  return ids[0];
}

}  // namespace

int32_t ArgMax(absl::Span<const float> values) {
  return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

float PhiloxUniform(uint64_t seed, uint64_t index) {
  uint32_t c[4] = {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * c[0], b = uint64_t{0xCD9E8D57} * c[2];
    const uint32_t next[4] = {
        static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(b),
        static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(a)};
    std::copy(next, next + 4, c);
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return static_cast<float>(c[0] >> 8) * 0x1p-24f;
}

Sample SampleToken(absl::Span<const float> logits, const SampleArgs& args) {
  Sample sample;
  for (float logit : logits) sample.finite = sample.finite && std::isfinite(logit);
  if (!sample.finite) return sample;
  const int32_t best = ArgMax(logits);
  sample.token = args.temperature > 0 ? Draw(logits, logits[best], args) : best;
  if (args.top_logprobs < 0) return sample;
  const std::vector<float> weights = Weights(logits, logits[best], 1);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  const float log_total = logits[best] + static_cast<float>(std::log(sum));
  sample.logprob = logits[sample.token] - log_total;
  for (int32_t id : Best(logits, args.top_logprobs)) {
    sample.top.push_back({id, logits[id] - log_total});
  }
  return sample;
}

}  // namespace triptych::kernels
