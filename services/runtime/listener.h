#pragma once

// Binds an acceptor to an address as people write it.

#include <boost/asio/ip/tcp.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace triptych::services {

// `host:port`, where the host is an IPv4 address, an IPv6 address in brackets, or a name (the first
// address that it has here); port 0 takes a free one. The address as bound, in the same form.
// INVALID_ARGUMENT for another form or an unknown name; UNAVAILABLE, with the system's reason, when
// it cannot be bound. Blocks while a name is looked up: for the start of a process.
absl::StatusOr<std::string> Listen(const std::string& address, int backlog,
                                   boost::asio::ip::tcp::acceptor* acceptor);

}  // namespace triptych::services
