// How a decode step is cut: every page of every row is in exactly one part, the newest token in the
// last one, and no part is much longer than the others; tables of choices are read as written.

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "kernels/decode_attention.h"
#include "kernels/decode_choices.h"

namespace triptych::kernels {
namespace {

constexpr int kPage = 16;

struct Cut {
  std::vector<int32_t> lengths, page_begin = {0};
  std::vector<DecodePart> parts;
};

Cut CutRows(const std::vector<int32_t>& lengths, const DecodeAttentionChoice& choice,
            size_t capacity) {
  Cut cut{.lengths = lengths};
  for (const int32_t length : lengths) {
    cut.page_begin.push_back(cut.page_begin.back() + (length + kPage - 1) / kPage + 2);
  }
  cut.parts.resize(capacity, {.row = 77});
  PlanDecodeParts(cut.lengths, cut.page_begin, kPage, choice, absl::MakeSpan(cut.parts));
  return cut;
}

void CheckCovers(const Cut& cut) {
  std::vector<int32_t> next(cut.lengths.size(), 0), seen(cut.lengths.size(), 0);
  for (size_t i = 0; i < cut.parts.size(); ++i) {
    const DecodePart& part = cut.parts[i];
    if (part.row < 0) continue;
    REQUIRE(part.row < static_cast<int32_t>(cut.lengths.size()));
    const int32_t pages = (cut.lengths[part.row] + kPage - 1) / kPage;
    CHECK(part.slot == static_cast<int32_t>(i));
    CHECK(part.first_slot == part.slot - seen[part.row]);
    CHECK(part.pages > 0);
    CHECK(part.first_page == cut.page_begin[part.row] + next[part.row]);
    next[part.row] += part.pages;
    ++seen[part.row];
    const bool last = next[part.row] == pages;
    CHECK(part.tokens == (last ? cut.lengths[part.row] - (pages - 1) * kPage : 0));
    CHECK((seen[part.row] == part.parts) == last);
  }
  for (size_t row = 0; row < cut.lengths.size(); ++row) {
    CHECK(next[row] == (cut.lengths[row] + kPage - 1) / kPage);
  }
}

TEST_CASE("PlanDecodeParts: every page is in one part, whatever the lengths", "[kernels]") {
  const unsigned seed = 20261201;
  INFO("seed " << seed);
  std::mt19937 generator(seed);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<int32_t> lengths;
    for (size_t rows = 1 + generator() % 64; lengths.size() < rows;) {
      lengths.push_back(static_cast<int32_t>(generator() % (trial % 2 == 0 ? 40 : 9000)));
    }
    const DecodeAttentionChoice choice = {.cluster = 1 << generator() % 4,
                                          .target = static_cast<int>(1 + generator() % 400)};
    CheckCovers(CutRows(lengths, choice, lengths.size() + generator() % 300));
  }
}

TEST_CASE("PlanDecodeParts: long rows get more parts than short ones", "[kernels]") {
  const Cut cut = CutRows({8192, 1024, 1024, 1024}, {.target = 22}, 64);
  CheckCovers(cut);
  CHECK(cut.parts[0].parts == 16);
  for (const DecodePart& part : cut.parts) {
    if (part.row >= 0) CHECK(part.pages <= 33);
  }
}

TEST_CASE("ParseDecodeChoices: a batch gets the line of the next larger one", "[kernels]") {
  const auto choices = ParseDecodeChoices(
      "# a comment\n"
      "linear 3584 4608 0 8 96x2x1 4 8 5\n"
      "linear 3584 4608 0 64 40x1x4 1 4 0  # another\n\n"
      "linear 3584 37888 1 64 72x2x1 1 8 3\n"
      "attention 28 4 8 0 1 33 0 1\n"
      "attention 28 4 8 2048 4 16 1 1\n");
  REQUIRE(choices.ok());
  const DecodeLinearChoice* few = choices->Find(LinearChoiceKey{3584, 4608, false}, 3);
  REQUIRE(few != nullptr);
  CHECK((few->split == 4 && few->stages == 8 && few->trigger == 5));
  CHECK(kDecodeTiles[few->tile].rows() == 192);
  const DecodeLinearChoice* many = choices->Find(LinearChoiceKey{3584, 4608, false}, 9);
  REQUIRE(many != nullptr);
  CHECK(kDecodeTiles[many->tile].boxes == 4);
  CHECK(choices->Find(LinearChoiceKey{3584, 4608, true}, 3) == nullptr);
  CHECK(choices->Find(LinearChoiceKey{3584, 4608, false}, 65) == nullptr);
  const DecodeAttentionChoice* attention = choices->Find(AttentionChoiceKey{28, 4}, 8, 2048);
  REQUIRE(attention != nullptr);
  CHECK((attention->cluster == 4 && attention->target == 16 && attention->beside));
  const DecodeAttentionChoice* longer = choices->Find(AttentionChoiceKey{28, 4}, 8, 2049);
  REQUIRE(longer != nullptr);
  CHECK((longer->cluster == 1 && longer->target == 33 && !longer->beside && longer->early));
}

TEST_CASE("ParseDecodeChoices: the shipped tables are readable", "[kernels]") {
  for (const char* name : {"h200_qwen2.5_vl_3b.txt", "h200_qwen2.5_vl_7b.txt"}) {
    std::ifstream file(std::string("kernels/choices/") + name);
    REQUIRE(file.good());
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto choices = ParseDecodeChoices(text);
    INFO(name << ": " << choices.status().ToString());
    REQUIRE(choices.ok());
    CHECK((!choices->linear.empty() && !choices->attention.empty()));
  }
}

TEST_CASE("ParseDecodeChoices: what it cannot read is an error with its line", "[kernels]") {
  for (const char* text :
       {"\nlinear 1 2 3", "\nlinear 3584 4608 0 8 5x5x5 4 8 5", "\nattention 28 4 8 9 16 1",
        "\nlinear 3584 4608 0 8 96x2x1 3 8 5", "\nsomething 1"}) {
    const auto choices = ParseDecodeChoices(text);
    CHECK(choices.status().code() == absl::StatusCode::kInvalidArgument);
    CHECK(choices.status().message().find("line 2") != absl::string_view::npos);
  }
}

}  // namespace
}  // namespace triptych::kernels
