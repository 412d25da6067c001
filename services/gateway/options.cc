#include "services/gateway/options.h"

#include "base/log.h"

namespace triptych::services {

void GatewayOptions::Declare(base::FlagSet* flags) {
  DeclareProcess(flags);
  DeclareLimits(flags);
  DeclareClients(flags);
}

void GatewayOptions::DeclareProcess(base::FlagSet* flags) {
  constexpr auto kRequired = base::Presence::kRequired;
  flags->AddString(&name, {.name = "name",
                           .doc = "name in logs and in the cluster's list",
                           .default_value = "gateway"});
  flags->AddString(
      &scheduler,
      {.name = "scheduler", .doc = "host:port of the scheduler", .presence = kRequired});
  flags->AddString(&http, {.name = "http",
                           .doc = "host:port of the OpenAI API, port 0 for any",
                           .default_value = "127.0.0.1:0"});
  flags->AddString(&grpc, {.name = "grpc",
                           .doc = "host:port of the gRPC API, port 0 for any",
                           .default_value = "127.0.0.1:0"});
  flags->AddString(&internal, {.name = "internal",
                               .doc = "host:port of the services for workers, port 0 for any",
                               .default_value = "127.0.0.1:0"});
  flags->AddString(&admin, {.name = "admin",
                            .doc = "host:port of metrics, port 0 for any",
                            .default_value = "127.0.0.1:0"});
  flags->AddString(&advertise, {.name = "advertise",
                                .doc = "host:port at which workers reach --internal; empty: as "
                                       "bound"});
  flags->AddString(&model,
                   {.name = "model", .doc = "directory of the checkpoint", .presence = kRequired});
  flags->AddString(&served_model_name,
                   {.name = "served-model-name",
                    .doc = "names that clients may use, separated by commas, the first of them the "
                           "model's own; empty: the last part of --model"});
  flags->AddChoice(&client_metrics, {.name = "client-metrics",
                                     .doc = "/metrics on the --http port too; auto: where that "
                                            "is an address of this machine alone",
                                     .choices = {"auto", "on", "off"}});
  flags->AddString(&allowed_origins, {.name = "allowed-origins",
                                      .doc = "pages that may use the HTTP API from a browser, as "
                                             "https://host:port, separated by commas; *: any"});
  flags->AddString(&otlp_endpoint,
                   {.name = "otlp-endpoint",
                    .doc = "http://host:port of a collector of traces, which takes OTLP over HTTP "
                           "as JSON; empty: no traces"});
  flags->AddDouble(&otlp_sample, {.name = "otlp-sample",
                                  .doc = "share of the requests without a traceparent that are "
                                         "traced; those with one are as it says",
                                  .default_value = 0.01,
                                  .max = 1});
  flags->AddChoice(&log_level, {.name = "log-level",
                                .doc = "least that is logged; info: each request's end",
                                .choices = base::LogLevelNames()});
  security.Declare(flags);
}

void GatewayOptions::DeclareLimits(base::FlagSet* flags) {
  flags->AddInt(&payload_budget_mb, {.name = "payload-budget-mb",
                                     .doc = "memory for bodies and media of all live requests",
                                     .default_value = 1024,
                                     .min = 1,
                                     .max = 1 << 20});
  flags->AddInt(&peer_share_percent, {.name = "peer-share-percent",
                                      .doc = "most of that memory for one peer address",
                                      .default_value = 50,
                                      .min = 1,
                                      .max = 100});
  flags->AddInt(&max_body_mb, {.name = "max-body-mb",
                               .doc = "largest body of one request",
                               .default_value = 64,
                               .min = 1,
                               .max = 1024});
  flags->AddInt(&max_image_mb, {.name = "max-image-mb",
                                .doc = "largest file of one picture",
                                .default_value = 20,
                                .min = 1,
                                .max = 20});
  flags->AddInt(&max_image_mpixels,
                {.name = "max-image-mpixels",
                 .doc = "most pixels of a picture, in millions, as its file has them",
                 .default_value = 179,
                 .min = 1,
                 .max = 179});
  flags->AddInt(&max_requests, {.name = "max-requests",
                                .doc = "live requests at once",
                                .default_value = 4096,
                                .min = 1,
                                .max = 1 << 16});
  flags->AddInt(&max_output_tokens, {.name = "max-output-tokens",
                                     .doc = "longest answer; 0: what the context holds",
                                     .default_value = 0,
                                     .min = 0,
                                     .max = 1 << 20});
  flags->AddDuration(&request_timeout, {.name = "request-timeout",
                                        .doc = "longest life of a request",
                                        .default_value = std::chrono::minutes(10),
                                        .min = std::chrono::milliseconds(1),
                                        .max = std::chrono::hours(24)});
  flags->AddDuration(&drain_timeout, {.name = "drain-timeout",
                                      .doc = "how long live requests may go on after SIGTERM",
                                      .default_value = std::chrono::seconds(30),
                                      .max = std::chrono::hours(1)});
}

void GatewayOptions::DeclareClients(base::FlagSet* flags) {
  flags->AddString(&api_keys, {.name = "api-keys",
                               .doc = "JSON file of the clients' keys, read again when it changes; "
                                      "empty: a client is its address"});
  flags->AddString(&client_tls_cert,
                   {.name = "client-tls-cert",
                    .doc = "PEM file of the certificate, and those that lead to its authority, for "
                           "TLS on --http and --grpc; read again when it changes; empty: plain"});
  flags->AddString(&client_tls_key,
                   {.name = "client-tls-key", .doc = "PEM file of its private key"});
  flags->AddBool(&insecure_clients,
                 {.name = "insecure-clients",
                  .doc = "the client ports are plain and may listen beyond loopback: TLS ends "
                         "before them, or nobody minds"});
}

}  // namespace triptych::services
