// What is defended: streaming text never shows half a character or the beginning of a stop string,
// and shows the same text however it was cut into parts.

#include <catch2/catch.hpp>
#include <random>

#include "models/tokenizer/detokenizer.h"
#include "models/tokenizer/stop_matcher.h"
#include "models/tokenizer/unicode.h"
#include "tests/models/tokenizer/small_tokenizer.h"

namespace triptych::models {
namespace {

struct Streamed {
  std::string text;
  bool stopped = false;
};

Streamed Stream(const std::vector<std::string>& stops, const std::vector<std::string>& parts) {
  StopMatcher matcher(stops);
  Streamed result;
  for (const std::string& part : parts) {
    StopMatcher::Output out = matcher.Push(part);
    result.text += out.text;
    result.stopped = out.stopped;
  }
  if (!result.stopped) result.text += matcher.Finish();
  return result;
}

}  // namespace

TEST_CASE("Detokenizer: a character comes out whole, with its last byte", "[models][tokenizer]") {
  const auto tokenizer =
      *Tokenizer::Parse(testing::SmallTokenizerJson().dump(), testing::kSmallVocabulary);
  Detokenizer detokenizer(*tokenizer);
  CHECK(detokenizer.Push('a') == "a");
  for (const int32_t id : {0xf0, 0x9f, 0x99}) CHECK(detokenizer.Push(id).empty());
  CHECK(detokenizer.Push(0x82) == "\U0001F642");
  CHECK(detokenizer.Push(290).empty());
  CHECK(detokenizer.Push(0xe6).empty());
  CHECK(detokenizer.Push('b') ==
        "\ufffd"
        "b");
  CHECK(detokenizer.Push(0xe6).empty());
  CHECK(detokenizer.Finish() == "\ufffd");
  CHECK(detokenizer.Finish().empty());
}

TEST_CASE("Utf8Stream: invalid bytes are replaced as the standard advises", "[models][tokenizer]") {
  CHECK(ReplaceInvalidUtf8("\xc0\x80") == "\ufffd\ufffd");
  CHECK(ReplaceInvalidUtf8("\xed\xa0\x80") == "\ufffd\ufffd\ufffd");
  CHECK(ReplaceInvalidUtf8("\xf4\x90\x80\x80") == "\ufffd\ufffd\ufffd\ufffd");
  CHECK(ReplaceInvalidUtf8("\xf0\x9f\x99") == "\ufffd");
  CHECK(ReplaceInvalidUtf8("\xf0\x9f\x41") ==
        "\ufffd"
        "A");
  CHECK(ReplaceInvalidUtf8("\xe6\x9d\xb1\xff") == "\u6771\ufffd");
  CHECK(ReplaceInvalidUtf8("\xf4\x8f\xbf\xbf") == "\U0010ffff");
}

TEST_CASE("StopMatcher: a stop across parts is found and nothing of it is shown",
          "[models][tokenizer]") {
  StopMatcher matcher({"\n\nUser:", "END"});
  CHECK(matcher.Push("hello\n").text == "hello");
  CHECK(matcher.Push("x\n").text == "\nx");
  CHECK(matcher.Push("\nUs").text.empty());
  const StopMatcher::Output out = matcher.Push("er: more");
  CHECK(out.stopped);
  CHECK(out.text.empty());
  CHECK(matcher.Push("more").stopped);
  CHECK(matcher.Push("more").text.empty());
}

TEST_CASE("StopMatcher: what was held back comes out at the end", "[models][tokenizer]") {
  StopMatcher matcher({"abcabd"});
  CHECK(matcher.Push("abcabcab").text == "abc");
  CHECK(matcher.Finish() == "abcab");
  StopMatcher none({"", ""});
  CHECK(none.Push("abc").text == "abc");
}

TEST_CASE("StopMatcher: the match that ends first wins, then the longest", "[models][tokenizer]") {
  CHECK(Stream({"bcd", "c"}, {"abcd"}).text == "ab");
  CHECK(Stream({"c", "abc"}, {"xabc"}).text == "x");
}

TEST_CASE("StopMatcher: the cuts between parts change nothing", "[models][tokenizer][fuzz]") {
  constexpr unsigned kSeed = 17;
  INFO("seed " << kSeed);
  std::mt19937 random(kSeed);
  for (int round = 0; round < 3000; ++round) {
    const auto letters = [&](size_t most) {
      std::string word(random() % most + 1, 'a');
      for (char& c : word) c = static_cast<char>('a' + random() % 2);
      return word;
    };
    const std::vector<std::string> stops = {letters(6), letters(6)};
    const std::string text = letters(30);
    std::vector<std::string> parts;
    for (size_t at = 0; at < text.size();) {
      parts.push_back(text.substr(at, random() % 4 + 1));
      at += parts.back().size();
    }
    const Streamed whole = Stream(stops, {text}), cut = Stream(stops, parts);
    REQUIRE(whole.text == cut.text);
    REQUIRE(whole.stopped == cut.stopped);
    // Against the definition.
    size_t end = std::string::npos, begin = 0;
    for (const std::string& stop : stops) {
      const size_t found = text.find(stop);
      if (found == std::string::npos) continue;
      const size_t stop_end = found + stop.size();
      if (end == std::string::npos || stop_end < end || (stop_end == end && found < begin)) {
        end = stop_end;
        begin = found;
      }
    }
    REQUIRE(whole.stopped == (end != std::string::npos));
    REQUIRE(whole.text == (whole.stopped ? text.substr(0, begin) : text));
  }
}

}  // namespace triptych::models
