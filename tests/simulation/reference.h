#pragma once

// The model that all simulated workers run, requests for it, and the answer that each must get.

#include <cstdint>
#include <vector>

#include "base/random.h"
#include "engine/modelled/simulated_executor.h"
#include "scheduler/plan/gateway_messages.h"
#include "scheduler/stage/stage_actions.h"

namespace triptych::simulation {

inline constexpr int32_t kVocabulary = 1000;
inline constexpr int32_t kStopToken = 3;
inline constexpr int32_t kBlockTokens = 16;
inline constexpr int32_t kLayers = 3;
inline constexpr int32_t kPageSlots = 4;
inline constexpr int32_t kMaxPosition = 4096;

scheduler::LayoutRules SimLayoutRules();
// Of each region of transfer memory: a worker plans in less.
inline constexpr int64_t kTransferBytes = 8192;

// `slowness`: times that its steps take longer.
engine::ModelledConfig SimDevice(int32_t kv_blocks, int32_t embedding_slots, double slowness = 1);

// What the vision tower sees of an item: different for each content key.
engine::EncodeInput InputOf(const scheduler::Item& item);

struct SimRequest {
  scheduler::SubmitRequest submit;
  scheduler::PulledInput input;
  std::vector<int32_t> answer;  // as one undisturbed worker gives it
};

// A random prompt of text and pictures with its costs; `answer` is filled.
SimRequest MakeRequest(base::SeededRandom& random, scheduler::RequestId id);

}  // namespace triptych::simulation
