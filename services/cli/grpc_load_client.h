#pragma once

// Load through triptych.v1.Inference.

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "services/cli/load_client.h"
#include "triptych/v1/inference.grpc.pb.h"

namespace triptych::services {

class GrpcLoadClient final : public LoadClient {
 public:
  // `server` is host:port; requests take its `channels` connections in turn.
  GrpcLoadClient(const std::string& server, int channels, base::Duration request_timeout);
  void Send(const v1::GenerateRequest& request, LoadListener* listener) override;

 private:
  class Call;
  const base::Duration request_timeout_;
  std::vector<std::unique_ptr<v1::Inference::Stub>> stubs_;
  size_t next_ = 0;
};

}  // namespace triptych::services
