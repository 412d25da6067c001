#include "services/gateway/scheduler_link.h"

#include <unistd.h>

#include <atomic>
#include <utility>

#include "services/convert/gateway_messages.h"
#include "services/runtime/control_client.h"
#include "triptych/v1/scheduler.grpc.pb.h"

namespace triptych::services {
namespace {

using Control = ControlClient<v1::GatewayToSchedulerBatch, v1::SchedulerToGatewayBatch>;

}  // namespace

class SchedulerLink::Impl {
 public:
  Impl(const std::shared_ptr<grpc::Channel>& scheduler, GatewayIdentity identity, GatewayCore* core,
       const base::Clock& clock, std::function<void()> changed)
      : identity_(std::move(identity)),
        core_(core),
        changed_(std::move(changed)),
        stub_(v1::Scheduler::NewStub(scheduler)),
        control_(core->self(), clock, MakeCallbacks()) {}

  Control& control() { return control_; }
  // An event that was lost on its way to the core must not leave it ready without a scheduler.
  bool ready() const { return served_.load() && control_.connected(); }

 private:
  Control::Callbacks MakeCallbacks() {
    return {
        .start = [this](grpc::ClientContext* context,
                        auto* reactor) { stub_->async()->GatewayControl(context, reactor); },
        .hello = [this](scheduler::SchedulerId highest) { return Hello(highest); },
        .on_welcome =
            [this](scheduler::SchedulerId) {
              core_->Post(
                  [](RequestDesk& desk, base::TimePoint now) { desk.OnSchedulerConnected(now); });
            },
        .on_batch = [this](v1::SchedulerToGatewayBatch& batch) { OnBatch(batch); },
        .on_lost =
            [this] {
              core_->Post([this](RequestDesk& desk, base::TimePoint now) {
                desk.OnSchedulerLost(now);
                NoteReadiness(desk);
              });
            },
    };
  }

  v1::GatewayToScheduler Hello(scheduler::SchedulerId highest) {
    scheduler::GatewayHello hello{.name = identity_.name,
                                  .incarnation = core_->self(),
                                  .address = identity_.address,
                                  .admin = identity_.admin,
                                  .pid = getpid(),
                                  .highest_seen = highest,
                                  .pass_key = identity_.pass_key};
    core_->Call([&hello](RequestDesk& desk, base::TimePoint now) {
      hello.draining = desk.draining();
      hello.known_peers = desk.known_peers();
      hello.live = desk.Live(now);
    });
    v1::GatewayToScheduler message;
    *message.mutable_hello() = ToProto(hello);
    return message;
  }

  void OnBatch(const v1::SchedulerToGatewayBatch& batch) {
    std::vector<scheduler::SchedulerToGateway> messages;
    for (const v1::SchedulerToGateway& from : batch.messages()) {
      if (from.has_welcome()) continue;
      // What cannot be read is dropped: reports and inventories put right what it would have said.
      if (auto message = FromProto(from); message.ok()) messages.push_back(*std::move(message));
    }
    if (messages.empty()) return;
    core_->Post([this, messages = std::move(messages)](RequestDesk& desk, base::TimePoint now) {
      for (const scheduler::SchedulerToGateway& message : messages) desk.OnScheduler(message, now);
      NoteReadiness(desk);
    });
  }

  void NoteReadiness(const RequestDesk& desk) {
    const bool served = desk.Served();
    if (served_.exchange(served) != served) changed_();
  }

  const GatewayIdentity identity_;
  GatewayCore* const core_;
  const std::function<void()> changed_;
  std::atomic<bool> served_{false};
  const std::unique_ptr<v1::Scheduler::Stub> stub_;
  Control control_;  // last: its thread uses the rest
};

SchedulerLink::SchedulerLink(std::shared_ptr<grpc::Channel> scheduler, GatewayIdentity identity,
                             GatewayCore* core, const base::Clock& clock,
                             std::function<void()> changed)
    : impl_(std::make_unique<Impl>(scheduler, std::move(identity), core, clock,
                                   std::move(changed))) {}
SchedulerLink::~SchedulerLink() = default;

void SchedulerLink::Send(absl::Span<const scheduler::GatewayToScheduler> messages) {
  for (const auto& message : messages) impl_->control().Enqueue(ToProto(message));
  impl_->control().Flush();
}

bool SchedulerLink::ready() const { return impl_->ready(); }

}  // namespace triptych::services
