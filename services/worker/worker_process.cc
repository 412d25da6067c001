#include "services/worker/worker_process.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/config.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/status.h"
#include "base/version.h"
#include "media/sandbox.h"
#include "models/processor/chat_layout.h"
#include "models/weights/fingerprint.h"
#include "services/runtime/admin_server.h"
#include "services/runtime/build_info.h"
#include "services/runtime/descriptors.h"
#include "services/runtime/dialable.h"
#include "services/runtime/method_callers.h"
#include "services/runtime/rpc_server.h"
#include "services/runtime/self_probe.h"
#include "services/runtime/shutdown.h"
#include "services/worker/grpc_links.h"
#include "services/worker/transfer_service.h"
#include "services/worker/worker_device.h"
#include "services/worker/worker_options.h"
#include "services/worker/worker_transports.h"

namespace triptych::services {
namespace {

// A step of so few tokens takes as long as one of many.
constexpr int32_t kLeastEarlyTokens = 64;

absl::StatusOr<scheduler::WorkerProfile> ProfileOf(const WorkerOptions& options,
                                                   const engine::Capacity& capacity,
                                                   const std::string& weights_digest) {
  scheduler::WorkerProfile profile;
  profile.name = options.name;
  profile.incarnation = scheduler::Incarnation(base::RandomBits64());
  if (!scheduler::ParseRoles(options.roles, &profile.roles)) {
    return absl::InvalidArgumentError("--roles: want encode, prefill, decode, joined by +");
  }
  ASSIGN_OR_RETURN(const std::string texts, models::TextsDigest(options.model));
  profile.fingerprint = models::Fingerprint(texts, weights_digest, capacity.compute_format);
  profile.pid = getpid();
  profile.kv_block_tokens = capacity.kv_block_tokens;
  profile.kv_blocks = capacity.kv_blocks;
  profile.embedding_slots = capacity.embedding_slots;
  profile.embedding_page_slots = capacity.embedding_page_slots;
  profile.max_sequences = static_cast<int32_t>(options.max_sequences);
  profile.max_encodes = static_cast<int32_t>(options.max_encodes);
  profile.kv_bytes_per_token = capacity.kv_bytes_per_token;
  return profile;
}

scheduler::StageConfig StageConfigOf(const WorkerOptions& options, const models::ModelConfig& model,
                                     const engine::Executor& executor,
                                     scheduler::WorkerProfile profile) {
  const engine::Capacity& capacity = executor.capacity();
  scheduler::StageConfig config;
  config.layout = models::LayoutRulesOf(model, capacity.kv_block_tokens, profile.fingerprint);
  config.profile = std::move(profile);
  config.num_layers = capacity.num_layers;
  config.embedding_bytes_per_token = capacity.embedding_bytes_per_token;
  config.max_position = capacity.max_position;
  config.staging_bytes = executor.transfer_regions().staging.bytes;
  config.landing_bytes = executor.transfer_regions().landing.bytes;
  config.chunk_tokens = static_cast<int32_t>(options.chunk_tokens);
  config.least_early_tokens = kLeastEarlyTokens;
  config.step_tokens = static_cast<int32_t>(options.step_tokens);
  config.encode_patches_a_step = options.encode_patches_a_step();
  config.max_batch = static_cast<int>(std::min<int64_t>(options.max_sequences, 64));
  return config;
}

// Everything that a worker owns.
class Worker {
 public:
  static absl::Status Serve(const WorkerOptions& options);

 private:
  Worker(const WorkerOptions& options, base::RpcSecurity security)
      : options_(options), security_(std::move(security)) {}
  ~Worker();
  absl::Status Load();
  absl::Status Open();
  void Prepare(scheduler::TaskId task, ItemMedia media);
  void Drain();

  const WorkerOptions& options_;
  const base::RpcSecurity security_;
  base::RealClock clock_;
  base::StreamLogger log_{clock_, options_.name, base::LogLevelOf(options_.log_level)};
  std::atomic<bool> draining_{false};
  base::Registry registry_;
  models::ModelConfig model_;
  scheduler::WorkerProfile profile_;
  std::unique_ptr<models::ImageProcessor> processor_;
  std::unique_ptr<media::DecodePool> decode_pool_;
  std::unique_ptr<WorkerMetrics> metrics_;
  std::unique_ptr<MediaPreparer> preparer_;
  std::unique_ptr<InputPuller> puller_;
  std::unique_ptr<GrpcLinks> links_;
  std::unique_ptr<WorkerTransports> transports_;
  std::unique_ptr<engine::Executor> executor_;
  std::unique_ptr<WorkerLoop> loop_;
  std::unique_ptr<TransferService> service_;
  std::unique_ptr<RpcServer> server_;
  SelfProbe probe_{clock_};
  std::unique_ptr<AdminServer> admin_;
};

// Whoever calls the loop ends before it does, and the loop's thread before whomever it calls.
Worker::~Worker() {
  admin_.reset();
  server_.reset();
  if (loop_ != nullptr) loop_->Stop();
  puller_.reset();
  preparer_.reset();
  transports_.reset();
  links_.reset();
  executor_.reset();
  loop_.reset();
}

absl::Status Worker::Load() {
  ASSIGN_OR_RETURN(model_, models::LoadModelConfig(options_.model));
  {
    ASSIGN_OR_RETURN(const ServedWeights weights, OpenWeights(options_));
    engine::ExecutorEvents events{
        .on_result =
            [this](scheduler::StepResult result) { loop_->PostStepResult(std::move(result)); },
        .on_import = [this](scheduler::BufferId buffer) { loop_->PostImported(buffer); },
        .on_export = [this](scheduler::ExportResult result) { loop_->PostExported(result); }};
    ASSIGN_OR_RETURN(executor_,
                     MakeExecutor(options_, model_, *weights.source, clock_, std::move(events)));
    ASSIGN_OR_RETURN(profile_, ProfileOf(options_, executor_->capacity(), weights.digest));
  }
  processor_ = std::make_unique<models::ImageProcessor>(model_);
  if (options_.device != "modelled" && profile_.roles.has(scheduler::Stage::kEncode)) {
    media::SandboxOptions sandbox;
    sandbox.num_children = static_cast<int>(options_.media_threads);
    ASSIGN_OR_RETURN(decode_pool_, media::DecodePool::Start(sandbox));
  }
  return absl::OkStatus();
}

absl::Status Worker::Open() {
  DescribeBuild("worker", options_.model, &registry_);
  metrics_ = std::make_unique<WorkerMetrics>(&registry_, profile_);
  preparer_ = std::make_unique<MediaPreparer>(
      *processor_, decode_pool_.get(),
      MediaOptions{.scaling = options_.scale_jpeg ? JpegScaling::kOn : JpegScaling::kOff,
                   .num_threads = static_cast<int>(options_.media_threads)},
      clock_);
  puller_ = std::make_unique<InputPuller>(
      profile_.incarnation, security_,
      InputPuller::Listener{
          .on_input =
              [this](scheduler::TaskId task, absl::StatusOr<scheduler::PulledInput> input) {
                loop_->PostPulled(task, std::move(input));
              },
          .on_media = [this](scheduler::TaskId task,
                             ItemMedia media) { Prepare(task, std::move(media)); },
          .on_drop = [this](scheduler::TaskId task) { preparer_->Drop(task); }});
  links_ = std::make_unique<GrpcLinks>(profile_, security_, clock_, log_, puller_.get());
  ASSIGN_OR_RETURN(transports_, WorkerTransports::Open(options_, profile_.incarnation, security_,
                                                       executor_->transfer_regions(),
                                                       {clock_, log_, registry_}));
  if (PathPairing* const pairing = transports_->pairing()) {
    pairing->set_tell([this](scheduler::Incarnation peer) { links_->SayHelloAgain(peer); });
    links_->set_pairing(pairing);
  }
  loop_ = std::make_unique<WorkerLoop>(
      StageConfigOf(options_, model_, *executor_, profile_),
      WorkerLoopParts{clock_, log_, *executor_, transports_->transport(), *links_, *metrics_});
  service_ = std::make_unique<TransferService>(profile_.incarnation, &transports_->grpc(),
                                               links_.get(), loop_.get());
  ASSIGN_OR_RETURN(server_, RpcServer::Start(options_.listen, base::RpcAudience::kInternal,
                                             security_.Server(CallersOfMethod), {service_.get()}));
  probe_.Start({{server_->address(), security_.ChannelTo(base::Role::kWorker)}});
  ASSIGN_OR_RETURN(
      admin_,
      AdminServer::Start(
          options_.admin,
          {[this] {
             if (decode_pool_ != nullptr) {
               metrics_->OnDecoders(decode_pool_->num_deaths(), decode_pool_->num_violations());
             }
             return registry_.Serialize();
           },
           [] { return true; },
           [this] { return links_->connected() && !draining_.load() && probe_.answers(); }}));
  links_->set_address(options_.advertise.empty() ? server_->address()
                                                 : Dialable(options_.advertise));
  links_->set_admin(admin_->address());
  loop_->Start();
  links_->Connect(options_.scheduler, loop_.get());
  server_->SetServing(true);
  std::printf("listening grpc=%s admin=%s\n", server_->address().c_str(),
              admin_->address().c_str());
  std::fflush(stdout);
  log_.Info("serving", {},
            {{"version", base::kVersion},
             {"model", options_.model},
             {"roles", options_.roles},
             {"device", options_.device},
             {"addresses", absl::StrCat("grpc=", server_->address(), " admin=", admin_->address())},
             {"flags", options_.as_given}});
  return absl::OkStatus();
}

void Worker::Prepare(scheduler::TaskId task, ItemMedia media) {
  const bool queued = preparer_->Prepare(
      std::move(media),
      [this, task](absl::StatusOr<engine::EncodeInput> input, base::Duration decode) {
        loop_->PostMedia(task, std::move(input), decode);
      });
  if (!queued) {
    loop_->PostMedia(task, absl::UnavailableError("too much media queued"), base::Duration(0));
  }
}

// Takes no new task and waits for those that run.
void Worker::Drain() {
  draining_.store(true);
  links_->SetDraining();
  loop_->PostDrain();
  if (!loop_->WaitUntilIdle(clock_.Now() + options_.drain_timeout)) {
    log_.Warning("stopping with tasks that still run");
  }
}

absl::Status Worker::Serve(const WorkerOptions& options) {
  ASSIGN_OR_RETURN(base::RpcSecurity security, options.security.Open({options.listen}));
  Worker worker(options, std::move(security));
  RETURN_IF_ERROR(worker.Load());
  RETURN_IF_ERROR(worker.Open());
  WaitForShutdownSignal();
  worker.log_.Info("draining");
  worker.Drain();
  worker.server_->Stop(std::chrono::milliseconds(200));
  return absl::OkStatus();
}

}  // namespace

int RunWorker(int argc, char** argv) {
  BlockShutdownSignals();
  RaiseDescriptorLimit();
  WorkerOptions options;
  base::FlagSet flags("triptych-worker [flags]: runs stages of requests on one device");
  options.Declare(&flags);
  if (const int code = base::ParseCommandLine(argc, argv, &flags); code >= 0) return code;
  options.as_given = absl::StrJoin(argv + 1, argv + argc, " ");
  absl::Status status = options.FillForDevice();
  if (status.ok()) status = Worker::Serve(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "triptych-worker: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace triptych::services
