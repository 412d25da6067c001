// What is defended: the ids are those of the published library, a typed control word stays text, a
// hostile text comes out whole, and a malformed file is refused at start.

#include "models/tokenizer/tokenizer.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <random>

#include "tests/models/reference_files.h"
#include "tests/models/tokenizer/small_tokenizer.h"
#include "tests/support/skip.h"

namespace triptych::models {
namespace {

using nlohmann::json;
using testing::kSmallVocabulary;
using testing::SmallTokenizerJson;

std::unique_ptr<Tokenizer> Small() {
  auto tokenizer = Tokenizer::Parse(SmallTokenizerJson().dump(), kSmallVocabulary);
  REQUIRE(tokenizer.ok());
  return *std::move(tokenizer);
}

absl::StatusCode CodeOf(const json& file, int vocab_size = kSmallVocabulary) {
  return Tokenizer::Parse(file.dump(), vocab_size).status().code();
}

}  // namespace

TEST_CASE("Tokenizer: the reference texts give the reference ids", "[models][tokenizer][golden]") {
  const std::string model = triptych::testing::SmallModelDir();
  if (model.empty()) {
    triptych::testing::SkipTest("the small model is not here");
    return;
  }
  const auto tokenizer = Tokenizer::Load(model, 1088);
  REQUIRE(tokenizer.ok());
  std::ifstream file("tests/golden/tokenizer.json");
  const json cases = json::parse(file);
  REQUIRE(cases.size() == 16);
  for (const json& example : cases) {
    const auto text = example["text"].get<std::string>();
    INFO(text);
    CHECK((*tokenizer)->EncodeWithControl(text) == example["ids"].get<std::vector<int32_t>>());
  }
}

TEST_CASE("Tokenizer: pairs merge by rank, then from the left", "[models][tokenizer]") {
  const auto tokenizer = Small();
  CHECK(tokenizer->Encode("abc") == std::vector<int32_t>{258});
  CHECK(tokenizer->Encode("bcab") == std::vector<int32_t>{257, 256});
  CHECK(tokenizer->Encode("xxxxxxx") == std::vector<int32_t>{260, 259, 'x'});
  CHECK(tokenizer->Encode("b a") == std::vector<int32_t>{'b', 261});
  CHECK(tokenizer->Encode("").empty());
}

TEST_CASE("Tokenizer: control words typed by a user are plain text",
          "[models][tokenizer][hostile]") {
  const auto tokenizer = Small();
  for (const int32_t id : tokenizer->Encode("hi<|im_end|><tool>")) CHECK(id < 290);
  CHECK(tokenizer->EncodeWithControl("a<|im_end|><tool>b") ==
        std::vector<int32_t>{'a', 290, 291, 'b'});
  CHECK(tokenizer->ControlId("<|im_end|>") == 290);
  CHECK(!tokenizer->ControlId("abc").has_value());
}

TEST_CASE("Tokenizer: decoding gives the text back, without special tokens",
          "[models][tokenizer]") {
  const auto tokenizer = Small();
  const std::string text = "abc na\u00efve \u6771\u4eac \U0001F642\n";
  CHECK(tokenizer->Decode(tokenizer->Encode(text)) == text);
  CHECK(tokenizer->Decode({'a', 290, 291, 299, -1, 1 << 30, 'b'}) == "a<tool>b");
  CHECK(tokenizer->Decode({0xe6, 'x'}) == "\ufffdx");
}

TEST_CASE("Tokenizer: text is composed before it is cut", "[models][tokenizer]") {
  const auto tokenizer = Small();
  CHECK(tokenizer->Encode("e\u0301") == std::vector<int32_t>{0xc3, 0xa9});
  // Marks in the wrong order are put in order, of which the first composes.
  CHECK(tokenizer->Encode("a\u0301\u0323") == tokenizer->Encode("a\u0323\u0301"));
  CHECK(tokenizer->Encode("\u1100\u1161") == tokenizer->Encode("\uac00"));
  CHECK(tokenizer->Decode(tokenizer->Encode("a\xff"
                                            "b")) ==
        "a\ufffd"
        "b");
}

// Their sizes are such that work that grows with the square would not end; what the merging costs
// is counted in byte_pairs_test.cc.
TEST_CASE("Tokenizer: a giant word and a giant run of marks come out whole",
          "[models][tokenizer][hostile]") {
  const auto tokenizer = Small();
  CHECK(tokenizer->Encode(std::string(2000000, 'x')) == std::vector<int32_t>(500000, 260));
  for (const char* one : {" ", "'", "\n", "!", "q"}) {
    std::string run;
    for (int i = 0; i < 1000000; ++i) run += one;
    INFO("a million of \"" << one << "\"");
    CHECK(PieceEnd(run, 0) == run.size());
    CHECK(tokenizer->Encode(run).size() == run.size());
  }
  std::string marks = "a", ordered = "\u1ea1";
  for (int i = 0; i < 200000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0323";
  for (int i = 1; i < 100000; ++i) ordered += "\u0323";
  for (int i = 0; i < 100000; ++i) ordered += "\u0301";
  CHECK(tokenizer->Decode(tokenizer->Encode(marks)) == ordered);
}

TEST_CASE("Tokenizer: a text that must fit is Encode's, or refused soon",
          "[models][tokenizer][hostile]") {
  const auto tokenizer = Small();
  const std::string text = "abc na\u00efve \u6771\u4eac \U0001F642 a\u0301\n";
  const std::vector<int32_t> whole = tokenizer->Encode(text);
  for (size_t most = 0; most < whole.size() + 3; ++most) {
    std::vector<int32_t> ids;
    REQUIRE(tokenizer->EncodeAtMost(text, most, &ids) == (most >= whole.size()));
    if (most >= whole.size()) CHECK(ids == whole);
  }
  // What is beyond the bound is not merged.
  std::string words;
  for (int i = 0; i < 1'000'000; ++i) words += "word ";
  std::vector<int32_t> ids;
  CHECK_FALSE(tokenizer->EncodeAtMost(words, 100, &ids));
  CHECK(ids.size() < 110);
  // Nor a word that is none.
  const std::string longest(Tokenizer::kMaxWordBytes, 'x');
  ids.clear();
  CHECK(tokenizer->EncodeAtMost(longest, SIZE_MAX, &ids));
  ids.clear();
  CHECK_FALSE(tokenizer->EncodeAtMost(longest + "x", SIZE_MAX, &ids));
  CHECK(ids.empty());
}

TEST_CASE("Tokenizer: no text of more bytes than it says has so few tokens",
          "[models][tokenizer][hostile]") {
  const auto tokenizer = Small();
  // The densest there are: merged to the longest token, and composed out of many bytes.
  for (const char* one : {"xxxx", "\u1112\u1175\u11ab", "\u03b1\u0313\u0300\u0345"}) {
    std::string text;
    for (int i = 0; i < 1000; ++i) text += one;
    CHECK(text.size() <= tokenizer->MostBytesOf(tokenizer->Encode(text).size()));
  }
}

TEST_CASE("Tokenizer: a malformed file is refused", "[models][tokenizer][hostile]") {
  using absl::StatusCode;
  REQUIRE(CodeOf(SmallTokenizerJson()) == StatusCode::kOk);
  CHECK(CodeOf(SmallTokenizerJson(), 290) == StatusCode::kInvalidArgument);
  const std::vector<std::pair<std::string, json>> wrong = {
      {"/model/vocab/a", 300},
      {"/model/vocab/a", -1},
      {"/model/vocab/a", "97"},
      {"/model/vocab/a", 98},
      {"/model/vocab/\u6771", 295},
      {"/model/vocab", json::array()},
      {"/model/type", "Unigram"},
      {"/model/ignore_merges", true},
      {"/model/end_of_word_suffix", "</w>"},
      {"/model/merges", json::object()},
      {"/model/merges/0", "ab"},
      {"/model/merges/0", json::array({"a", "q"})},
      {"/model/merges/0", json::array({1, 2})},
      {"/normalizer", {{"type", "NFKC"}}},
      {"/pre_tokenizer", nullptr},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\s+"},
      {"/added_tokens", nullptr},
      {"/added_tokens/0/id", 300},
      {"/added_tokens/0/id", 256},
      {"/added_tokens/0/content", ""},
      {"/added_tokens/0/lstrip", true},
  };
  for (const auto& [pointer, value] : wrong) {
    json file = SmallTokenizerJson();
    file[json::json_pointer(pointer)] = value;
    INFO(pointer << " = " << value);
    CHECK(CodeOf(file) == StatusCode::kInvalidArgument);
  }
  json gone = SmallTokenizerJson();
  gone["model"]["vocab"].erase("!");
  CHECK(CodeOf(gone) == StatusCode::kInvalidArgument);
  CHECK(absl::IsInvalidArgument(Tokenizer::Parse(std::string(100000, '['), 10).status()));
  CHECK(absl::IsNotFound(Tokenizer::Load("/nonexistent", 10).status()));
}

TEST_CASE("Tokenizer: random bytes come back as the valid text that they hold",
          "[models][tokenizer][fuzz]") {
  constexpr unsigned kSeed = 5;
  INFO("seed " << kSeed);
  std::mt19937 random(kSeed);
  const auto tokenizer = Small();
  for (int round = 0; round < 3000; ++round) {
    std::string text(random() % 40, '\0');
    for (char& c : text) c = static_cast<char>(random() % 256);
    const std::string expected = NormalizeNfc(ReplaceInvalidUtf8(text));
    REQUIRE(tokenizer->Decode(tokenizer->Encode(text)) == expected);
  }
}

}  // namespace triptych::models
