#pragma once

// A peer's control stream to the scheduler: connects, says hello, obeys only the highest scheduler
// seen, and connects again with back-off for as long as it lives. What is sent while there is no
// stream is refused: the machines on both sides reconcile after the next hello.

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"
#include "scheduler/plan/ids.h"
#include "scheduler/plan/limits.h"
#include "services/runtime/client_stream.h"

namespace triptych::services {

inline scheduler::SchedulerId SchedulerOf(const v1::Envelope& envelope) {
  return {envelope.scheduler().term(), scheduler::Incarnation(envelope.scheduler().incarnation())};
}

// Thread-safe. Callbacks come from gRPC's threads or the client's own, and must not block.
template <typename Out, typename In>
class ControlClient {
 public:
  using Stream = ClientStream<Out, In>;
  using Message = typename Stream::Message;
  struct Callbacks {
    typename Stream::Start start;
    // Made anew for each connection; the first message on it. Nullopt: not now, ask again later.
    std::function<std::optional<Message>(scheduler::SchedulerId highest_seen)> hello;
    std::function<void(scheduler::SchedulerId)> on_welcome;
    std::function<void(In&)> on_batch;  // the one with the welcome too
    std::function<void()> on_lost;
    // The scheduler holds this incarnation for lost, for ever. May be empty.
    std::function<void()> on_rejected;
  };

  ControlClient(scheduler::Incarnation self, const base::Clock& clock, Callbacks callbacks)
      : self_(self), clock_(clock), callbacks_(std::move(callbacks)), thread_([this] { Run(); }) {}

  ~ControlClient() {
    {
      base::MutexLock lock(&mutex_);
      stopping_ = true;
      if (stream_ != nullptr) stream_->Close();
    }
    changed_.NotifyAll();
    thread_.join();
  }

  // False when there is no stream to a scheduler that is obeyed.
  bool Send(Message message) {
    const bool taken = Enqueue(std::move(message));
    Flush();
    return taken;
  }

  // As Send, but the message stays until the next Send or Flush.
  bool Enqueue(Message message) {
    const std::shared_ptr<Stream> stream = WelcomedStream();
    return stream != nullptr && stream->Enqueue(std::move(message));
  }
  void Flush() {
    if (const std::shared_ptr<Stream> stream = WelcomedStream()) stream->Flush();
  }

  scheduler::SchedulerId highest_seen() const {
    base::MutexLock lock(&mutex_);
    return highest_;
  }
  bool connected() const {
    base::MutexLock lock(&mutex_);
    return welcomed_;
  }

 private:
  static constexpr base::Duration kFirstBackoff = std::chrono::milliseconds(50);
  static constexpr base::Duration kLongestBackoff = std::chrono::milliseconds(500);

  std::shared_ptr<Stream> WelcomedStream() const {
    base::MutexLock lock(&mutex_);
    return welcomed_ ? stream_ : nullptr;
  }

  void Run() {
    base::Duration backoff = kFirstBackoff;
    base::MutexLock lock(&mutex_);
    while (!stopping_) {
      Connect();
      while (stream_ != nullptr) changed_.Wait(&mutex_);
      backoff = was_welcomed_ ? kFirstBackoff : std::min(backoff * 2, kLongestBackoff);
      const base::TimePoint next = clock_.Now() + backoff;
      while (!stopping_ && changed_.WaitUntil(&mutex_, next)) {
      }
    }
  }

  void Connect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    welcomed_ = was_welcomed_ = false;
    v1::Envelope envelope;
    envelope.set_sender_incarnation(self_.value());
    const scheduler::SchedulerId highest = highest_;
    mutex_.Unlock();
    std::optional<Message> hello = callbacks_.hello(highest);
    mutex_.Lock();
    if (!hello.has_value() || stopping_) return;
    stream_ = Stream::Open(
        callbacks_.start, std::move(envelope), [this](In& batch) { OnBatch(batch); },
        [this](const grpc::Status& status) { OnClosed(status); });
    stream_->Send(*std::move(hello));
  }

  void OnBatch(In& batch) {
    const scheduler::SchedulerId from = SchedulerOf(batch.envelope());
    bool first = false;
    {
      base::MutexLock lock(&mutex_);
      const uint64_t receiver = batch.envelope().receiver_incarnation();
      if (from < highest_ || from.term > scheduler::kHighestTerm || receiver != self_.value()) {
        if (stream_ != nullptr) stream_->Close();
        return;
      }
      first = !welcomed_ || highest_ < from;
      highest_ = from;
      welcomed_ = was_welcomed_ = true;
      if (first && stream_ != nullptr) {
        v1::Envelope envelope;
        *envelope.mutable_scheduler() = batch.envelope().scheduler();
        envelope.set_sender_incarnation(self_.value());
        envelope.set_receiver_incarnation(batch.envelope().sender_incarnation());
        stream_->set_envelope(std::move(envelope));
      }
    }
    if (first) callbacks_.on_welcome(from);
    callbacks_.on_batch(batch);
  }

  void OnClosed(const grpc::Status& status) {
    bool lost = false, rejected = false;
    {
      base::MutexLock lock(&mutex_);
      lost = welcomed_ && !stopping_;
      rejected = !was_welcomed_ && !stopping_ &&
                 status.error_code() == grpc::StatusCode::FAILED_PRECONDITION;
      welcomed_ = false;
    }
    if (lost) callbacks_.on_lost();
    if (rejected && callbacks_.on_rejected) callbacks_.on_rejected();
    {
      base::MutexLock lock(&mutex_);
      stream_ = nullptr;
      // Under the lock: the destructor may run as soon as the waiter sees it.
      changed_.NotifyAll();
    }
  }

  const scheduler::Incarnation self_;
  const base::Clock& clock_;
  const Callbacks callbacks_;
  mutable base::Mutex mutex_;
  base::CondVar changed_;
  // Shared with gRPC, see ClientStream.
  std::shared_ptr<Stream> stream_ ABSL_GUARDED_BY(mutex_);
  scheduler::SchedulerId highest_ ABSL_GUARDED_BY(mutex_);
  bool welcomed_ ABSL_GUARDED_BY(mutex_) = false;
  bool was_welcomed_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace triptych::services
