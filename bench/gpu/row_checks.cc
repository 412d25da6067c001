#include "bench/gpu/row_checks.h"

#include <algorithm>
#include <cmath>

namespace triptych::bench {
namespace {

constexpr int kSamples = 24;

// A place in [0, size), spread out, the first and last among them.
int64_t PlaceOf(int sample, int64_t size) { return (size - 1) * sample / (kSamples - 1); }

}  // namespace

double RelativeError(const std::vector<double>& expected, const std::vector<double>& got) {
  double largest = 0, distance = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    // Written so that a NaN counts.
    if (!(std::abs(expected[i] - got[i]) <= distance)) distance = std::abs(expected[i] - got[i]);
  }
  return distance / largest;
}

double GemmError(BenchDevice* device, const GemmArgs& args) {
  std::vector<double> expected, got;
  for (int i = 0; i < kSamples; ++i) {
    const int64_t row = PlaceOf(i, args.rows), column = PlaceOf((i * 7) % kSamples, args.outputs);
    const std::vector<double> x = device->Download(args.x, row * args.inputs, args.inputs);
    const std::vector<double> w = device->Download(args.weight, column * args.inputs, args.inputs);
    double sum = args.bias == nullptr ? 0 : device->Download(args.bias, column, 1)[0];
    for (int64_t k = 0; k < args.inputs; ++k) sum += x[k] * w[k];
    expected.push_back(sum);
    got.push_back(device->Download(args.y, row * args.outputs + column, 1)[0]);
  }
  return RelativeError(expected, got);
}

double SwiGluError(BenchDevice* device, const void* gate_up, const void* out, int64_t rows,
                   int64_t n) {
  std::vector<double> expected, got;
  for (int i = 0; i < kSamples; ++i) {
    const int64_t row = PlaceOf(i, rows), column = PlaceOf((i * 7) % kSamples, n);
    const double gate = device->Download(gate_up, row * 2 * n + column, 1)[0];
    const double up = device->Download(gate_up, row * 2 * n + n + column, 1)[0];
    expected.push_back(gate / (1 + std::exp(-gate)) * up);
    got.push_back(device->Download(out, row * n + column, 1)[0]);
  }
  return RelativeError(expected, got);
}

std::vector<double> Attend(const std::vector<double>& query,
                           const std::vector<std::vector<double>>& keys,
                           const std::vector<std::vector<double>>& values) {
  const double scale = 1 / std::sqrt(static_cast<double>(query.size()));
  std::vector<double> scores;
  for (const std::vector<double>& key : keys) {
    double score = 0;
    for (size_t i = 0; i < query.size(); ++i) score += query[i] * key[i];
    scores.push_back(score * scale);
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  std::vector<double> out(query.size(), 0);
  for (size_t j = 0; j < keys.size(); ++j) {
    const double weight = std::exp(scores[j] - largest);
    total += weight;
    for (size_t i = 0; i < out.size(); ++i) out[i] += weight * values[j][i];
  }
  for (double& value : out) value /= total;
  return out;
}

}  // namespace triptych::bench
