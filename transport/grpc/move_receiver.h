#pragma once

// The receiving side of one peer: posted receives, and the chunks that fill them. A chunk that
// comes before its receive is posted stalls its stream (gRPC's flow control then stalls the
// sender), so an early sender costs no memory. Thread-safe.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "base/memory_ref.h"
#include "base/mutex.h"
#include "triptych/v1/transfer.grpc.pb.h"

namespace triptych::transport {

class MoveReceiver {
 public:
  struct Operation {
    base::MemoryRef landing;  // of the host
    std::function<void(absl::Status)> on_done;
  };
  // What a stream lends to the receiver while it is open.
  class Source {
   public:
    virtual ~Source() = default;
    virtual const v1::MoveChunk& chunk() const = 0;
    virtual void ReadNext() = 0;
    virtual void Cancel() = 0;
  };

  // Posts in the order of `sequence`. Completes with OK, UNAVAILABLE (the stream broke), DATA_LOSS
  // (the sizes differ) or ABORTED.
  void Receive(uint64_t sequence, Operation operation);
  void Abort();

  // `source` has a chunk: takes it and asks for the next, now or when its receive is posted.
  void OnChunk(const std::shared_ptr<Source>& source);
  void OnClosed(const std::shared_ptr<Source>& source);

 private:
  enum class Taken { kYes, kStalled };
  Taken Take(const v1::MoveChunk& chunk, std::function<void()>* done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  base::Mutex mutex_;
  std::map<uint64_t, Operation> posted_ ABSL_GUARDED_BY(mutex_);
  uint64_t highest_posted_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t received_ ABSL_GUARDED_BY(mutex_) = 0;  // of the operation under way
  uint64_t under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  // Shared with the stream that it is.
  std::shared_ptr<Source> source_ ABSL_GUARDED_BY(mutex_);
  bool stalled_ ABSL_GUARDED_BY(mutex_) = false;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace triptych::transport
