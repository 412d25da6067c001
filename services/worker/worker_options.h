#pragma once

// What a worker is told at its start.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/config.h"
#include "services/runtime/security_options.h"

namespace triptych::services {

struct WorkerOptions {
  std::string name, roles, scheduler, listen, advertise, admin, model, device, cost, log_level,
      load_format, tuning_dir, transfer_path;
  double gpu_memory_utilization = 0;
  std::string as_given;  // the flags, for the log
  int64_t kv_blocks = 0, embedding_slots = 0;
  int64_t max_sequences = 0, max_encodes = 0;
  int64_t chunk_tokens = 0, step_tokens = 0;
  int64_t dummy_seed = 0;
  int64_t threads = 0, media_threads = 0;
  bool scale_jpeg = false;
  base::Duration drain_timeout{0};
  SecurityOptions security;

  void Declare(base::FlagSet* flags);
  // Sizes that were left at 0 become the device's own. INVALID_ARGUMENT: no such device.
  absl::Status FillForDevice();
  // Of --device=cuda:N; -1 for another device.
  int cuda_device() const;
  int64_t encode_patches_a_step() const;
  // Whether pieces are staged and land on the device.
  bool transfers_on_device() const { return cuda_device() >= 0 && transfer_path != "grpc"; }

 private:
  void DeclareProcess(base::FlagSet* flags);
  void DeclareCapacity(base::FlagSet* flags);
};

}  // namespace triptych::services
