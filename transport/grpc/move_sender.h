#pragma once

// The sending side of one peer: operations leave one after another, in chunks, on one stream that
// is opened when it is first needed and again after it broke. Thread-safe. Lives until IsClosed().

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "base/memory_ref.h"
#include "base/mutex.h"
#include "scheduler/plan/ids.h"
#include "triptych/v1/transfer.grpc.pb.h"

namespace triptych::transport {

class MoveSender {
 public:
  struct Operation {
    uint64_t sequence = 0;
    base::MemoryRef bytes;  // of the host
    std::function<void(absl::Status)> on_done;
  };

  MoveSender(scheduler::Incarnation self, scheduler::Incarnation peer,
             const std::shared_ptr<grpc::Channel>& channel);

  // Completes when the last chunk has been handed to gRPC (which copies it), or with UNAVAILABLE
  // when the stream breaks, or with ABORTED.
  void Send(Operation operation);
  void Abort();

  // Whether gRPC is done with every stream. After Abort() it stays so.
  bool IsClosed();
  void WaitUntilClosed();

 private:
  class Stream;

  void OnWritten(Stream* stream, bool ok);
  void OnClosed(Stream* stream);
  void OnFreed();
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::deque<Operation> TakeAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Fail(std::deque<Operation> failed, const absl::Status& status);

  const scheduler::Incarnation self_;
  const scheduler::Incarnation peer_;
  const std::unique_ptr<v1::Transfer::Stub> stub_;
  base::Mutex mutex_;
  std::deque<Operation> operations_ ABSL_GUARDED_BY(mutex_);
  int64_t offset_ ABSL_GUARDED_BY(mutex_) = 0;  // of the first operation
  // Shared with gRPC until its OnDone.
  std::shared_ptr<Stream> stream_ ABSL_GUARDED_BY(mutex_);
  int open_streams_ ABSL_GUARDED_BY(mutex_) = 0;  // that gRPC is not done with
  base::CondVar freed_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace triptych::transport
