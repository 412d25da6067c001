#pragma once

// The one thread that owns a gateway's requests. Everybody else posts to its bounded queue; nothing
// here waits for a peer.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/bounded_queue.h"
#include "base/clock.h"
#include "services/gateway/core/request_desk.h"

namespace triptych::services {

// Thread-safe.
class GatewayCore {
 public:
  // Runs on the core's thread.
  using Event = absl::AnyInvocable<void(RequestDesk& desk, base::TimePoint now)>;
  // What a round has to say, in order; lost when there is no scheduler. Called on the core's
  // thread; must not block.
  using SendToScheduler = std::function<void(absl::Span<const scheduler::GatewayToScheduler>)>;

  // Borrows `clock`. `send` may be called from the start on.
  GatewayCore(scheduler::Incarnation self, const base::Clock& clock,
              std::unique_ptr<RequestDesk> desk, SendToScheduler send);
  ~GatewayCore() { Stop(); }

  // False when the queue is full or the core has stopped: the event will not run.
  bool Post(Event event) { return queue_.TryPush(std::move(event)); }
  // The same for tokens of answers. Where few answers are live there is nothing to gather them
  // with, and they are handled at once.
  bool PostTokens(Event event) {
    const bool few = live_.load(std::memory_order_relaxed) <= kFewAnswers;
    return queue_.TryPush(std::move(event), few ? base::Urgency::kNow : base::Urgency::kGather);
  }
  // Posts and waits until it has run; false as above. Not from the core's thread.
  bool Call(absl::AnyInvocable<void(RequestDesk& desk, base::TimePoint now)> event);

  // A name for a request to come.
  scheduler::RequestId NextId() { return {self_, next_number_.fetch_add(1)}; }
  // Hands a request over. RESOURCE_EXHAUSTED when the queue is full: then the sink hears nothing.
  absl::Status Start(NewRequest request);
  // The client of `id` has left.
  void Leave(scheduler::RequestId id);
  // A front end refuses to go on with `id`.
  void GiveUp(scheduler::RequestId id, absl::Status reason);

  base::TimePoint Now() const { return clock_.Now(); }
  const base::Clock& clock() const { return clock_; }
  scheduler::Incarnation self() const { return self_; }

  // Runs what is queued, then ends the thread.
  void Stop();

 private:
  // Events of a second at many times the rate that one core serves.
  static constexpr size_t kQueueCapacity = 1 << 17;
  // Rounds of a busy loop, see RoundPacer.
  static constexpr base::Duration kRound = std::chrono::milliseconds(1);
  static constexpr int kRoundBurst = 8;
  static constexpr int64_t kFewAnswers = 8;
  static constexpr base::Duration kReportInterval = std::chrono::milliseconds(100);

  void Run();

  const scheduler::Incarnation self_;
  const base::Clock& clock_;
  const std::unique_ptr<RequestDesk> desk_;
  const SendToScheduler send_;
  std::atomic<uint64_t> next_number_{1};
  std::atomic<bool> stopping_{false};
  std::atomic<int64_t> live_{0};  // as of the last round
  base::BoundedQueue<Event> queue_{kQueueCapacity};
  std::thread thread_;  // last: it uses everything above
};

}  // namespace triptych::services
