#include "services/gateway/gateway.h"

#include <algorithm>
#include <cstdio>
#include <future>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/random.h"
#include "base/status.h"
#include "base/version.h"
#include "services/gateway/core/front_end.h"
#include "services/gateway/http/http_server.h"
#include "services/gateway/rpc/http2_gate.h"
#include "services/gateway/rpc/inference_service.h"
#include "services/gateway/rpc/payload_service.h"
#include "services/gateway/rpc/tokens_service.h"
#include "services/gateway/scheduler_link.h"
#include "services/gateway/trace/span_exporter.h"
#include "services/runtime/admin_server.h"
#include "services/runtime/build_info.h"
#include "services/runtime/descriptors.h"
#include "services/runtime/dialable.h"
#include "services/runtime/method_callers.h"
#include "services/runtime/rpc_server.h"
#include "services/runtime/security_options.h"
#include "services/runtime/self_probe.h"
#include "services/runtime/shutdown.h"
#include "services/runtime/wall_clock.h"

namespace triptych::services {

namespace {

// One reads for others while a tenant keeps the other busy. They wait for no device.
constexpr int kParsers = 2;

bool ServesClientMetrics(const GatewayOptions& options) {
  if (options.client_metrics == "auto") return IsLoopback(options.http);
  return options.client_metrics == "on";
}

// INVALID_ARGUMENT where the client ports would be plain and are not meant to be.
absl::Status LoadClientTls(const GatewayOptions& options, const base::Clock& clock,
                           std::unique_ptr<base::TlsServer>* http,
                           std::unique_ptr<base::TlsServer>* grpc) {
  const base::TlsServer::Files files{.cert = options.client_tls_cert,
                                     .key = options.client_tls_key};
  if (files.cert.empty() != files.key.empty()) {
    return absl::InvalidArgumentError("--client-tls-cert and --client-tls-key go together");
  }
  if (!files.cert.empty()) {
    if (options.insecure_clients) {
      return absl::InvalidArgumentError("want --client-tls-cert or --insecure-clients, not both");
    }
    ASSIGN_OR_RETURN(*http, base::TlsServer::Load(files, "http/1.1", clock));
    ASSIGN_OR_RETURN(*grpc, base::TlsServer::Load(files, "h2", clock));
    return absl::OkStatus();
  }
  if (options.insecure_clients || (IsLoopback(options.http) && IsLoopback(options.grpc))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "--http and --grpc are plain: beyond loopback they want --client-tls-cert and "
      "--client-tls-key, or --insecure-clients");
}

media::Limits ImageLimits(const GatewayOptions& options) {
  media::Limits limits;
  limits.max_bytes = options.max_image_mb << 20;
  limits.max_stored_pixels = options.max_image_mpixels * 1'000'000;
  limits.max_pixels = std::min(limits.max_pixels, limits.max_stored_pixels);
  return limits;
}

}  // namespace

// In the order of construction; destroyed from the outside in: first the ports, then the core.
struct Gateway::Parts {
  struct Loaded {
    base::RpcSecurity security;
    std::unique_ptr<ServedModel> model;
    std::unique_ptr<ApiKeys> keys;
    std::unique_ptr<base::TlsServer> http_tls, grpc_tls;
  };

  Parts(const GatewayOptions& options, Loaded loaded, const base::Clock& clock, base::Logger* log)
      : options(options),
        security(std::move(loaded.security)),
        keys(std::move(loaded.keys)),
        http_tls(std::move(loaded.http_tls)),
        grpc_tls(std::move(loaded.grpc_tls)),
        clock(clock),
        log(log),
        model(std::move(loaded.model)),
        intake(*model, {.max_output_tokens = static_cast<int32_t>(options.max_output_tokens),
                        .max_timeout = options.request_timeout,
                        .image = ImageLimits(options)}),
        budget(options.payload_budget_mb << 20,
               (options.payload_budget_mb << 20) * options.peer_share_percent / 100),
        core(scheduler::Incarnation(base::RandomBits64()), clock,
             std::make_unique<RequestDesk>(
                 model->tokenizer(), model->digest(),
                 scheduler::DeliveryLimits{.max_requests = static_cast<int>(options.max_requests),
                                           .vocab_size = model->config().vocab_size},
                 &metrics, log),
             [this](absl::Span<const scheduler::GatewayToScheduler> messages) { Send(messages); }),
        front{.intake = intake,
              .core = core,
              .budget = budget,
              .keys = *keys,
              .parsers = parsers,
              .metrics = metrics,
              .log = log,
              .tracer = tracer,
              .ready = [this] { return Ready(); },
              .client_of = [this](const std::string& peer) { return gate->ClientOf(peer); },
              .unix_seconds = base::UnixSeconds,
              .serves_since = base::UnixSeconds(),
              .max_body_bytes = options.max_body_mb << 20,
              .http_tls = http_tls.get(),
              .grpc_tls = grpc_tls.get(),
              .client_metrics = ServesClientMetrics(options)
                                    ? std::function<std::string()>([this] { return Metrics(); })
                                    : nullptr,
              .allowed_origins = absl::StrSplit(options.allowed_origins, ',', absl::SkipEmpty())},
        tokens(&core, pass_key),
        payload(&core, pass_key),
        inference(front) {
    core.Call([this](RequestDesk& desk, base::TimePoint) {
      desk.set_on_ended([this](EndedRequest request) { Keep(std::move(request)); });
    });
  }

  // No answer may wake a front end that is gone: the core ends what is live and stops first.
  ~Parts() {
    link_ready.store(nullptr);
    core.Call([](RequestDesk& desk, base::TimePoint now) { desk.EndAll(now); });
    core.Stop();
    parsers.Stop();
    exporter.reset();
    http.reset();
    if (gate != nullptr) gate->StopAccepting();
    if (grpc != nullptr) grpc->Stop(std::chrono::milliseconds(500));
    gate.reset();
    if (internal != nullptr) internal->Stop(std::chrono::milliseconds(200));
    admin.reset();
    link.reset();
  }

  void Send(absl::Span<const scheduler::GatewayToScheduler> messages) {
    if (SchedulerLink* to = link_ready.load()) to->Send(messages);
  }
  bool Ready() const {
    SchedulerLink* to = link_ready.load();
    return to != nullptr && to->ready() && !draining.load() && probe.answers();
  }
  std::string Metrics() {
    const int64_t held = (options.payload_budget_mb << 20) - budget.free_bytes();
    metrics.held_payload_bytes.Set(static_cast<double>(held));
    return registry.Serialize();
  }
  // On the core's thread.
  void Keep(EndedRequest request) {
    if (SpanExporter* to = exporter_ready.load(); to != nullptr && request.trace.sampled) {
      to->Put({request, UnixNanoseconds()});
    }
    ended.Put(std::move(request));
  }
  std::optional<std::string> TimelineAt(absl::string_view path) const {
    if (!absl::ConsumePrefix(&path, "/timeline/")) return std::nullopt;
    const std::optional<EndedRequest> found = ended.Find(path);
    if (!found.has_value()) return std::nullopt;
    return ToJson(*found);
  }
  // On the core's thread alone, so that the last word is the newest.
  void TellHealth() { grpc->SetServing(Ready()); }

  absl::Status Listen();

  const GatewayOptions options;
  const base::RpcSecurity security;
  const scheduler::PassKey pass_key{base::RandomBits64(), base::RandomBits64()};
  const std::unique_ptr<ApiKeys> keys;
  const std::unique_ptr<base::TlsServer> http_tls, grpc_tls;
  const base::Clock& clock;
  base::Logger* const log;
  base::Registry registry;
  GatewayMetrics metrics{&registry};
  const std::unique_ptr<ServedModel> model;
  const Intake intake;
  PayloadBudget budget;
  EndedRequests ended;
  const Tracer tracer{options.otlp_endpoint.empty() ? 0 : options.otlp_sample, base::RandomBits64};
  std::atomic<SpanExporter*> exporter_ready{nullptr};
  std::unique_ptr<SpanExporter> exporter;
  std::atomic<bool> draining{false};
  std::atomic<SchedulerLink*> link_ready{nullptr};
  SelfProbe probe{clock};
  GatewayCore core;
  ParsePool parsers{kParsers};
  const FrontEnd front;
  TokensService tokens;
  PayloadService payload;
  InferenceService inference;
  std::unique_ptr<AdminServer> admin;
  std::unique_ptr<RpcServer> internal;
  std::unique_ptr<RpcServer> grpc;
  std::unique_ptr<Http2Gate> gate;
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<SchedulerLink> link;
};

absl::Status Gateway::Parts::Listen() {
  DescribeBuild("gateway", model->name(), &registry);
  const SpanExporter::Counters traces = SpanExporter::CountersIn(&registry);
  if (!options.otlp_endpoint.empty()) {
    ASSIGN_OR_RETURN(exporter,
                     SpanExporter::Start(options.otlp_endpoint, clock, base::RandomBits64, traces));
    exporter_ready.store(exporter.get());
  }
  AdminPages pages{.metrics = [this] { return Metrics(); },
                   .alive = [] { return true; },
                   .ready = [this] { return Ready(); },
                   .other = [this](absl::string_view path) { return TimelineAt(path); }};
  ASSIGN_OR_RETURN(admin, AdminServer::Start(options.admin, std::move(pages)));
  ASSIGN_OR_RETURN(internal,
                   RpcServer::Start(options.internal, base::RpcAudience::kInternal,
                                    security.Server(CallersOfMethod), {&tokens, &payload}));
  ASSIGN_OR_RETURN(grpc, RpcServer::StartWithoutPort(base::RpcAudience::kClients, {&inference}));
  grpc->SetServing(false);
  ASSIGN_OR_RETURN(gate, Http2Gate::Start(options.grpc, front, grpc.get()));
  ASSIGN_OR_RETURN(http, HttpServer::Start(options.http, front));
  const bool plain = front.grpc_tls == nullptr;
  probe.Start({{gate->address(), plain ? grpc::InsecureChannelCredentials() : BelieveAnybody()},
               {internal->address(), security.ChannelTo(base::Role::kGateway)}});
  link = std::make_unique<SchedulerLink>(
      base::Connect(options.scheduler, security, base::Role::kScheduler),
      GatewayIdentity{
          .name = options.name,
          .address = options.advertise.empty() ? internal->address() : Dialable(options.advertise),
          .admin = admin->address(),
          .pass_key = pass_key},
      &core, clock, [this] { TellHealth(); });
  link_ready.store(link.get());
  // What the link heard before it could be asked.
  core.Call([this](RequestDesk&, base::TimePoint) { TellHealth(); });
  return absl::OkStatus();
}

Gateway::Gateway(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Gateway::~Gateway() = default;

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Start(const GatewayOptions& options,
                                                        const base::Clock& clock,
                                                        base::Logger* log) {
  ASSIGN_OR_RETURN(base::RpcSecurity security, options.security.Open({options.internal}));
  Parts::Loaded loaded{.security = std::move(security)};
  RETURN_IF_ERROR(LoadClientTls(options, clock, &loaded.http_tls, &loaded.grpc_tls));
  ASSIGN_OR_RETURN(loaded.model, ServedModel::Load(options.model, options.served_model_name));
  loaded.keys = std::make_unique<ApiKeys>(clock);
  if (!options.api_keys.empty()) {
    ASSIGN_OR_RETURN(loaded.keys, ApiKeys::Load(options.api_keys, clock));
  }
  auto parts = std::make_unique<Parts>(options, std::move(loaded), clock, log);
  RETURN_IF_ERROR(parts->Listen());
  return std::unique_ptr<Gateway>(new Gateway(std::move(parts)));
}

std::string Gateway::Addresses() const {
  return absl::StrCat("http=", parts_->http->address(), " grpc=", parts_->gate->address(),
                      " internal=", parts_->internal->address(),
                      " admin=", parts_->admin->address());
}

const std::string& Gateway::model_name() const { return parts_->model->name(); }

void Gateway::Drain() {
  parts_->draining.store(true);
  std::promise<void> idle;
  const base::TimePoint until = parts_->clock.Now() + parts_->options.drain_timeout;
  const bool posted =
      parts_->core.Post([parts = parts_.get(), &idle, until](RequestDesk& desk, base::TimePoint) {
        parts->TellHealth();
        desk.Drain(until, [&idle] { idle.set_value(); });
      });
  // A queue that is full now drops the rest anyway.
  if (posted) idle.get_future().wait();
}

int RunGateway(int argc, const char* const* argv) {
  BlockShutdownSignals();
  RaiseDescriptorLimit();
  GatewayOptions options;
  base::FlagSet flags("triptych-gateway [flags]: the client API of a cluster");
  options.Declare(&flags);
  if (const int exit_code = base::ParseCommandLine(argc, argv, &flags); exit_code >= 0) {
    return exit_code;
  }
  const base::RealClock clock;
  base::StreamLogger log(clock, options.name, base::LogLevelOf(options.log_level));
  absl::StatusOr<std::unique_ptr<Gateway>> gateway = Gateway::Start(options, clock, &log);
  if (!gateway.ok()) {
    std::fprintf(stderr, "triptych-gateway: %s\n", gateway.status().ToString().c_str());
    return 1;
  }
  std::printf("listening %s\n", (*gateway)->Addresses().c_str());
  std::fflush(stdout);
  log.Info("serving", {},
           {{"version", base::kVersion},
            {"model", (*gateway)->model_name()},
            {"addresses", (*gateway)->Addresses()},
            {"flags", absl::StrJoin(argv + 1, argv + argc, " ")}});
  WaitForShutdownSignal();
  log.Info("draining");
  (*gateway)->Drain();
  return 0;
}

}  // namespace triptych::services
