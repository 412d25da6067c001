#include "scheduler/cluster/admission.h"

#include <algorithm>

#include "scheduler/cluster/decode_binding.h"
#include "scheduler/cluster/encode_spreading.h"
#include "scheduler/cluster/placement.h"

namespace triptych::scheduler {
namespace {

// Far above any real request, far below an overflow of a sum over the queue.
constexpr int64_t kMostCost = int64_t{1} << 40;

bool IsSane(int64_t cost) { return cost >= 0 && cost <= kMostCost; }

absl::Status CheckNumbers(const SubmitRequest& submit) {
  bool sane = submit.prompt_tokens > 0 && submit.max_tokens >= 0 && submit.tokens_sent >= 0;
  int64_t item_tokens = 0;
  for (const ItemCost& item : submit.items) {
    sane = sane && IsSane(item.media_bytes) && IsSane(item.pixels) && IsSane(item.patches) &&
           item.num_tokens >= 0;
    item_tokens += item.num_tokens;
  }
  if (sane && item_tokens <= submit.prompt_tokens &&
      int64_t{submit.prompt_tokens} + submit.tokens_sent < (1 << 30)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError("request has impossible costs");
}

}  // namespace

QueueCost& QueueCost::operator+=(const QueueCost& other) {
  requests += other.requests;
  media_bytes += other.media_bytes;
  pixels += other.pixels;
  patches += other.patches;
  prefill_tokens += other.prefill_tokens;
  return *this;
}

QueueCost& QueueCost::operator-=(const QueueCost& other) {
  requests -= other.requests;
  media_bytes -= other.media_bytes;
  pixels -= other.pixels;
  patches -= other.patches;
  prefill_tokens -= other.prefill_tokens;
  return *this;
}

QueueCost CostOf(const SubmitRequest& submit) {
  QueueCost cost{.requests = 1, .prefill_tokens = submit.prompt_tokens + submit.tokens_sent};
  for (const ItemCost& item : submit.items) {
    cost.media_bytes += item.media_bytes;
    cost.pixels += item.pixels;
    cost.patches += item.patches;
  }
  return cost;
}

absl::Status CheckAdmission(const QueueCost& queued, const SubmitRequest& submit,
                            const QueueLimits& limits) {
  if (absl::Status numbers = CheckNumbers(submit); !numbers.ok()) return numbers;
  QueueCost sum = CostOf(submit);
  sum += queued;
  const char* full = nullptr;
  if (sum.requests > limits.requests) full = "too many requests are waiting";
  if (sum.media_bytes > limits.media_bytes) full = "too many media bytes are waiting";
  if (sum.pixels > limits.pixels) full = "too many pixels are waiting";
  if (sum.patches > limits.patches) full = "too many patches are waiting";
  if (sum.prefill_tokens > limits.prefill_tokens) full = "too many prompt tokens are waiting";
  return full == nullptr ? absl::OkStatus() : absl::ResourceExhaustedError(full);
}

absl::Status CheckSize(const ClusterView& view, const SubmitRequest& submit,
                       const ClusterConfig& config) {
  // A request that starts again takes what was sent as prompt, so a prefill worker too must hold it
  // all, but for the last token.
  const int32_t wanted = submit.open_ended ? 1 : submit.max_tokens;
  const int64_t longest =
      int64_t{submit.prompt_tokens} + std::max({wanted - 1, submit.tokens_sent, 0});
  const auto tokens = static_cast<int32_t>(std::min<int64_t>(longest, INT32_MAX - 1));
  const PrefillNeed prefill{.prompt_tokens = tokens, .items = submit.items};
  for (const ItemCost& item : submit.items) {
    const EncodeNeed encode{.patches = item.patches, .num_tokens = item.num_tokens};
    if (ChooseEncoder(view, encode, config, {}).otherwise == Choice::Otherwise::kNever) {
      return absl::InvalidArgumentError("an item is larger than any worker can encode");
    }
  }
  if (ChoosePrefillWorker(view, prefill, config, {}).otherwise == Choice::Otherwise::kNever) {
    return absl::InvalidArgumentError("prompt and answer are larger than any worker can prefill");
  }
  // Its need counts one token more than the prompt.
  const DecodeNeed decode{.prompt_tokens = tokens - 1};
  if (ChooseDecodeWorker(view, decode, {}).otherwise == Choice::Otherwise::kNever) {
    return absl::InvalidArgumentError("prompt and answer are larger than any worker can decode");
  }
  return absl::OkStatus();
}

}  // namespace triptych::scheduler
