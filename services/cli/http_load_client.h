#pragma once

// Load through the OpenAI chat API with server-sent events: for this project's gateways and for
// other servers beside them. One thread runs all connections; a connection serves one request at a
// time and is used again.

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "services/cli/load_client.h"

namespace triptych::services {

class HttpLoadClient final : public LoadClient {
 public:
  // `server` is host:port, whose model is asked for once. UNAVAILABLE when it does not answer,
  // INVALID_ARGUMENT for an address that is none.
  static absl::StatusOr<std::unique_ptr<HttpLoadClient>> Connect(const std::string& server,
                                                                 base::Duration request_timeout);
  ~HttpLoadClient() override;
  void Send(const v1::GenerateRequest& request, LoadListener* listener) override;

 private:
  class Connection;
  HttpLoadClient(std::string server, std::string model, base::Duration request_timeout);

  const std::string server_;
  const std::string model_;
  const base::Duration request_timeout_;
  boost::asio::io_context context_{1};  // before the connections that live in it
  boost::asio::ip::tcp::resolver::results_type endpoints_;
  // Only on the client's thread. Shared with the operations under way.
  std::vector<std::shared_ptr<Connection>> idle_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

}  // namespace triptych::services
