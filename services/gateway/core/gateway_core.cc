#include "services/gateway/core/gateway_core.h"

#include <algorithm>
#include <deque>
#include <future>
#include <utility>

#include "base/round_pacer.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {

GatewayCore::GatewayCore(scheduler::Incarnation self, const base::Clock& clock,
                         std::unique_ptr<RequestDesk> desk, SendToScheduler send)
    : self_(self), clock_(clock), desk_(std::move(desk)), send_(std::move(send)), thread_([this] {
        Run();
      }) {}

void GatewayCore::Stop() {
  // In this order: what was pushed before the end is still run.
  queue_.Close();
  stopping_.store(true);
  if (thread_.joinable()) thread_.join();
}

bool GatewayCore::Call(absl::AnyInvocable<void(RequestDesk& desk, base::TimePoint now)> event) {
  std::promise<void> done;
  std::future<void> waiting = done.get_future();
  const bool posted = Post([&event, &done](RequestDesk& desk, base::TimePoint now) {
    event(desk, now);
    done.set_value();
  });
  if (posted) waiting.wait();
  return posted;
}

absl::Status GatewayCore::Start(NewRequest request) {
  auto event = [request = std::move(request)](RequestDesk& desk, base::TimePoint now) mutable {
    desk.Start(std::move(request), now);
  };
  return Post(std::move(event)) ? absl::OkStatus() : Refuse("overloaded");
}

void GatewayCore::Leave(scheduler::RequestId id) { GiveUp(id, Refuse("cancelled")); }

void GatewayCore::GiveUp(scheduler::RequestId id, absl::Status reason) {
  // A full queue loses it; the request's deadline ends it then.
  Post([id, reason = std::move(reason)](RequestDesk& desk, base::TimePoint now) {
    desk.GiveUp(id, reason, now);
  });
}

void GatewayCore::Run() {
  base::TimePoint next_report = clock_.Now();
  base::RoundPacer pacer(kRound, kRoundBurst);
  while (true) {
    const base::TimePoint wake = std::min(desk_->NextDeadline(), next_report);
    std::deque<Event> events = queue_.PopAll(wake, pacer.NotBefore());
    const base::TimePoint now = clock_.Now();
    pacer.OnRound(now);
    for (Event& event : events) event(*desk_, now);
    desk_->OnTime(now);
    std::vector<scheduler::GatewayToScheduler> messages = desk_->TakeMessages();
    if (now >= next_report) {
      messages.push_back(scheduler::GatewayReport{static_cast<int64_t>(desk_->live())});
      next_report = now + kReportInterval;
    }
    if (!messages.empty()) send_(messages);
    live_.store(static_cast<int64_t>(desk_->live()), std::memory_order_relaxed);
    if (events.empty() && stopping_.load()) return;
  }
}

}  // namespace triptych::services
