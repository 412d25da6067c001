// The table of members: each row does what it says, and docs/api.md has the same rows.

#include "services/gateway/request/request_fields.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/openai_request.h"

namespace triptych::services {
namespace {

absl::StatusOr<OpenAiRequest> ParseWith(const std::string& name, const std::string& value) {
  return ParseOpenAiRequest(
      absl::StrCat(R"({"messages":[{"role":"user","content":"Hello"}],")", name, "\":", value, "}"),
      Endpoint::kChat);
}

const char* NameOf(Treatment treatment) {
  if (treatment == Treatment::kHonoured) return "honoured";
  return treatment == Treatment::kRefused ? "refused" : "harmless";
}

std::vector<std::string> NeutralValues(const RequestField& field) {
  std::vector<std::string> values = {"null", "[]", "{}", "\"\""};
  switch (field.neutral) {
    case Neutral::kEmpty:
      break;
    case Neutral::kFalse:
      values.push_back("false");
      break;
    case Neutral::kTrue:
      values.push_back("true");
      break;
    case Neutral::kZero:
      values.insert(values.end(), {"0", "0.0", "-0.0"});
      break;
    case Neutral::kOne:
      values.insert(values.end(), {"1", "1.0"});
      break;
    case Neutral::kMinusOne:
      values.push_back("-1");
      break;
    case Neutral::kNamed: {
      const std::string named = field.named;
      const std::string first = named.substr(1, named.find('|', 1) - 1);
      values.push_back(absl::StrCat("\"", first, "\""));
      values.push_back(absl::StrCat("[\"", first, "\"]"));
      break;
    }
  }
  return values;
}

TEST_CASE("RequestFields: a refused member is refused by name, unless it asks for nothing",
          "[gateway][request]") {
  int refused = 0;
  for (const RequestField& field : RequestFields()) {
    INFO(field.name);
    if (field.treatment != Treatment::kRefused) continue;
    ++refused;
    for (const std::string& value : NeutralValues(field)) {
      INFO(value);
      CHECK(ParseWith(field.name, value).ok());
    }
    for (const char* value : {"2", "\"x\"", "[1]", "{\"a\":1}", "\"|\"", "-2.5"}) {
      INFO(value);
      const auto request = ParseWith(field.name, value);
      REQUIRE_FALSE(request.ok());
      const ClientError error = ToClientError(request.status());
      CHECK(error.code == std::string("invalid_request"));
      CHECK(error.param == field.name);
      CHECK(error.message.find("is not offered") != std::string::npos);
    }
  }
  CHECK(refused > 50);
}

TEST_CASE("RequestFields: harmless and unknown members change nothing, the unknown are named",
          "[gateway][request]") {
  for (const RequestField& field : RequestFields()) {
    if (field.treatment != Treatment::kHarmless) continue;
    INFO(field.name);
    for (const char* value : {"2", "\"x\"", "[1]", "{\"a\":1}", "true", "null"}) {
      const auto request = ParseWith(field.name, value);
      REQUIRE(request.ok());
      CHECK(request->unknown.empty());
    }
  }
  const auto request = ParseWith("bogus", "1");
  REQUIRE(request.ok());
  CHECK(request->unknown == std::vector<std::string>{"bogus"});
}

TEST_CASE("RequestFields: an honoured member is read, so a wrong type of it is told",
          "[gateway][request]") {
  for (const RequestField& field : RequestFields()) {
    if (field.treatment != Treatment::kHonoured || field.name == std::string("prompt")) continue;
    if (field.name == std::string("messages")) continue;
    INFO(field.name);
    // No member takes a list of lists.
    const auto request = ParseWith(field.name, "[[]]");
    REQUIRE_FALSE(request.ok());
    CHECK(ToClientError(request.status()).param.find(field.name) == 0);
  }
}

TEST_CASE("RequestFields: docs/api.md has the same rows", "[gateway][request]") {
  std::map<std::string, std::string> rows;
  std::ifstream file("docs/api.md");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("| `", 0) != 0) continue;
    const size_t end = line.find("` | ", 3);
    if (end == std::string::npos) continue;
    const size_t begin = end + 4;
    rows[line.substr(3, end - 3)] = line.substr(begin, line.find(' ', begin) - begin);
  }
  for (const RequestField& field : RequestFields()) {
    INFO(field.name);
    CHECK(rows[field.name] == NameOf(field.treatment));
  }
}

}  // namespace
}  // namespace triptych::services
