#pragma once

// A prompt as every process sees it: segments in, token slots, 3-D rotary positions and block
// hashes out. Pure, and the only code that computes positions: the gateway, the schedulers and the
// engine's tests all ask it, so that they can never disagree.

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::scheduler {

// Text that is already tokens.
struct TokenRun {
  std::vector<int32_t> ids;
};

enum class ItemKind : uint8_t { kImage, kVideo };

// A picture or a video: its place in the prompt, not its pixels.
struct Item {
  ItemKind kind = ItemKind::kImage;
  Grid grid;                   // patches; h and w are multiples of merge_size
  double second_per_grid = 0;  // video: seconds between two grid steps in time
  uint64_t content_key = 0;    // digest of tenant salt, preprocessing, decoded size and bytes
  int32_t max_tokens = 0;      // the most tokens that encode may give; at least 1
};

using Segment = std::variant<TokenRun, Item>;

// What encode said about one item. Today it always equals the grid's count, ItemTokens().
struct ItemResult {
  int32_t num_tokens = 0;
};

// What of the model and of the cache the layout depends on.
struct LayoutRules {
  int32_t merge_size = 2;  // patches along each side of one visual token
  double tokens_per_second = 2;
  int32_t image_token_id = 0;
  int32_t video_token_id = 0;
  int32_t vocab_size = 0;  // ids are in [0, vocab_size)
  int32_t block_tokens = 16;
  int32_t max_prompt_tokens = 0;
  // Hashes of different salts never meet: the model fingerprint, and the tenant where caches are
  // not shared between tenants.
  std::string prefix_salt;
};

// The tokens [begin, end) of the prompt that one item's embeddings fill, in reading order.
struct ItemSlots {
  int32_t begin = 0, end = 0;
  int32_t size() const { return end - begin; }
  friend bool operator==(const ItemSlots&, const ItemSlots&) = default;
};

// Positions of the tokens [begin, begin + count). Text: all three axes are start + i. An item:
// token i is cell (i / (h * w), i / w % h, i % w) of `cells`, each axis added to start, time scaled
// by time_step and rounded down.
struct PositionRun {
  int32_t begin = 0;
  int32_t count = 0;
  int32_t start = 0;
  Grid cells;  // visual tokens along each axis; all 0 for text
  double time_step = 0;
  // Position of token begin + index.
  Position3 At(int32_t index) const;
};

struct PromptLayout {
  std::vector<int32_t> token_ids;  // [num_tokens()], placeholders under items
  std::vector<PositionRun> runs;   // cover [0, num_tokens()) without gaps, in order
  std::vector<ItemSlots> items;    // in prompt order
  int32_t next_position = 0;       // of the first output token, all axes; then one more a token
  // Hash of tokens [0, (i + 1) * block_tokens), full blocks only: equal hashes mean equal KV.
  std::vector<uint64_t> block_hashes;

  int32_t num_tokens() const { return static_cast<int32_t>(token_ids.size()); }
  // Of prompt token or output token `token` (counted on from the prompt), at least 0. O(log runs).
  Position3 PositionAt(int32_t token) const;
  // Of tokens [begin, end), which may reach beyond the prompt.
  std::vector<Position3> Positions(int32_t begin, int32_t end) const;
};

// Visual tokens of a grid: t * (h / merge_size) * (w / merge_size). INVALID_ARGUMENT when an axis
// is not positive, h or w is no multiple of merge_size, or the count exceeds 2^24.
absl::StatusOr<int32_t> ItemTokens(const Grid& grid, int32_t merge_size);

// Lays out `segments`. `results` has one entry an item in prompt order, or is empty before encode:
// then every item has the tokens of its grid. Positions follow Qwen2.5-VL: what comes after an item
// starts at the maximum over all three axes plus one.
// INVALID_ARGUMENT: no tokens, more than max_prompt_tokens, an id outside the vocabulary, a bad
// grid or second_per_grid, a result that is not the grid's count or exceeds max_tokens, or a
// wrong number of results.
absl::StatusOr<PromptLayout> ResolveLayout(absl::Span<const Segment> segments,
                                           absl::Span<const ItemResult> results,
                                           const LayoutRules& rules);

}  // namespace triptych::scheduler
