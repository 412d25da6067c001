// Defends who a client is held for: its address, whatever it says, and half of it where the other
// half is the client's to choose.

#include "services/gateway/core/client.h"

#include <catch2/catch.hpp>
#include <set>

#include "services/gateway/core/front_end.h"

namespace triptych::services {
namespace {

TEST_CASE("Client: the tenant is the address, without its port", "[gateway][core][security]") {
  CHECK(ClientOfPeer("ipv4:10.0.0.1:5000").tenant == "10.0.0.1");
  CHECK(ClientOfPeer("ipv4:10.0.0.1:5000").owner != ClientOfPeer("ipv4:10.0.0.1:5001").owner);
  CHECK(ClientAt("10.0.0.1", "").tenant == "10.0.0.1");
  CHECK(ClientAt("::ffff:10.0.0.1", "").tenant == "10.0.0.1");
  CHECK(ClientOfPeer("ipv6:%5B::ffff:10.0.0.1%5D:80").tenant == "10.0.0.1");
  CHECK(ClientOfPeer("unix:").tenant == "local");
  CHECK(ClientAt("", "").tenant == "local");
}

TEST_CASE("Client: of an IPv6 address the first half counts", "[gateway][core][security]") {
  const auto tenant = [](const char* address) { return ClientAt(address, "").tenant; };
  CHECK(tenant("2001:db8:1:2::5") == "v6-2001-db8-1-2");
  CHECK(tenant("2001:db8:1:2:ffff:ffff:1:9") == "v6-2001-db8-1-2");
  CHECK(tenant("2001:db8:1:3::5") != tenant("2001:db8:1:2::5"));
  CHECK(tenant("::1") == "v6-0-0-0-0");
  CHECK(tenant("fe80::1%eth0") == "v6-fe80-0-0-0");
  CHECK(ClientOfPeer("ipv6:[2001:db8:1:2::7]:99").tenant == "v6-2001-db8-1-2");
  CHECK(tenant("1::2:3:4:5:6:7") == "v6-1-0-2-3");
}

TEST_CASE("Client: what it says of itself gives way to what is known",
          "[gateway][core][security]") {
  ChatRequest chat;
  chat.tenant = "somebody else";
  chat.priority = 100;
  Introduce(ClientAt("10.0.0.1", ""), &chat);
  CHECK(chat.tenant == "10.0.0.1");
  CHECK(chat.priority == 0);
  chat.priority = -5;
  Introduce(ClientAt("10.0.0.1", ""), &chat);
  CHECK(chat.priority == -5);
}

TEST_CASE("Client: names are drawn from 128 bits, and a seed is in none of them",
          "[gateway][core][security]") {
  std::set<std::string> names;
  for (int i = 0; i < 1000; ++i) names.insert(DrawClientId());
  CHECK(names.size() == 1000);
  CHECK(names.begin()->size() == std::string("chatcmpl-").size() + 32);
  ParsedRequest parsed;
  CompleteRequest(&parsed);
  const uint64_t seed = parsed.input.sampling.seed;
  CHECK(parsed.client_id.find(absl::StrCat(absl::Hex(seed))) == std::string::npos);
  parsed.seed_given = true;
  CompleteRequest(&parsed);
  CHECK(parsed.input.sampling.seed == seed);
}

}  // namespace
}  // namespace triptych::services
