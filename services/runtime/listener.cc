#include "services/runtime/listener.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace triptych::services {

using Tcp = boost::asio::ip::tcp;

absl::StatusOr<std::string> Listen(const std::string& address, int backlog,
                                   Tcp::acceptor* acceptor) {
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port < 0 || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("not host:port: ", address));
  }
  const std::string written = address.substr(0, colon);
  const bool bracketed = written.size() > 2 && written.front() == '[' && written.back() == ']';
  const std::string host = bracketed ? written.substr(1, written.size() - 2) : written;
  boost::system::error_code error;
  Tcp::resolver resolver(acceptor->get_executor());
  const auto found = resolver.resolve(host, absl::StrCat(port), error);
  if (error || found.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no address for ", address, ": ", error.message()));
  }
  const Tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor->open(endpoint.protocol(), error);
  if (!error) acceptor->set_option(boost::asio::socket_base::reuse_address(true), error);
  if (!error) acceptor->bind(endpoint, error);
  if (!error) acceptor->listen(backlog, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address, ": ", error.message()));
  }
  // A bare IPv6 address would read as one with a port too many.
  const bool bare = !bracketed && written.find(':') != std::string::npos;
  return absl::StrCat(bare ? "[" : "", written, bare ? "]" : "", ":",
                      acceptor->local_endpoint().port());
}

}  // namespace triptych::services
