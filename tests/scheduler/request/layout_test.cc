// What is defended: slots, positions and hashes of a prompt follow the published rules exactly, and
// a bad description is refused instead of overflowing. Expected values are worked out by hand.

#include "scheduler/request/layout.h"

#include <catch2/catch.hpp>
#include <numeric>
#include <random>
#include <set>

#include "scheduler/request/sip_hash.h"

namespace triptych::scheduler {
namespace {

LayoutRules Rules() {
  return {.merge_size = 2,
          .tokens_per_second = 2,
          .image_token_id = 90,
          .video_token_id = 91,
          .vocab_size = 100,
          .block_tokens = 4,
          .max_prompt_tokens = 1000,
          .prefix_salt = "model"};
}

Item Picture(int32_t h, int32_t w, uint64_t key = 1) {
  return {.kind = ItemKind::kImage, .grid = {1, h, w}, .content_key = key, .max_tokens = 1000};
}

Item Video(Grid grid, double second_per_grid) {
  return {.kind = ItemKind::kVideo,
          .grid = grid,
          .second_per_grid = second_per_grid,
          .content_key = 2,
          .max_tokens = 1000};
}

TokenRun Text(std::vector<int32_t> ids) { return {std::move(ids)}; }

PromptLayout Resolve(const std::vector<Segment>& segments) {
  auto layout = ResolveLayout(segments, {}, Rules());
  REQUIRE(layout.ok());
  return *std::move(layout);
}

absl::StatusCode CodeOf(const std::vector<Segment>& segments,
                        std::vector<ItemResult> results = {}) {
  return ResolveLayout(segments, results, Rules()).status().code();
}

}  // namespace

TEST_CASE("ResolveLayout: text counts up on all three axes", "[scheduler][layout]") {
  const PromptLayout layout = Resolve({Text({5, 6}), Text({}), Text({7})});
  CHECK(layout.token_ids == std::vector<int32_t>{5, 6, 7});
  CHECK(layout.Positions(0, 5) ==
        std::vector<Position3>{{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 3}, {4, 4, 4}});
  CHECK(layout.next_position == 3);
  CHECK(layout.items.empty());
}

TEST_CASE("ResolveLayout: after a picture text starts at the larger side plus one",
          "[scheduler][layout]") {
  const PromptLayout layout = Resolve({Text({5}), Picture(4, 6), Text({7})});
  CHECK(layout.token_ids == std::vector<int32_t>{5, 90, 90, 90, 90, 90, 90, 7});
  CHECK(layout.items == std::vector<ItemSlots>{{1, 7}});
  CHECK(layout.Positions(1, 8) ==
        std::vector<Position3>{
            {1, 1, 1}, {1, 1, 2}, {1, 1, 3}, {1, 2, 1}, {1, 2, 2}, {1, 2, 3}, {4, 4, 4}});
  CHECK(layout.next_position == 5);
}

TEST_CASE("ResolveLayout: after a video text starts beyond the last time step",
          "[scheduler][layout]") {
  const PromptLayout layout = Resolve({Video({3, 2, 2}, 1.25), Text({7})});
  CHECK(layout.token_ids == std::vector<int32_t>{91, 91, 91, 7});
  CHECK(layout.Positions(0, 4) ==
        std::vector<Position3>{{0, 0, 0}, {2, 0, 0}, {5, 0, 0}, {6, 6, 6}});
}

TEST_CASE("ResolveLayout: block hashes are chained, salted and cover full blocks only",
          "[scheduler][layout][cache]") {
  const auto hashes = [](const std::vector<Segment>& segments) {
    return Resolve(segments).block_hashes;
  };
  const auto base = hashes({Text({1, 2, 3, 4, 5, 6, 7, 8, 9})});
  REQUIRE(base.size() == 2);
  const auto same_prefix = hashes({Text({1, 2, 3}), Text({4, 5, 6, 7, 9})});
  CHECK(same_prefix[0] == base[0]);
  CHECK(same_prefix[1] != base[1]);
  CHECK(hashes({Text({2, 2, 3, 4, 5, 6, 7, 8})})[1] != base[1]);
  LayoutRules other = Rules();
  other.prefix_salt = "another";
  const std::vector<Segment> text = {Text({1, 2, 3, 4})};
  CHECK(ResolveLayout(text, {}, other)->block_hashes[0] != base[0]);
}

TEST_CASE("ResolveLayout: whatever changes an item's KV changes the hash",
          "[scheduler][layout][cache]") {
  std::set<uint64_t> seen;
  const std::vector<std::vector<Segment>> prompts = {
      {Picture(4, 4, 1)},      {Picture(4, 4, 2)},       {Picture(2, 8, 1)},
      {Picture(8, 2, 1)},      {Text({90, 90, 90, 90})}, {Picture(2, 4, 1), Picture(2, 4, 1)},
      {Video({4, 2, 2}, 1.0)}, {Video({4, 2, 2}, 2.0)},  {Video({2, 4, 2}, 1.0)},
  };
  for (const auto& prompt : prompts) {
    const auto layout = Resolve(prompt);
    REQUIRE(layout.block_hashes.size() == 1);
    seen.insert(layout.block_hashes[0]);
  }
  CHECK(seen.size() == prompts.size());
}

TEST_CASE("ResolveLayout: results must match the grids", "[scheduler][layout]") {
  using absl::StatusCode;
  const std::vector<Segment> two = {Picture(4, 4), Text({1}), Picture(2, 2)};
  CHECK(CodeOf(two, {{4}, {1}}) == StatusCode::kOk);
  CHECK(CodeOf(two, {{4}}) == StatusCode::kInvalidArgument);
  CHECK(CodeOf(two, {{4}, {1}, {1}}) == StatusCode::kInvalidArgument);
  CHECK(CodeOf(two, {{3}, {1}}) == StatusCode::kInvalidArgument);
  CHECK(CodeOf(two, {{4}, {-1}}) == StatusCode::kInvalidArgument);
  Item capped = Picture(4, 4);
  capped.max_tokens = 3;
  CHECK(CodeOf({capped}) == StatusCode::kInvalidArgument);
}

TEST_CASE("ResolveLayout: a bad segment is refused", "[scheduler][layout][hostile]") {
  using absl::StatusCode;
  constexpr int32_t kHuge = 2147483646;
  Item frames = Picture(2, 2);
  frames.grid.t = 2;
  const std::vector<std::vector<Segment>> wrong = {
      {},
      {Text({})},
      {Text({-1})},
      {Text({100})},
      {Text(std::vector<int32_t>(1001, 1))},
      {Picture(0, 2)},
      {Picture(-2, -2)},
      {Picture(3, 2)},
      {Picture(kHuge, kHuge)},
      {Picture(2000, 2000)},
      {frames},
      {Video({kHuge, kHuge, kHuge}, 1)},
      {Video({2, 2, 2}, -1)},
      {Video({2, 2, 2}, std::nan(""))},
      {Video({2, 2, 2}, 1e300)},
      {Video({900, 2, 2}, 1e5)},
  };
  for (size_t i = 0; i < wrong.size(); ++i) {
    INFO("case " << i);
    CHECK(CodeOf(wrong[i]) == StatusCode::kInvalidArgument);
  }
}

TEST_CASE("ResolveLayout: runs cover every token once and positions never fall",
          "[scheduler][layout]") {
  constexpr unsigned kSeed = 11;
  INFO("seed " << kSeed);
  std::mt19937 random(kSeed);
  for (int round = 0; round < 200; ++round) {
    std::vector<Segment> segments = {Text({1})};
    for (unsigned i = random() % 6; i > 0; --i) {
      const auto side = [&] { return static_cast<int32_t>(2 * (random() % 4 + 1)); };
      switch (random() % 3) {
        case 0:
          segments.push_back(Text(std::vector<int32_t>(random() % 9, 3)));
          break;
        case 1:
          segments.push_back(Picture(side(), side()));
          break;
        default:
          segments.push_back(Video({side(), side(), side()}, 0.75));
      }
    }
    const PromptLayout layout = Resolve(segments);
    int32_t covered = 0, floor = 0;
    for (const PositionRun& run : layout.runs) {
      REQUIRE(run.begin == covered);
      REQUIRE(run.start >= floor);
      covered += run.count;
      for (int32_t i = 0; i < run.count; ++i) {
        const Position3 p = layout.PositionAt(run.begin + i);
        REQUIRE(p == run.At(i));
        floor = std::max({floor, p.t + 1, p.h + 1, p.w + 1});
      }
    }
    REQUIRE(covered == layout.num_tokens());
    REQUIRE(layout.next_position == floor);
    REQUIRE(layout.block_hashes.size() == static_cast<size_t>(covered / 4));
  }
}

TEST_CASE("SipHash: agrees with the paper's test vectors", "[scheduler][layout]") {
  // Key 00..0f; messages 00..07 and 00..0f of the reference vectors (8 and 16 bytes).
  SipHash hash(0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL);
  CHECK(hash.Digest() == 0x726fdb47dd0e0e31ULL);
  hash.Add(0x0706050403020100ULL);
  CHECK(hash.Digest() == 0x93f5f5799a932462ULL);
  hash.Add(0x0f0e0d0c0b0a0908ULL);
  CHECK(hash.Digest() == 0x3f2acc7f57c29bdbULL);
}

TEST_CASE("ResolveLayout: positions beyond an int32 are refused before they are one",
          "[scheduler][layout][hostile]") {
  LayoutRules rules = Rules();
  rules.max_prompt_tokens = 1 << 24;
  Item video = Video({1 << 20, 2, 2}, 1e4);
  video.max_tokens = 1 << 24;
  CHECK(absl::IsInvalidArgument(ResolveLayout({video}, {}, rules).status()));
}

}  // namespace triptych::scheduler
