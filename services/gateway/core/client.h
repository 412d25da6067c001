#pragma once

// Who a client is, as far as its connection tells. Without a key that is its address: whatever it
// says of itself, it shares with its address and goes before nobody.

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "services/gateway/request/chat_request.h"

namespace triptych::services {

struct Client {
  std::string owner;         // its connection: only there are its requests cancelled
  std::string tenant;        // for fairness
  int32_t top_priority = 0;  // a higher one that it asks for is lowered to this
  std::string key;           // names its API key; empty: it has none
};

// `address` without a port, "10.0.0.1" or "fe80::1"; `connection` unlike any other. Of an IPv6
// address the first 64 bits count: the rest is its owner's to choose.
Client ClientAt(absl::string_view address, std::string connection);
// Of a connection as gRPC names it: "ipv4:10.0.0.1:5000", "ipv6:%5B::1%5D:5000", "unix:".
Client ClientOfPeer(const std::string& peer);

// What the request says of its client gives way to what is known.
inline void Introduce(const Client& client, ChatRequest* chat) {
  chat->tenant = client.tenant;
  chat->priority = std::min<int64_t>(chat->priority, client.top_priority);
}

}  // namespace triptych::services
