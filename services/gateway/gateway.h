#pragma once

// triptych-gateway's object graph: built once, served until told to stop.

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "services/gateway/options.h"

namespace triptych::services {

class Gateway {
 public:
  // Loads the model, binds all ports and starts. Errors as ServedModel::Load and
  // SecurityOptions::Open, or UNAVAILABLE for a port. Borrows `clock` and `log`.
  static absl::StatusOr<std::unique_ptr<Gateway>> Start(const GatewayOptions& options,
                                                        const base::Clock& clock,
                                                        base::Logger* log);
  ~Gateway();

  // "http=H:P grpc=H:P internal=H:P admin=H:P"
  std::string Addresses() const;
  const std::string& model_name() const;
  // Refuses new requests, waits for the live ones as long as the options allow, and ends the rest.
  void Drain();

 private:
  struct Parts;
  explicit Gateway(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

// All of main but its name.
int RunGateway(int argc, const char* const* argv);

}  // namespace triptych::services
