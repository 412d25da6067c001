// Hostile JSON: refused in linear time and bounded memory, and good JSON read as it stands.

#include "services/gateway/request/json.h"

#include <catch2/catch.hpp>

#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

bool Parses(const std::string& text, const JsonLimits& limits = {}) {
  return ParseJson(text, limits).ok();
}

TEST_CASE("ParseJson: what is not strict JSON is refused", "[gateway][json]") {
  const std::string deep(100'000, '[');
  const char* const refused[] = {
      "",
      " ",
      "{",
      "[1,]",
      "{\"a\":1,}",
      "NaN",
      "[NaN]",
      "Infinity",
      "1e999",
      "[-1e999]",
      "01",
      "+1",
      "{\"a\":1}x",
      "'a'",
      "{a:1}",
      "\"\xff\"",
      "\"\xc0\x80\"",
      "\"\xed\xa0\x80\"",
      "\"a\nb\"",
      "\"\\x\"",
      "\"\\ud800\"",
      "[1] [2]",
      "{\"a\":1,\"a\":2}",
      "{\"a\":{\"b\":1,\"\\u0062\":2}}",
      "// c\n1",
  };
  for (const char* text : refused) {
    INFO(text);
    CHECK_FALSE(Parses(text));
    CHECK(ToClientError(ParseJson(text).status()).code == std::string("invalid_json"));
  }
  CHECK_FALSE(Parses(deep));
  CHECK_FALSE(Parses(deep + std::string(100'000, ']')));
}

TEST_CASE("ParseJson: depth and node count are bounded", "[gateway][json]") {
  CHECK(Parses("[[1]]", {.max_depth = 2}));
  CHECK_FALSE(Parses("[[[1]]]", {.max_depth = 2}));
  CHECK(Parses("[1,2,3]", {.max_nodes = 4}));
  CHECK_FALSE(Parses("[1,2,3,4]", {.max_nodes = 4}));
}

TEST_CASE("ParseJson: numbers keep their kind", "[gateway][json]") {
  absl::StatusOr<JsonValue> root =
      ParseJson(R"({"i":-3,"u":18446744073709551615,"d":1.5,"e":1e2,"s":"a\u00e9","n":null})");
  REQUIRE(root.ok());
  CHECK(*root->Find("i")->As<int64_t>() == -3);
  CHECK(*root->Find("u")->As<uint64_t>() == UINT64_MAX);
  CHECK(*root->Find("d")->As<double>() == 1.5);
  CHECK(*root->Find("e")->As<double>() == 100);
  CHECK(*root->Find("s")->As<std::string>() == "a\xc3\xa9");
  CHECK(root->Find("n")->is_null());
  CHECK(root->Find("absent") == nullptr);
}

}  // namespace
}  // namespace triptych::services
