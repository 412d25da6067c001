#pragma once

// Moves the bytes of transfer pieces between two workers. It is deliberately dumb: which bytes, to
// whom and when was settled by the handshake (scheduler/transfer); a transport pairs the n-th send
// of a sender with the n-th receive that the receiver posted for that sender, as NCCL would.
//
// Thread rule: all methods are thread-safe. Callbacks come from the transport's own threads, once
// for each posted operation, cancelled or not, and must not block.

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "base/memory_ref.h"
#include "scheduler/plan/ids.h"

namespace triptych::transport {

class Transport {
 public:
  // UNAVAILABLE when the peer is gone, ABORTED after Abort, DATA_LOSS when the sizes differ,
  // FAILED_PRECONDITION for memory of a space that the back end does not reach.
  using OnDone = std::function<void(absl::Status)>;
  virtual ~Transport() = default;

  // Sends `bytes` as operation `sequence` to `peer`, reached at `address`. The bytes stay valid and
  // unchanged until `on_done`. Where they are only declared (a modelled device), their number alone
  // is sent.
  virtual void Send(scheduler::Incarnation peer, const std::string& address, uint64_t sequence,
                    base::MemoryRef bytes, OnDone on_done) = 0;

  // Receives operation `sequence` of `peer` into all of `landing`. The sender may be early or late;
  // the order of posting is the order of `sequence`.
  virtual void Receive(scheduler::Incarnation peer, uint64_t sequence, base::MemoryRef landing,
                       OnDone on_done) = 0;

  // The peer is gone or given up: completes every operation with it, posted or later, with ABORTED.
  // Returns at once; landing memory is in use until each on_done has come.
  virtual void Abort(scheduler::Incarnation peer) = 0;
};

}  // namespace triptych::transport
