#pragma once

// Deliberately broken actions, one at a time: each must be found by what judges a run, or the
// judges are worth nothing.

#include <cstdint>

namespace triptych::simulation {

enum class Sabotage : uint8_t {
  kNone,
  kTokenLost,           // the gateway's client misses one
  kTokenTwice,          // it gets one again
  kTokenWrong,          // a worker sends another
  kEndTwice,            // a request has two ends
  kEndMissing,          // a request has none
  kEndWithoutReason,    // an answer ends with an error that nothing explains
  kEndEarly,            // an answer ends with OK before its last token
  kFenceIgnored,        // the gateway hears producers of older epochs
  kReleaseIgnored,      // a worker keeps what it is told to free
  kStagingKept,         // a worker does not hear that its first piece was sent
  kChecksumIgnored,     // a corrupt piece is taken for a good one
  kFailsForOneLoss,     // the scheduler gives requests up with the first lost worker
  kWorksWhileDraining,  // the scheduler is not told that a worker drains, and gives it work
};

}  // namespace triptych::simulation
