#include "models/processor/resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace triptych::models {
namespace {

constexpr int kMaxRatio = 200;
constexpr int kChannels = 3;

// One output pixel: sum over k of weights[first_weight + k] * input[begin + k], for k < count.
struct Taps {
  int begin = 0;
  int count = 0;
  size_t first_weight = 0;
};

struct Kernel {
  std::vector<Taps> taps;        // [output length]
  std::vector<int32_t> weights;  // fixed point, `precision` fractional bits
  int precision = 0;
};

double Cubic(double x) {
  constexpr double kA = -0.5;
  x = std::abs(x);
  if (x < 1) return ((kA + 2) * x - (kA + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0;
}

// Most fractional bits with which the largest weight still fits 16 bits, at most 22.
int PrecisionFor(double largest) {
  int precision = 0;
  while (precision < 22 && 0.5 + largest * (1 << (precision + 1)) < (1 << 15)) ++precision;
  return precision;
}

Kernel MakeKernel(int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double stretch = std::max(1.0, scale);
  const double support = 2.0 * stretch;
  Kernel kernel;
  std::vector<double> weights;
  double largest = 0;
  for (int i = 0; i < out; ++i) {
    const double center = scale * (i + 0.5);
    const int begin = std::max(static_cast<int>(center - support + 0.5), 0);
    const int end = std::min(static_cast<int>(center + support + 0.5), in);
    kernel.taps.push_back({begin, end - begin, weights.size()});
    double sum = 0;
    for (int k = begin; k < end; ++k) {
      weights.push_back(Cubic((k - center + 0.5) / stretch));
      sum += weights.back();
    }
    for (size_t w = kernel.taps.back().first_weight; w < weights.size(); ++w) {
      weights[w] /= sum;
      largest = std::max(largest, weights[w]);
    }
  }
  kernel.precision = PrecisionFor(largest);
  for (const double weight : weights) {
    const double fixed = weight * (1 << kernel.precision);
    kernel.weights.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
  }
  return kernel;
}

uint8_t RoundToByte(int32_t sum, int precision) {
  return static_cast<uint8_t>(std::clamp(sum >> precision, 0, 255));
}

base::Image ResizeWidth(const base::Image& image, int width) {
  const Kernel kernel = MakeKernel(image.width, width);
  base::Image result{width, image.height, {}};
  result.pixels.resize(size_t{kChannels} * width * image.height);
  uint8_t* out = result.pixels.data();
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* row = image.pixels.data() + size_t{kChannels} * y * image.width;
    for (const Taps& taps : kernel.taps) {
      const uint8_t* in = row + size_t{kChannels} * taps.begin;
      const int32_t* weights = kernel.weights.data() + taps.first_weight;
      const int32_t half = (1 << kernel.precision) >> 1;
      int32_t red = half, green = half, blue = half;
      for (int k = 0; k < taps.count; ++k, in += kChannels) {
        red += weights[k] * in[0];
        green += weights[k] * in[1];
        blue += weights[k] * in[2];
      }
      *out++ = RoundToByte(red, kernel.precision);
      *out++ = RoundToByte(green, kernel.precision);
      *out++ = RoundToByte(blue, kernel.precision);
    }
  }
  return result;
}

base::Image ResizeHeight(const base::Image& image, int height) {
  const Kernel kernel = MakeKernel(image.height, height);
  const size_t row_size = size_t{kChannels} * image.width;
  base::Image result{image.width, height, {}};
  result.pixels.resize(row_size * height);
  std::vector<int32_t> sums(row_size);
  uint8_t* out = result.pixels.data();
  for (const Taps& taps : kernel.taps) {
    std::fill(sums.begin(), sums.end(), (1 << kernel.precision) >> 1);
    for (int k = 0; k < taps.count; ++k) {
      const int32_t weight = kernel.weights[taps.first_weight + static_cast<size_t>(k)];
      const uint8_t* in = image.pixels.data() + row_size * (taps.begin + k);
      int32_t* sum = sums.data();
      for (size_t i = 0; i < row_size; ++i) sum[i] += weight * in[i];
    }
    for (size_t i = 0; i < row_size; ++i) out[i] = RoundToByte(sums[i], kernel.precision);
    out += row_size;
  }
  return result;
}

}  // namespace

absl::StatusOr<Size> SmartResize(Size size, int factor, int64_t min_pixels, int64_t max_pixels) {
  const int longer = std::max(size.width, size.height);
  const int shorter = std::min(size.width, size.height);
  if (shorter <= 0 || longer > int64_t{kMaxRatio} * shorter) {
    return absl::InvalidArgumentError(absl::StrCat("a picture of ", size.width, "x", size.height,
                                                   " pixels, sides of at most ", kMaxRatio,
                                                   " to 1 are allowed"));
  }
  const double width = size.width, height = size.height;
  // Rounds halves to even, as the reference does.
  double new_width = std::nearbyint(width / factor) * factor;
  double new_height = std::nearbyint(height / factor) * factor;
  if (new_width * new_height > static_cast<double>(max_pixels)) {
    const double shrink = std::sqrt(width * height / static_cast<double>(max_pixels));
    new_width = std::max<double>(factor, std::floor(width / shrink / factor) * factor);
    new_height = std::max<double>(factor, std::floor(height / shrink / factor) * factor);
  } else if (new_width * new_height < static_cast<double>(min_pixels)) {
    const double grow = std::sqrt(static_cast<double>(min_pixels) / (width * height));
    new_width = std::ceil(width * grow / factor) * factor;
    new_height = std::ceil(height * grow / factor) * factor;
  }
  return Size{static_cast<int>(new_width), static_cast<int>(new_height)};
}

base::Image ResizeBicubic(const base::Image& image, Size size) {
  CHECK_TRUE(image.width > 0 && image.height > 0 && size.width > 0 && size.height > 0);
  if (size.width == image.width) {
    return size.height == image.height ? image : ResizeHeight(image, size.height);
  }
  base::Image wide = ResizeWidth(image, size.width);
  return size.height == image.height ? wide : ResizeHeight(wide, size.height);
}

}  // namespace triptych::models
