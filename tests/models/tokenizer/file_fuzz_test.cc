// Defended: a tokenizer.json that was harmed, in its text or in its tree, gives a tokenizer that
// keeps every promise or INVALID_ARGUMENT, and takes memory in proportion to its size.

#include <catch2/catch.hpp>
#include <iterator>

#include "models/tokenizer/tokenizer.h"
#include "tests/models/tokenizer/small_tokenizer.h"
#include "tests/support/heap_peak.h"
#include "tests/support/mutate.h"

namespace triptych::models {
namespace {

using nlohmann::json;
using testing::HeapPeak;
using testing::kSmallVocabulary;

// A JSON value takes 16 bytes, a member of an object a node of a tree, and the file is read whole.
constexpr int64_t kBytesPerByte = 256;
constexpr int64_t kBytesBeside = 256 << 10;

// Some value of the tree, each level left with a third of the chance.
json* Somewhere(json* root, base::SeededRandom* random) {
  json* at = root;
  while (at->is_structured() && !at->empty() && !random->Chance(0.3)) {
    auto child = at->begin();
    std::advance(child, static_cast<ptrdiff_t>(random->Below(at->size())));
    at = &*child;
  }
  return at;
}

// True when it was accepted.
bool Try(const std::string& text) {
  const HeapPeak peak;
  const auto tokenizer = Tokenizer::Parse(text, kSmallVocabulary);
  REQUIRE(peak.bytes() <= kBytesBeside + kBytesPerByte * static_cast<int64_t>(text.size()));
  if (!tokenizer.ok()) {
    REQUIRE(absl::IsInvalidArgument(tokenizer.status()));
    return false;
  }
  const std::string typed = "abc xxxx a<|im_end|>\n<tool>";
  const std::vector<int32_t> plain = (*tokenizer)->Encode(typed);
  REQUIRE((*tokenizer)->Decode(plain) == typed);
  for (const auto& ids : {plain, (*tokenizer)->EncodeWithControl(typed)}) {
    for (int32_t id : ids) {
      REQUIRE(id >= 0);
      REQUIRE(id < kSmallVocabulary);
    }
  }
  return true;
}

}  // namespace

TEST_CASE("Tokenizer: a file harmed in its text is refused or keeps its promises",
          "[models][tokenizer][fuzz]") {
  constexpr uint64_t kSeed = 17;
  INFO("seed " << kSeed);
  base::SeededRandom random(kSeed);
  const std::vector<std::string> fragments = {
      "\"",  "{",   "[",   "]",    "}",    ",",     ":",         "null", "-1",
      "299", "300", "1e9", "\xff", "\\u0", "\"a\"", "[\"a\",1]", "true", "\"id\""};
  const std::string good = testing::SmallTokenizerJson().dump();
  REQUIRE(Try(good));
  for (int round = 0; round < 4000; ++round) {
    CAPTURE(round);
    Try(testing::Mutate(good, fragments, &random));
  }
}

TEST_CASE("Tokenizer: a file harmed in its tree is refused or keeps its promises",
          "[models][tokenizer][fuzz]") {
  constexpr uint64_t kSeed = 19;
  INFO("seed " << kSeed);
  base::SeededRandom random(kSeed);
  const json good = testing::SmallTokenizerJson();
  const json values[] = {nullptr,
                         true,
                         -1,
                         0,
                         97,
                         256,
                         299,
                         300,
                         1e308,
                         INT64_MIN,
                         UINT64_MAX,
                         "",
                         "a",
                         "ab",
                         "\u0120",
                         "<tool>",
                         "BPE",
                         json::array(),
                         json::object(),
                         json::array({"a", "b"}),
                         json::array({"a", "a"})};
  int accepted = 0;
  for (int round = 0; round < 4000; ++round) {
    CAPTURE(round);
    json file = good;
    for (uint64_t changes = 1 + random.Below(3); changes > 0; --changes) {
      json* target = Somewhere(&file, &random);
      switch (random.Below(3)) {
        case 0:
          *target = values[random.Below(std::size(values))];
          break;
        case 1: {
          const json copy = *Somewhere(&file, &random);
          *target = copy;
          break;
        }
        default:
          if (target->is_structured() && !target->empty()) {
            auto child = target->begin();
            std::advance(child, static_cast<ptrdiff_t>(random.Below(target->size())));
            target->erase(child);
          }
      }
    }
    accepted += Try(file.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  CHECK(accepted > 100);
}

}  // namespace triptych::models
