// What is defended: the hand-written scanner cuts as the published pattern does. Pieces are worked
// out by hand from the pattern, alternative by alternative.

#include "models/tokenizer/pretokenizer.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace triptych::models {
namespace {

using Pieces = std::vector<std::string>;

Pieces PiecesOf(const std::string& text) {
  Pieces pieces;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = PieceEnd(text, begin);
    REQUIRE(end > begin);
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

}  // namespace

TEST_CASE("Pretokenizer: pieces are those of the pattern", "[models][tokenizer]") {
  const std::vector<Pieces> cases = {
      {"Hello", ",", " world", "!"},
      {"I", "'ll", " we", "'RE", " '", "abc"},
      {"'S", " '", "x"},
      {"'t", "is"},
      {"don", "'\u017f"},
      {"1", "2", " ", "3", ".", "1"},
      {" \n\n", "x"},
      {" \n \n", "  ", " x"},
      {"  ", " x"},
      {"a", "   "},
      {"...\r\n\r\n", "b"},
      {" ...\n", " ", "\tb"},
      {"\r\n", "b"},
      {"\tb", "\u3000c"},
      {"\u00a0nbsp"},
      {"\u200d\ufeff", "\u00a0n"},
      {"1", "\u00bd", " ", "\u2167"},
      {"\u6771\u4eac", " \U0001F642"},
      {"#include"},
      {"'"},
      {"'l"},
      {"\u00a0", "\u00a0x"},
  };
  for (const Pieces& pieces : cases) {
    std::string text;
    for (const std::string& piece : pieces) text += piece;
    INFO(text);
    CHECK(PiecesOf(text) == pieces);
  }
}

TEST_CASE("Pretokenizer: a mark before letters goes with them only when it is one",
          "[models][tokenizer]") {
  CHECK(PiecesOf("<|im") == Pieces{"<|", "im"});
  CHECK(PiecesOf("<im") == Pieces{"<im"});
  CHECK(PiecesOf(" <im") == Pieces{" <", "im"});
}

}  // namespace triptych::models
