#include "services/worker/worker_options.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/log.h"

namespace triptych::services {

void WorkerOptions::Declare(base::FlagSet* flags) {
  DeclareProcess(flags);
  DeclareCapacity(flags);
  security.Declare(flags);
}

void WorkerOptions::DeclareProcess(base::FlagSet* flags) {
  flags->AddString(&name, {.name = "name", .doc = "of this process", .default_value = "worker"});
  flags->AddString(&roles, {.name = "roles",
                            .doc = "stages that it runs, joined by +",
                            .default_value = "encode+prefill+decode"});
  flags->AddString(&scheduler, {.name = "scheduler",
                                .doc = "host:port of the scheduler",
                                .default_value = "127.0.0.1:7000"});
  flags->AddString(&listen, {.name = "listen",
                             .doc = "host:port of the transfer service",
                             .default_value = "127.0.0.1:0"});
  flags->AddString(&advertise, {.name = "advertise",
                                .doc = "host:port that other workers reach it at; "
                                       "empty: the one that was bound"});
  flags->AddString(&admin, {.name = "admin",
                            .doc = "host:port of /metrics, /healthz, /readyz",
                            .default_value = "127.0.0.1:0"});
  flags->AddString(&model, {.name = "model",
                            .doc = "directory of the checkpoint",
                            .presence = base::Presence::kRequired});
  flags->AddChoice(&load_format, {.name = "load-format",
                                  .doc = "where weights come from; dummy: drawn from a seed, for "
                                         "which --model needs no weights",
                                  .choices = {"checkpoint", "dummy"}});
  flags->AddInt(&dummy_seed, {.name = "dummy-seed",
                              .doc = "of drawn weights",
                              .default_value = 0,
                              .min = 0,
                              .max = INT64_MAX});
  flags->AddString(&device, {.name = "device",
                             .doc = "what computes: cpu, cuda:N, or modelled, which computes "
                                    "nothing",
                             .default_value = "cpu"});
  flags->AddDouble(&gpu_memory_utilization,
                   {.name = "gpu-memory-utilization",
                    .doc = "cuda: share of the device's memory that this process may use",
                    .default_value = 0.9,
                    .min = 0.01,
                    .max = 1});
  flags->AddString(&tuning_dir, {.name = "tuning-dir",
                                 .doc = "cuda: directory of decode choices (kernels/choices); "
                                        "empty: by rule"});
  flags->AddChoice(&transfer_path,
                   {.name = "transfer-path",
                    .doc = "how embeddings and KV pass between workers; auto: cuda_ipc between "
                           "GPU workers of one host and user, else grpc; cuda_ipc: no other",
                    .choices = {"auto", "cuda_ipc", "grpc"}});
  flags->AddString(&cost, {.name = "cost", .doc = "modelled: file of the cost model"});
  flags->AddDuration(&drain_timeout, {.name = "drain-timeout",
                                      .doc = "how long a stop waits for running tasks",
                                      .default_value = std::chrono::seconds(10),
                                      .max = std::chrono::hours(1)});
  flags->AddChoice(&log_level, {.name = "log-level",
                                .doc = "least that is logged; debug: each step of each task",
                                .choices = base::LogLevelNames()});
}

void WorkerOptions::DeclareCapacity(base::FlagSet* flags) {
  flags->AddInt(&kv_blocks, {.name = "kv-blocks",
                             .doc = "KV pool, in blocks of 16 tokens; 0: 4096, or on cuda what "
                                    "fits",
                             .default_value = 0,
                             .min = 0,
                             .max = 1 << 24});
  flags->AddInt(&embedding_slots, {.name = "embedding-slots",
                                   .doc = "embedding pool, in visual tokens; whole pages of 64",
                                   .default_value = 16384,
                                   .min = 64,
                                   .max = 1 << 24});
  flags->AddInt(&max_sequences, {.name = "max-sequences",
                                 .doc = "live prefill and decode tasks",
                                 .default_value = 256,
                                 .min = 1,
                                 .max = 1 << 16});
  flags->AddInt(&max_encodes, {.name = "max-encodes",
                               .doc = "encode tasks accepted at once",
                               .default_value = 64,
                               .min = 1,
                               .max = 1 << 16});
  flags->AddInt(&chunk_tokens, {.name = "chunk-tokens",
                                .doc = "most prompt tokens of one sequence in a step; 0: 512, "
                                       "on cuda 8192",
                                .default_value = 0,
                                .min = 0,
                                .max = 1 << 20});
  flags->AddInt(&step_tokens, {.name = "step-tokens",
                               .doc = "most tokens in a step; 0: 1024, on cuda 8192",
                               .default_value = 0,
                               .min = 0,
                               .max = 1 << 20});
  flags->AddInt(&threads, {.name = "threads",
                           .doc = "cpu: threads of an op; 0: one a core",
                           .default_value = 0,
                           .min = 0,
                           .max = 1024});
  flags->AddInt(&media_threads, {.name = "media-threads",
                                 .doc = "pictures decoded at once",
                                 .default_value = 2,
                                 .min = 1,
                                 .max = 256});
  flags->AddBool(&scale_jpeg,
                 {.name = "scale-jpeg",
                  .doc = "decode a JPEG that will be shrunk at a fraction of its size: faster, and "
                         "its embedding differs a little"});
}

int WorkerOptions::cuda_device() const {
  absl::string_view number = device;
  int index = -1;
  if (!absl::ConsumePrefix(&number, "cuda:") || !absl::SimpleAtoi(number, &index)) return -1;
  return index >= 0 && index < 64 ? index : -1;
}

int64_t WorkerOptions::encode_patches_a_step() const { return cuda_device() >= 0 ? 65536 : 16384; }

absl::Status WorkerOptions::FillForDevice() {
  const bool cuda = cuda_device() >= 0;
  if (!cuda && device != "cpu" && device != "modelled") {
    return absl::InvalidArgumentError(
        absl::StrCat("--device: want cpu, cuda:N or modelled, not ", device));
  }
  if (!cuda && transfer_path == "cuda_ipc") {
    return absl::InvalidArgumentError("--transfer-path=cuda_ipc: wants --device=cuda:N");
  }
  if (kv_blocks == 0 && !cuda) kv_blocks = 4096;
  if (kv_blocks > 0 && kv_blocks < 8) {
    return absl::InvalidArgumentError("--kv-blocks: at least 8, or 0 for the device's own");
  }
  if (chunk_tokens == 0) chunk_tokens = cuda ? 8192 : 512;
  if (step_tokens == 0) step_tokens = cuda ? 8192 : 1024;
  return absl::OkStatus();
}

}  // namespace triptych::services
