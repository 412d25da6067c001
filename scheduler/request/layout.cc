#include "scheduler/request/layout.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/checksum.h"
#include "base/status.h"
#include "scheduler/request/sip_hash.h"

namespace triptych::scheduler {
namespace {

// Longer than any context; keeps sums of counts and positions inside 32 bits.
constexpr int64_t kMaxTokens = int64_t{1} << 24;

// Builds a layout segment by segment.
class LayoutBuilder {
 public:
  explicit LayoutBuilder(const LayoutRules& rules) : rules_(rules) {}

  absl::Status AddText(const TokenRun& text) {
    if (text.ids.empty()) return absl::OkStatus();
    for (const int32_t id : text.ids) {
      if (id < 0 || id >= rules_.vocab_size) {
        return absl::InvalidArgumentError(absl::StrCat("token id ", id, " outside the vocabulary"));
      }
    }
    const auto count = static_cast<int32_t>(text.ids.size());
    RETURN_IF_ERROR(CheckRoom(static_cast<int64_t>(text.ids.size())));
    layout_.runs.push_back({.begin = layout_.num_tokens(), .count = count, .start = next_});
    layout_.token_ids.insert(layout_.token_ids.end(), text.ids.begin(), text.ids.end());
    next_ += count;
    return absl::OkStatus();
  }

  // `num_tokens` below zero stands for the grid's own count.
  absl::Status AddItem(const Item& item, int32_t num_tokens) {
    ASSIGN_OR_RETURN(const int32_t grid_tokens, ItemTokens(item.grid, rules_.merge_size));
    if (num_tokens < 0) num_tokens = grid_tokens;
    if (num_tokens != grid_tokens || num_tokens > item.max_tokens) {
      return absl::InvalidArgumentError(absl::StrCat("an item of ", num_tokens,
                                                     " tokens, its grid gives ", grid_tokens,
                                                     ", at most ", item.max_tokens, " allowed"));
    }
    RETURN_IF_ERROR(CheckRoom(num_tokens));
    ASSIGN_OR_RETURN(const double time_step, TimeStep(item));
    const int32_t begin = layout_.num_tokens(), side = rules_.merge_size;
    const Grid cells{.t = item.grid.t, .h = item.grid.h / side, .w = item.grid.w / side};
    layout_.runs.push_back({begin, num_tokens, next_, cells, time_step});
    layout_.items.push_back({begin, begin + num_tokens});
    const int32_t pad =
        item.kind == ItemKind::kImage ? rules_.image_token_id : rules_.video_token_id;
    layout_.token_ids.insert(layout_.token_ids.end(), static_cast<size_t>(num_tokens), pad);
    content_keys_.push_back(item.content_key);
    const Position3 last = layout_.runs.back().At(num_tokens - 1);
    next_ = std::max({last.t, last.h, last.w}) + 1;
    return next_ <= kMaxTokens ? absl::OkStatus() : absl::InvalidArgumentError("video too long");
  }

  absl::StatusOr<PromptLayout> Finish() {
    if (layout_.token_ids.empty()) return absl::InvalidArgumentError("an empty prompt");
    layout_.next_position = next_;
    HashBlocks();
    return std::move(layout_);
  }

 private:
  absl::Status CheckRoom(int64_t count) const {
    const int64_t total = layout_.num_tokens() + count;
    const int64_t limit = std::min<int64_t>(rules_.max_prompt_tokens, kMaxTokens);
    if (total <= limit) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("a prompt of at least ", total, " tokens, at most ", limit, " allowed"));
  }

  // Positions between two grid steps in time. A picture has one step, so 0 does.
  absl::StatusOr<double> TimeStep(const Item& item) const {
    if (item.kind == ItemKind::kImage) {
      if (item.grid.t == 1) return 0.0;
      return absl::InvalidArgumentError("a picture of several frames");
    }
    const double step = item.second_per_grid * rules_.tokens_per_second;
    if (!(step >= 0 && step <= 1e6)) return absl::InvalidArgumentError("bad second_per_grid");
    // Before any of them becomes an int32.
    if (step * item.grid.t > kMaxTokens) return absl::InvalidArgumentError("video too long");
    return step;
  }

  // Everything that the KV of a token depends on goes in: its id or its item's content and place in
  // it, and its position. So equal hashes mean equal KV, whatever items came before.
  void HashBlocks() {
    const absl::string_view salt = rules_.prefix_salt;
    SipHash hash(base::Checksum64(salt.data(), salt.size(), 0),
                 base::Checksum64(salt.data(), salt.size(), 1));
    const int32_t full_tokens = layout_.num_tokens() / rules_.block_tokens * rules_.block_tokens;
    size_t item = 0;
    for (const PositionRun& run : layout_.runs) {
      const bool is_item = run.cells.t > 0;
      for (int32_t i = 0; i < run.count && run.begin + i < full_tokens; ++i) {
        const Position3 position = run.At(i);
        const auto id =
            static_cast<uint32_t>(layout_.token_ids[static_cast<size_t>(run.begin + i)]);
        hash.Add(id | uint64_t{static_cast<uint32_t>(is_item ? i + 1 : 0)} << 32);
        hash.Add(is_item ? content_keys_[item] : 0);
        hash.Add(static_cast<uint32_t>(position.t) | uint64_t{static_cast<uint32_t>(position.h)}
                                                         << 32);
        hash.Add(static_cast<uint32_t>(position.w));
        if ((run.begin + i + 1) % rules_.block_tokens == 0) {
          layout_.block_hashes.push_back(hash.Digest());
        }
      }
      if (is_item) ++item;
    }
  }

  const LayoutRules& rules_;
  PromptLayout layout_;
  std::vector<uint64_t> content_keys_;
  int32_t next_ = 0;
};

}  // namespace

Position3 PositionRun::At(int32_t index) const {
  if (cells.t == 0) return {start + index, start + index, start + index};
  const int32_t t = index / (cells.h * cells.w);
  const int32_t h = index / cells.w % cells.h;
  const int32_t w = index % cells.w;
  return {start + static_cast<int32_t>(std::floor(t * time_step)), start + h, start + w};
}

Position3 PromptLayout::PositionAt(int32_t token) const {
  CHECK_GE(token, 0);
  if (token >= num_tokens()) {
    const int32_t position = next_position + token - num_tokens();
    return {position, position, position};
  }
  const auto after =
      std::upper_bound(runs.begin(), runs.end(), token,
                       [](int32_t t, const PositionRun& run) { return t < run.begin; });
  const PositionRun& run = *std::prev(after);
  return run.At(token - run.begin);
}

std::vector<Position3> PromptLayout::Positions(int32_t begin, int32_t end) const {
  std::vector<Position3> positions;
  positions.reserve(static_cast<size_t>(std::max(0, end - begin)));
  for (int32_t token = begin; token < end; ++token) positions.push_back(PositionAt(token));
  return positions;
}

absl::StatusOr<int32_t> ItemTokens(const Grid& grid, int32_t merge_size) {
  CHECK_GT(merge_size, 0);
  if (grid.t <= 0 || grid.h <= 0 || grid.w <= 0 || grid.t > kMaxTokens || grid.h > kMaxTokens ||
      grid.w > kMaxTokens || grid.h % merge_size != 0 || grid.w % merge_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat("bad grid ", grid.t, "x", grid.h, "x", grid.w));
  }
  // Each factor is at most 2^24, so two of them fit; the third is multiplied in only below the
  // bound.
  const int64_t frame = int64_t{grid.h / merge_size} * (grid.w / merge_size);
  if (frame > kMaxTokens || frame * grid.t > kMaxTokens) {
    return absl::InvalidArgumentError(absl::StrCat("a grid of more than ", kMaxTokens, " tokens"));
  }
  return static_cast<int32_t>(frame * grid.t);
}

absl::StatusOr<PromptLayout> ResolveLayout(absl::Span<const Segment> segments,
                                           absl::Span<const ItemResult> results,
                                           const LayoutRules& rules) {
  CHECK_GT(rules.block_tokens, 0);
  LayoutBuilder builder(rules);
  size_t num_items = 0;
  for (const Segment& segment : segments) {
    if (const auto* text = std::get_if<TokenRun>(&segment)) {
      RETURN_IF_ERROR(builder.AddText(*text));
      continue;
    }
    int32_t num_tokens = -1;
    if (!results.empty()) {
      if (num_items >= results.size()) return absl::InvalidArgumentError("too few item results");
      num_tokens = std::max(0, results[num_items].num_tokens);
    }
    RETURN_IF_ERROR(builder.AddItem(std::get<Item>(segment), num_tokens));
    ++num_items;
  }
  if (!results.empty() && results.size() != num_items) {
    return absl::InvalidArgumentError("too many item results");
  }
  return builder.Finish();
}

}  // namespace triptych::scheduler
