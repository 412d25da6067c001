#include "engine/memory/memory_budget.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace triptych::engine {
namespace {

std::string Gibibytes(int64_t bytes) {
  return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (int64_t{1} << 30));
}

}  // namespace

std::string MemoryPlan::ToString() const {
  return absl::StrCat("weights ", Gibibytes(weights), ", scratch ", Gibibytes(scratch), ", fixed ",
                      Gibibytes(fixed), ", ", embedding_slots, " embedding slots ",
                      Gibibytes(embeddings), ", ", kv_blocks, " KV blocks ", Gibibytes(kv),
                      ", left ", Gibibytes(left));
}

absl::StatusOr<MemoryPlan> PlanMemory(const ModelSizes& sizes, const DeviceMemoryInfo& device,
                                      const MemoryOptions& options) {
  if (!(options.utilization > 0 && options.utilization <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a memory utilization of ", options.utilization, " is not in (0, 1]"));
  }
  if (std::min({sizes.weights, sizes.kv_per_token, sizes.embedding_per_token, sizes.scratch,
                sizes.fixed, options.kv_blocks, options.embedding_slots, device.free}) < 0 ||
      options.kv_block_tokens < 1) {
    return absl::InvalidArgumentError("a size is negative");
  }
  MemoryPlan plan{.weights = sizes.weights, .scratch = sizes.scratch, .fixed = sizes.fixed};
  if (sizes.embedding_per_token > 0) {
    plan.embedding_slots = static_cast<int32_t>(
        std::min<int64_t>(options.embedding_slots, std::numeric_limits<int32_t>::max()));
    plan.embeddings = plan.embedding_slots * sizes.embedding_per_token;
  }
  const auto others = device.total - device.free;
  const auto usable =
      static_cast<int64_t>(static_cast<double>(device.total) * options.utilization) - others;
  plan.left = usable - plan.weights - plan.scratch - plan.fixed - plan.embeddings;
  const int64_t block_bytes = sizes.kv_per_token * options.kv_block_tokens;
  const int64_t wanted = options.kv_blocks > 0 ? options.kv_blocks : kMinKvBlocks;
  if (plan.left < 0 || (block_bytes > 0 && plan.left / block_bytes < wanted)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the device has ", Gibibytes(device.total), ", of which ", Gibibytes(others),
        " are in use and ", Gibibytes(usable), " may be used; wanted: ", plan.ToString(), " and ",
        block_bytes > 0 ? wanted : 0, " KV blocks of ", block_bytes, " bytes"));
  }
  if (block_bytes > 0) {
    const int64_t fitting = std::min<int64_t>(
        plan.left / block_bytes, std::numeric_limits<int32_t>::max() / options.kv_block_tokens);
    plan.kv_blocks = static_cast<int32_t>(options.kv_blocks > 0 ? options.kv_blocks : fitting);
    plan.kv = plan.kv_blocks * block_bytes;
    plan.left -= plan.kv;
  }
  return plan;
}

}  // namespace triptych::engine
