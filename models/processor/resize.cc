#include "models/processor/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace triptych::models {
namespace {

constexpr int kMaxRatio = 200;
constexpr int kChannels = 3;

// One output pixel: sum over k of weight k * input[begin + k], for k < count. Weights come in
// pairs, the last of an odd count with 0: a pair of 16-bit products is one step of a processor.
struct Taps {
  int begin = 0;
  int count = 0;
  size_t first_pair = 0;
  size_t pairs = 0;
};

struct WeightPair {
  int16_t first = 0, second = 0;
};

struct Kernel {
  std::vector<Taps> taps;         // [output length]
  std::vector<WeightPair> pairs;  // fixed point, `precision` fractional bits
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

int16_t ToFixed(double weight, int precision) {
  const double fixed = weight * (1 << precision);
  return static_cast<int16_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
}

Kernel MakeKernel(int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double stretch = std::max(1.0, scale);
  const double support = 2.0 * stretch;
  Kernel kernel;
  std::vector<double> weights;  // an even number an output
  double largest = 0;
  for (int i = 0; i < out; ++i) {
    const double center = scale * (i + 0.5);
    const int begin = std::max(static_cast<int>(center - support + 0.5), 0);
    const int end = std::min(static_cast<int>(center + support + 0.5), in);
    const size_t first = weights.size();
    double sum = 0;
    for (int k = begin; k < end; ++k) {
      weights.push_back(Cubic((k - center + 0.5) / stretch));
      sum += weights.back();
    }
    for (size_t w = first; w < weights.size(); ++w) {
      weights[w] /= sum;
      largest = std::max(largest, weights[w]);
    }
    if (weights.size() % 2 != 0) weights.push_back(0);
    kernel.taps.push_back({begin, end - begin, first / 2, (weights.size() - first) / 2});
  }
  kernel.precision = PrecisionFor(largest);
  for (size_t w = 0; w < weights.size(); w += 2) {
    kernel.pairs.push_back(
        {ToFixed(weights[w], kernel.precision), ToFixed(weights[w + 1], kernel.precision)});
  }
  return kernel;
}

uint8_t RoundToByte(int32_t sum, int precision) {
  return static_cast<uint8_t>(std::clamp(sum >> precision, 0, 255));
}

#ifdef __SSE2__
__m128i Broadcast(const WeightPair& pair) {
  int32_t both = 0;
  std::memcpy(&both, &pair, sizeof(both));
  return _mm_set1_epi32(both);
}

__m128i LoadPixel(const uint8_t* from) {  // and the byte behind it
  int32_t pixel = 0;
  std::memcpy(&pixel, from, sizeof(pixel));
  return _mm_cvtsi32_si128(pixel);
}
#endif

// The row has room for two pixels behind its last one.
void WidthOfRow(const Kernel& kernel, const uint8_t* row, uint8_t* out) {
  const int32_t half = (1 << kernel.precision) >> 1;
  for (const Taps& taps : kernel.taps) {
    const uint8_t* in = row + size_t{kChannels} * taps.begin;
    const WeightPair* pair = kernel.pairs.data() + taps.first_pair;
#ifdef __SSE2__
    const __m128i zero = _mm_setzero_si128();
    __m128i sums = _mm_set1_epi32(half);
    for (size_t p = 0; p < taps.pairs; ++p, in += 2 * kChannels) {
      const __m128i pixels = _mm_unpacklo_epi8(LoadPixel(in), LoadPixel(in + kChannels));
      sums =
          _mm_add_epi32(sums, _mm_madd_epi16(_mm_unpacklo_epi8(pixels, zero), Broadcast(pair[p])));
    }
    sums = _mm_sra_epi32(sums, _mm_cvtsi32_si128(kernel.precision));
    sums = _mm_packs_epi32(sums, zero);
    const int32_t pixel = _mm_cvtsi128_si32(_mm_packus_epi16(sums, zero));
    std::memcpy(out, &pixel, kChannels);
    out += kChannels;
#else
    for (int channel = 0; channel < kChannels; ++channel) {
      int32_t sum = half;
      for (size_t p = 0; p < taps.pairs; ++p) {
        const uint8_t* both = in + 2 * kChannels * p + channel;
        sum += pair[p].first * both[0] + pair[p].second * both[kChannels];
      }
      *out++ = RoundToByte(sum, kernel.precision);
    }
#endif
  }
}

base::Image ResizeWidth(const base::Image& image, int width) {
  const Kernel kernel = MakeKernel(image.width, width);
  base::Image result{width, image.height, {}};
  result.pixels.resize(size_t{kChannels} * width * image.height);
  const size_t row_size = size_t{kChannels} * image.width;
  std::vector<uint8_t> row(row_size + 2 * kChannels);
  for (int y = 0; y < image.height; ++y) {
    std::memcpy(row.data(), image.pixels.data() + row_size * y, row_size);
    WidthOfRow(kernel, row.data(), result.pixels.data() + size_t{kChannels} * width * y);
  }
  return result;
}

// One row of the result, of `size` bytes.
void HeightOfRow(const Kernel& kernel, const Taps& taps, const uint8_t* first_row, size_t size,
                 uint8_t* out) {
  const WeightPair* pairs = kernel.pairs.data() + taps.first_pair;
  const int32_t half = (1 << kernel.precision) >> 1;
  // The second of the last pair may be no row: its weight is 0 then.
  const auto second_of = [&](size_t p) {
    return first_row + size * std::min<size_t>(2 * p + 1, static_cast<size_t>(taps.count) - 1);
  };
  size_t i = 0;
#ifdef __SSE2__
  const __m128i zero = _mm_setzero_si128();
  const __m128i shift = _mm_cvtsi32_si128(kernel.precision);
  for (; i + 16 <= size; i += 16) {
    __m128i sums[4];
    for (__m128i& sum : sums) sum = _mm_set1_epi32(half);
    for (size_t p = 0; p < taps.pairs; ++p) {
      const auto load = [i](const uint8_t* row) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i));
      };
      const __m128i a = load(first_row + size * 2 * p), b = load(second_of(p));
      const __m128i low = _mm_unpacklo_epi8(a, b), high = _mm_unpackhi_epi8(a, b);
      const __m128i weights = Broadcast(pairs[p]);
      const auto add = [&](__m128i* sum, __m128i bytes) {
        *sum = _mm_add_epi32(*sum, _mm_madd_epi16(bytes, weights));
      };
      add(&sums[0], _mm_unpacklo_epi8(low, zero));
      add(&sums[1], _mm_unpackhi_epi8(low, zero));
      add(&sums[2], _mm_unpacklo_epi8(high, zero));
      add(&sums[3], _mm_unpackhi_epi8(high, zero));
    }
    for (__m128i& sum : sums) sum = _mm_sra_epi32(sum, shift);
    const __m128i bytes =
        _mm_packus_epi16(_mm_packs_epi32(sums[0], sums[1]), _mm_packs_epi32(sums[2], sums[3]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), bytes);
  }
#endif
  for (; i < size; ++i) {
    int32_t sum = half;
    for (size_t p = 0; p < taps.pairs; ++p) {
      sum += pairs[p].first * first_row[size * 2 * p + i] + pairs[p].second * second_of(p)[i];
    }
    out[i] = RoundToByte(sum, kernel.precision);
  }
}

base::Image ResizeHeight(const base::Image& image, int height) {
  const Kernel kernel = MakeKernel(image.height, height);
  const size_t row_size = size_t{kChannels} * image.width;
  base::Image result{image.width, height, {}};
  result.pixels.resize(row_size * height);
  for (int y = 0; y < height; ++y) {
    const Taps& taps = kernel.taps[static_cast<size_t>(y)];
    HeightOfRow(kernel, taps, image.pixels.data() + row_size * taps.begin, row_size,
                result.pixels.data() + row_size * y);
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
