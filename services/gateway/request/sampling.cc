#include "services/gateway/request/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

constexpr size_t kMaxBadWords = 64;
constexpr size_t kMaxBadWordBytes = 256;
// Each word may become two more, with and without a space before it.
constexpr size_t kMaxBiases = scheduler::kMaxTokenBiases - 2 * kMaxBadWords;

absl::Status Invalid(absl::string_view sentence) { return Refuse("invalid_request", sentence); }

struct Range {
  const char* name;
  double value;
  double low, high;
};

// Wide enough for any use; within them no logit of a model becomes infinite.
absl::Status CheckRanges(const ChatRequest& request) {
  const Range ranges[] = {
      {"temperature", request.temperature, 0, 100},
      {"min_p", request.min_p, 0, 1},
      {"repetition_penalty", request.repetition_penalty, 0.01, 100},
      {"presence_penalty", request.presence_penalty, -2, 2},
      {"frequency_penalty", request.frequency_penalty, -2, 2},
  };
  for (const auto& [name, value, low, high] : ranges) {
    if (std::isfinite(value) && value >= low && value <= high) continue;
    return At(name, Invalid(absl::StrCat(name, " is between ", low, " and ", high)));
  }
  if (!(request.top_p <= 1) || !(static_cast<float>(request.top_p) > 0)) {
    return At("top_p", Invalid("top_p is above 0 and at most 1"));
  }
  if (request.top_k < 0 || request.top_k > INT32_MAX) {
    return At("top_k", Invalid("top_k is at least 0"));
  }
  if (request.top_logprobs < -1 || request.top_logprobs > 20) {
    return At("top_logprobs", Invalid("top_logprobs is between 0 and 20"));
  }
  return absl::OkStatus();
}

// What is added to each token, a token once.
using Biases = absl::flat_hash_map<int32_t, float>;

absl::Status AddBiases(const ChatRequest& request, int32_t vocab_size, Biases* biases) {
  if (request.logit_bias.size() > kMaxBiases) {
    return Invalid(absl::StrCat("logit_bias has at most ", kMaxBiases, " tokens"));
  }
  for (const auto& [token, bias] : request.logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return Invalid(absl::StrCat("a token id is between 0 and ", vocab_size - 1));
    }
    if (!(bias >= -100 && bias <= 100)) return Invalid("a bias is between -100 and 100");
    if (!biases->emplace(static_cast<int32_t>(token), static_cast<float>(bias)).second) {
      return Invalid(absl::StrCat("logit_bias names token ", token, " twice"));
    }
  }
  return absl::OkStatus();
}

// A word at the beginning of a line and within one are different tokens.
absl::Status AddBadWords(const ChatRequest& request, const models::Tokenizer& tokenizer,
                         Biases* biases, std::vector<scheduler::TokenRun>* runs) {
  if (request.bad_words.size() > kMaxBadWords) {
    return Invalid(absl::StrCat("there are at most ", kMaxBadWords, " bad words"));
  }
  for (const std::string& word : request.bad_words) {
    if (word.empty() || word.size() > kMaxBadWordBytes) {
      return Invalid(absl::StrCat("a bad word has between 1 and ", kMaxBadWordBytes, " bytes"));
    }
    const absl::string_view bare = absl::StripPrefix(word, " ");
    for (const std::string& spelled : {std::string(bare), absl::StrCat(" ", bare)}) {
      std::vector<int32_t> ids = tokenizer.Encode(spelled);
      if (ids.size() == 1) {
        biases->insert_or_assign(ids[0], -std::numeric_limits<float>::infinity());
      } else if (!ids.empty()) {
        runs->push_back({std::move(ids)});
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SetSampling(const ChatRequest& request, const ServedModel& model,
                         scheduler::PulledInput* input) {
  RETURN_IF_ERROR(CheckRanges(request));
  Biases biases;
  const absl::Status added = AddBiases(request, model.config().vocab_size, &biases);
  if (!added.ok()) return At("logit_bias", added);
  const absl::Status words = AddBadWords(request, model.tokenizer(), &biases, &input->bad_words);
  if (!words.ok()) return At("bad_words", words);
  scheduler::SamplingParams& params = input->sampling;
  params = {.temperature = static_cast<float>(request.temperature),
            .top_p = static_cast<float>(request.top_p),
            .top_k = static_cast<int32_t>(request.top_k),
            .seed = request.seed.value_or(0),
            .top_logprobs = static_cast<int32_t>(request.top_logprobs),
            .min_p = static_cast<float>(request.min_p),
            .repetition_penalty = static_cast<float>(request.repetition_penalty),
            .presence_penalty = static_cast<float>(request.presence_penalty),
            .frequency_penalty = static_cast<float>(request.frequency_penalty)};
  for (const auto& [token, bias] : biases) params.biases.push_back({token, bias});
  std::sort(params.biases.begin(), params.biases.end(),
            [](const auto& a, const auto& b) { return a.token < b.token; });
  return absl::OkStatus();
}

}  // namespace triptych::services
