// What is defended: a draw depends on (seed, index) alone, filters keep what they promise, ties go
// to the lower id, and logits that are not finite are reported.

#include "kernels/sampling.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

namespace triptych::kernels {

TEST_CASE("SampleToken: greedy takes the lowest id of the largest logit", "[kernels][sampling]") {
  const std::vector<float> logits = {1, 3, 3, 2};
  const Sample sample = SampleToken(logits, {.top_logprobs = 2});
  CHECK(sample.token == 1);
  REQUIRE(sample.top.size() == 2);
  CHECK(sample.top[0].first == 1);
  CHECK(sample.top[1].first == 2);
  const double total = std::exp(1.0) + 2 * std::exp(3.0) + std::exp(2.0);
  CHECK(sample.logprob == Approx(3 - std::log(total)).epsilon(1e-5));
}

TEST_CASE("SampleToken: the same seed and index draw the same, and shares follow the weights",
          "[kernels][sampling]") {
  const std::vector<float> logits = {0, std::log(3.0f)};
  int ones = 0;
  for (uint64_t i = 0; i < 4000; ++i) {
    const SampleArgs args{.temperature = 1, .seed = 5, .index = i};
    const int32_t token = SampleToken(logits, args).token;
    CHECK(token == SampleToken(logits, args).token);
    ones += token;
  }
  CHECK(ones == Approx(3000).margin(120));
}

TEST_CASE("SampleToken: top_k and top_p keep the likeliest alone", "[kernels][sampling]") {
  const std::vector<float> logits = {0.5f, 1.0f, 0.9f, -2.0f};
  for (uint64_t i = 0; i < 200; ++i) {
    CHECK(SampleToken(logits, {.temperature = 2, .top_k = 1, .seed = 1, .index = i}).token == 1);
    CHECK(SampleToken(logits, {.temperature = 2, .top_p = 0.01f, .seed = 1, .index = i}).token ==
          1);
    CHECK(SampleToken(logits, {.temperature = 5, .top_k = 3, .seed = 1, .index = i}).token != 3);
  }
}

TEST_CASE("SampleToken: logits that are not finite are reported", "[kernels][sampling]") {
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    CHECK_FALSE(SampleToken(std::vector<float>{0, bad}, {}).finite);
  }
}

}  // namespace triptych::kernels
