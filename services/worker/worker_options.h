#pragma once

// What a worker is told at its start.

#include <cstdint>
#include <string>

#include "base/config.h"
#include "services/runtime/security_options.h"

namespace triptych::services {

struct WorkerOptions {
  std::string name, roles, scheduler, listen, advertise, admin, model, device, cost, log_level;
  int64_t kv_blocks = 0, embedding_slots = 0;
  int64_t max_sequences = 0, max_encodes = 0;
  int64_t chunk_tokens = 0, step_tokens = 0;
  int64_t threads = 0, media_threads = 0;
  bool scale_jpeg = false;
  base::Duration drain_timeout{0};
  SecurityOptions security;

  void Declare(base::FlagSet* flags);

 private:
  void DeclareProcess(base::FlagSet* flags);
  void DeclareCapacity(base::FlagSet* flags);
};

}  // namespace triptych::services
