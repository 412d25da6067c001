#pragma once

// The one thread that owns the ClusterScheduler: events come through a bounded queue, actions leave
// through the peers' streams. It translates; it decides nothing.
//
// Thread rule: Post* may be called from any thread and never block.

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <unordered_set>
#include <vector>

#include "base/bounded_queue.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/round_pacer.h"
#include "scheduler/cluster/cluster_scheduler.h"
#include "services/runtime/server_stream.h"
#include "services/scheduler/scheduler_metrics.h"
#include "triptych/v1/scheduler.pb.h"

namespace triptych::services {

class SchedulerCore {
 public:
  using WorkerStream = ServerStream<v1::WorkerToSchedulerBatch, v1::SchedulerToWorkerBatch>;
  using GatewayStream = ServerStream<v1::GatewayToSchedulerBatch, v1::SchedulerToGatewayBatch>;

  // Borrows all. `own` is drawn at random.
  SchedulerCore(scheduler::ClusterConfig config, scheduler::Incarnation own,
                const base::Clock& clock, base::Logger& log, SchedulerMetrics& metrics);
  ~SchedulerCore() { Stop(); }
  // Ends the thread; streams that are open see no more of it, and what is posted from now on is
  // dropped. To be called before the server ends: the streams that it closes are then no losses,
  // and the work that runs goes on without a scheduler.
  void Stop();

  // Streams are shared: gRPC holds them until they are done.
  void PostWorkerHello(std::shared_ptr<WorkerStream> stream, scheduler::WorkerHello hello);
  void PostGatewayHello(std::shared_ptr<GatewayStream> stream, scheduler::GatewayHello hello);
  // Of a stream that has been replaced or refused, nothing is heard.
  void PostWorkerMessages(std::shared_ptr<WorkerStream> stream,
                          std::vector<scheduler::WorkerToScheduler> messages);
  void PostGatewayMessages(std::shared_ptr<GatewayStream> stream,
                           std::vector<scheduler::GatewayToScheduler> messages);
  void PostClosed(const WorkerStream* stream);
  void PostClosed(const GatewayStream* stream);

  using OnSnapshot = std::function<void(scheduler::ClusterSnapshot)>;
  // `done` is called on the core's thread; never when the answer is false: the core is overrun or
  // has been stopped.
  bool PostSnapshot(OnSnapshot done);
  bool PostDrain(std::string name, std::function<void(absl::Status)> done);
  // Whether it still waits for its peers' reports and places nothing, as of the last round.
  bool recovering() const { return recovering_.load(); }

 private:
  using Event = std::function<void(base::TimePoint now)>;

  bool Post(Event event);
  void Run();
  void RunActions();
  void Flush();
  void Do(const scheduler::ToWorker& action);
  void Do(const scheduler::ToGateway& action);
  void Do(const scheduler::DropPeer& action);
  template <typename Stream>
  using Streams = std::map<scheduler::Incarnation, std::shared_ptr<Stream>>;
  // Whether it is its peer's stream of now.
  template <typename Stream>
  static bool IsCurrent(const Streams<Stream>& streams, const Stream* stream);
  template <typename Stream>
  void CloseStream(Streams<Stream>* streams, scheduler::Incarnation peer,
                   const grpc::Status& status);
  // False when it is known to be.
  bool RememberLost(scheduler::Incarnation peer);
  void TellPeerGone(scheduler::Incarnation peer);
  void StampStreams();
  v1::Envelope EnvelopeTo(scheduler::Incarnation peer) const;

  static constexpr size_t kMaxEvents = 1 << 18;
  static constexpr size_t kMaxLost = 4096;
  // Rounds of a busy loop, see RoundPacer.
  static constexpr base::Duration kRound = std::chrono::milliseconds(1);
  static constexpr int kRoundBurst = 8;
  static constexpr base::Duration kMetricsInterval = std::chrono::milliseconds(250);

  const scheduler::Incarnation own_;
  const base::Clock& clock_;
  base::Logger& log_;
  SchedulerMetrics& metrics_;
  scheduler::ClusterScheduler cluster_;
  scheduler::SchedulerId stamped_;
  std::atomic<bool> recovering_{true};
  Streams<WorkerStream> workers_;  // those that are connected
  Streams<GatewayStream> gateways_;
  // Peers declared lost: the others have given them up, so a worker that comes back must do so as a
  // new incarnation. The latest kMaxLost are known.
  std::unordered_set<uint64_t> lost_;
  std::deque<uint64_t> lost_in_order_;
  base::RoundPacer pacer_{kRound, kRoundBurst};
  base::TimePoint next_metrics_;
  base::BoundedQueue<Event> events_{kMaxEvents};
  std::thread thread_;  // last: it uses everything above
};

}  // namespace triptych::services
