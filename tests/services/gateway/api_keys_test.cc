// Defended: who has no key of the file is nobody, a key gives its tenant, its top priority and its
// rates, and a file that changes is read again, unless it has become wrong. Time is simulated.

#include "services/gateway/core/api_keys.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

std::string DigestOf(const std::string& key) {
  const base::Sha256Digest digest = base::Sha256(key);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

class KeyFile {
 public:
  explicit KeyFile(const std::string& text)
      : path_(absl::StrCat("/tmp/triptych-keys-", getpid(), ".json")) {
    Write(text);
  }
  ~KeyFile() { std::filesystem::remove(path_); }
  // Each text is later than the one before.
  void Write(const std::string& text) {
    std::ofstream(path_, std::ios::trunc) << text;
    written_ += std::chrono::seconds(1);
    std::filesystem::last_write_time(path_, written_);
  }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  std::filesystem::file_time_type written_{std::chrono::hours(24)};
};

std::string OneKey(const std::string& more = "") {
  return absl::StrCat(R"({"keys":[{"sha256":")", DigestOf("secret"), R"(","tenant":"team")", more,
                      "}]}");
}

ParsedRequest Costing(int32_t tokens, int64_t patches) {
  ParsedRequest request;
  request.submit.prompt_tokens = tokens;
  request.submit.items = {{.patches = patches}};
  return request;
}

Client Somebody() { return ClientAt("10.0.0.1", "connection"); }

TEST_CASE("ApiKeys: without a file everybody is its address", "[gateway][core][security]") {
  base::SimulatedClock clock;
  ApiKeys keys(clock);
  CHECK(keys.Identify("", Somebody())->tenant == "10.0.0.1");
  CHECK(keys.Identify("Bearer x", Somebody())->owner == "connection");
  CHECK(keys.Charge(Somebody(), Costing(1 << 20, 1 << 20), "model").ok());
}

TEST_CASE("ApiKeys: a key is its tenant, and without one there is nothing",
          "[gateway][core][security]") {
  base::SimulatedClock clock;
  const KeyFile file(OneKey(R"(,"max_priority":7)"));
  const auto keys = ApiKeys::Load(file.path(), clock);
  REQUIRE(keys.ok());
  for (const char* wrong : {"", "Bearer", "Bearer ", "Bearer Secret", "Basic secret", "secret"}) {
    INFO(wrong);
    const auto client = (*keys)->Identify(wrong, Somebody());
    REQUIRE_FALSE(client.ok());
    CHECK(ToClientError(client.status()).http_status == 401);
    CHECK(absl::IsUnauthenticated(client.status()));
  }
  const auto client = (*keys)->Identify("bearer secret", Somebody());
  REQUIRE(client.ok());
  CHECK(client->tenant == "team");
  CHECK(client->top_priority == 7);
  CHECK(client->owner != "connection");
}

TEST_CASE("ApiKeys: a rate is used up and comes back", "[gateway][core][security]") {
  base::SimulatedClock clock;
  const KeyFile file(OneKey(R"(,"requests_per_minute":3,"tokens_per_minute":1000,)"
                            R"("patches_per_minute":60,"models":["a"])"));
  const auto keys = ApiKeys::Load(file.path(), clock);
  REQUIRE(keys.ok());
  const Client client = (*keys)->Identify("Bearer secret", Somebody()).value();
  CHECK(ToClientError((*keys)->Charge(client, Costing(1, 0), "b")).http_status == 404);
  CHECK(ToClientError((*keys)->Charge(client, Costing(1001, 0), "a")).http_status == 429);
  CHECK(ToClientError((*keys)->Charge(client, Costing(1, 61), "a")).http_status == 429);
  for (int i = 0; i < 3; ++i) CHECK((*keys)->Charge(client, Costing(100, 10), "a").ok());
  CHECK_FALSE((*keys)->Charge(client, Costing(100, 10), "a").ok());
  clock.Advance(std::chrono::seconds(20));
  CHECK((*keys)->Charge(client, Costing(100, 10), "a").ok());
  CHECK_FALSE((*keys)->Charge(client, Costing(100, 10), "a").ok());
}

TEST_CASE("ApiKeys: a file that changes is read again, one that is wrong is not",
          "[gateway][core][security]") {
  base::SimulatedClock clock;
  KeyFile file(OneKey());
  const auto keys = ApiKeys::Load(file.path(), clock);
  REQUIRE(keys.ok());
  const auto known = [&] {
    clock.Advance(std::chrono::seconds(3));
    return (*keys)->Identify("Bearer secret", Somebody()).ok();
  };
  CHECK(known());
  file.Write("{");
  CHECK(known());
  file.Write(R"({"keys":[]})");
  CHECK_FALSE(known());
  file.Write(OneKey());
  CHECK(known());
}

TEST_CASE("ApiKeys: a wrong file is refused at the start", "[gateway][core]") {
  base::SimulatedClock clock;
  for (const std::string& text :
       {std::string("["), std::string("{}"), std::string(R"({"keys":[{}]})"),
        std::string(R"({"keys":[{"sha256":"ab","tenant":"t"}]})"),
        absl::StrCat(R"({"keys":[{"sha256":")", DigestOf("k"), R"(","tenant":""}]})"),
        absl::StrCat(R"({"keys":[{"sha256":")", DigestOf("k"), R"(","tenant":5}]})")}) {
    INFO(text);
    const KeyFile file(text);
    CHECK(absl::IsInvalidArgument(ApiKeys::Load(file.path(), clock).status()));
  }
  CHECK(absl::IsInvalidArgument(ApiKeys::Load("/nowhere", clock).status()));
}

}  // namespace
}  // namespace triptych::services
