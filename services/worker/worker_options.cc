#include "services/worker/worker_options.h"

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
  flags->AddChoice(&device, {.name = "device",
                             .doc = "what computes; modelled computes nothing",
                             .choices = {"cpu", "modelled"}});
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
                             .doc = "KV pool, in blocks of 16 tokens",
                             .default_value = 4096,
                             .min = 8,
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
                                .doc = "most prompt tokens of one sequence in a step",
                                .default_value = 512,
                                .min = 1,
                                .max = 1 << 20});
  flags->AddInt(&step_tokens, {.name = "step-tokens",
                               .doc = "most tokens in a step",
                               .default_value = 1024,
                               .min = 1,
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

}  // namespace triptych::services
