// The ring of the latest ends is found by any of a request's names, and forgets the oldest.

#include "services/gateway/core/ended_requests.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace triptych::services {
namespace {

EndedRequest Made(int number, const std::string& tag = "") {
  return {.request_id = absl::StrCat("g.", number),
          .client_id = absl::StrCat("chatcmpl-", number),
          .tag = tag,
          .result = "stop",
          .usage = {.output_tokens = number},
          .timeline = {.queue_us = 7, .total_us = 10 * number}};
}

TEST_CASE("EndedRequests: any of its names finds a request, a shared one the latest", "[gateway]") {
  EndedRequests ended;
  CHECK_FALSE(ended.Find("chatcmpl-1").has_value());
  ended.Put(Made(1, "mine"));
  ended.Put(Made(2, "mine"));
  ended.Put(Made(3));
  CHECK(ended.Find("chatcmpl-1")->usage.output_tokens == 1);
  CHECK(ended.Find("g.3")->usage.output_tokens == 3);
  CHECK(ended.Find("mine")->usage.output_tokens == 2);
  CHECK_FALSE(ended.Find("other").has_value());
}

TEST_CASE("EndedRequests: the last thousand are kept", "[gateway]") {
  EndedRequests ended;
  for (int i = 0; i < 1001; ++i) ended.Put(Made(i));
  CHECK_FALSE(ended.Find("g.0").has_value());
  CHECK(ended.Find("g.1").has_value());
  CHECK(ended.Find("g.1000").has_value());
}

TEST_CASE("EndedRequests: one is shown as JSON", "[gateway]") {
  const nlohmann::json json = nlohmann::json::parse(ToJson(Made(4, "mine")));
  CHECK(json.at("id") == "chatcmpl-4");
  CHECK(json.at("x_request_id") == "mine");
  CHECK(json.at("result") == "stop");
  CHECK(json.at("timeline").at("queue_us") == 7);
  CHECK(json.at("timeline").at("total_us") == 40);
}

}  // namespace
}  // namespace triptych::services
