#include <grpcpp/alarm.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/rpc.h"
#include "services/convert/ids.h"
#include "services/scheduler/scheduler_service.h"

namespace triptych::services {
namespace {

// A reactor that nobody finishes would keep the server from ending.
grpc::Status Overrun() { return {grpc::StatusCode::UNAVAILABLE, "overrun, or stopping"}; }

const char* StateOf(bool draining, base::Duration silent_for) {
  if (silent_for > std::chrono::seconds(1)) return "silent";
  return draining ? "draining" : "ready";
}

void Write(const scheduler::WorkerSnapshot& worker, v1::ProcessState* p) {
  p->set_name(worker.profile.name);
  p->set_roles(ToString(worker.profile.roles));
  p->set_pid(worker.profile.pid);
  p->set_admin(worker.profile.admin);
  p->set_state(StateOf(worker.draining, worker.silent_for));
  int32_t tasks = 0;
  for (int32_t count : worker.tasks) tasks += count;
  p->set_tasks(tasks);
  p->set_free_kv_blocks(worker.free_kv_blocks);
  p->set_kv_blocks(worker.profile.kv_blocks);
  p->set_free_embedding_slots(worker.free_embedding_slots);
  p->set_embedding_slots(worker.profile.embedding_slots);
  for (const scheduler::StageLoad& load : worker.load) {
    const double cost = static_cast<double>(load.queued_cost + load.running_cost);
    p->add_predicted_seconds(cost > 0 ? load.fixed_seconds + cost * load.seconds_per_unit : 0);
  }
}

void Write(const scheduler::GatewaySnapshot& gateway, v1::ProcessState* p) {
  p->set_name(gateway.name);
  p->set_roles("gateway");
  p->set_pid(gateway.pid);
  p->set_admin(gateway.admin);
  p->set_state(StateOf(gateway.draining, gateway.silent_for));
  p->set_tasks(static_cast<int32_t>(gateway.live_requests));
}

void Write(const scheduler::ClusterSnapshot& snapshot, const ClusterService::Self& self,
           v1::ClusterSnapshot* out) {
  *out->mutable_scheduler() = ToProto(snapshot.id);
  out->set_recovering(snapshot.recovering);
  const scheduler::RequestCounts& requests = snapshot.requests;
  out->set_queued_requests(requests.queued);
  out->set_running_requests(requests.prefilling + requests.awaiting_decode + requests.handing_over +
                            requests.decoding + requests.finishing);
  v1::ProcessState* own = out->add_processes();
  own->set_name(self.name);
  own->set_roles("scheduler");
  own->set_pid(self.pid);
  own->set_admin(self.admin);
  own->set_state(snapshot.recovering ? "recovering" : "ready");
  for (const auto& gateway : snapshot.gateways) Write(gateway, out->add_processes());
  for (const auto& worker : snapshot.workers) Write(worker, out->add_processes());
}

}  // namespace

grpc::ServerUnaryReactor* ClusterService::GetSnapshot(grpc::CallbackServerContext* context,
                                                      const v1::GetSnapshotRequest*,
                                                      v1::ClusterSnapshot* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool posted =
      core_->PostSnapshot([this, reactor, response](const scheduler::ClusterSnapshot& snapshot) {
        Write(snapshot, self_, response);
        reactor->Finish(grpc::Status::OK);
      });
  if (!posted) reactor->Finish(Overrun());
  return reactor;
}

grpc::ServerUnaryReactor* ClusterService::Drain(grpc::CallbackServerContext* context,
                                                const v1::DrainRequest* request,
                                                v1::DrainResponse*) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool posted = core_->PostDrain(request->name(), [reactor](const absl::Status& status) {
    reactor->Finish(base::ToGrpc(status));
  });
  if (!posted) reactor->Finish(Overrun());
  return reactor;
}

// One watcher: a snapshot, then the next after its interval. Frees itself when cancelled.
class ClusterService::WatchStream final : public grpc::ServerWriteReactor<v1::ClusterSnapshot> {
 public:
  WatchStream(ClusterService* service, std::chrono::milliseconds interval)
      : service_(service), interval_(interval) {
    Ask();
  }

  void OnWriteDone(bool ok) override {
    base::MutexLock lock(&mutex_);
    if (!ok || cancelled_) {
      Finish(grpc::Status::CANCELLED);
      return;
    }
    alarm_.Set(std::chrono::system_clock::now() + interval_, [this](bool) { Ask(); });
  }
  // The alarm, or the snapshot or write under way, comes back at once and ends the stream.
  void OnCancel() override {
    base::MutexLock lock(&mutex_);
    cancelled_ = true;
    alarm_.Cancel();
  }
  void OnDone() override { delete this; }

 private:
  void Ask() {
    {
      base::MutexLock lock(&mutex_);
      if (cancelled_) {
        Finish(grpc::Status::CANCELLED);
        return;
      }
    }
    const bool posted =
        service_->core_->PostSnapshot([this](const scheduler::ClusterSnapshot& snapshot) {
          message_.Clear();
          Write(snapshot, service_->self_, &message_);
          StartWrite(&message_);
        });
    if (!posted) Finish(Overrun());
  }

  ClusterService* const service_;
  const std::chrono::milliseconds interval_;
  v1::ClusterSnapshot message_;
  grpc::Alarm alarm_;
  base::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

grpc::ServerWriteReactor<v1::ClusterSnapshot>* ClusterService::Watch(
    grpc::CallbackServerContext*, const v1::WatchRequest* request) {
  const int64_t asked = request->interval_ms() == 0 ? 1000 : request->interval_ms();
  const int64_t interval = std::clamp<int64_t>(asked, 100, 60'000);
  return new WatchStream(this, std::chrono::milliseconds(interval));  // deletes itself in OnDone
}

}  // namespace triptych::services
