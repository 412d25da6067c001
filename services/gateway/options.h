#pragma once

// The flags of triptych-gateway.

#include <cstdint>
#include <string>

#include "base/config.h"
#include "services/runtime/security_options.h"

namespace triptych::services {

struct GatewayOptions {
  std::string name;
  std::string scheduler;
  std::string http;
  std::string grpc;
  std::string internal;
  std::string admin;
  std::string advertise;
  std::string model;
  std::string served_model_name;
  std::string log_level;
  std::string client_metrics;
  std::string allowed_origins;
  std::string api_keys;
  int64_t payload_budget_mb = 0;
  int64_t peer_share_percent = 0;
  int64_t max_body_mb = 0;
  int64_t max_requests = 0;
  std::string otlp_endpoint;
  double otlp_sample = 0;
  int64_t max_image_mb = 0;
  int64_t max_image_mpixels = 0;
  int64_t max_output_tokens = 0;
  base::Duration request_timeout{0};
  base::Duration drain_timeout{0};
  SecurityOptions security;
  std::string client_tls_cert;
  std::string client_tls_key;
  bool insecure_clients = false;

  void Declare(base::FlagSet* flags);

 private:
  void DeclareProcess(base::FlagSet* flags);
  void DeclareLimits(base::FlagSet* flags);
  void DeclareClients(base::FlagSet* flags);
};

}  // namespace triptych::services
