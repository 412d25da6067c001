#include "tests/simulation/sim_worker.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "base/checksum.h"
#include "tests/simulation/reference.h"
#include "tests/simulation/sim_gateway.h"

namespace triptych::simulation {
namespace {

using scheduler::Stage;
using std::chrono::milliseconds;

constexpr base::Duration kPullDeadline = std::chrono::seconds(2);

scheduler::WorkerProfile MakeProfile(Incarnation id, const std::string& letters,
                                     const ClusterShape& shape) {
  const int32_t size = KnobsOf(shape, id).size;
  scheduler::WorkerProfile profile;
  profile.name = letters + std::to_string(id.value());
  profile.incarnation = id;
  for (char letter : letters) {
    profile.roles.add(letter == 'E'   ? Stage::kEncode
                      : letter == 'P' ? Stage::kPrefill
                                      : Stage::kDecode);
  }
  profile.fingerprint = "model";
  profile.address = profile.name;
  profile.kv_block_tokens = kBlockTokens;
  profile.kv_blocks = shape.kv_blocks * size;
  profile.embedding_slots = shape.embedding_slots * size;
  profile.embedding_page_slots = kPageSlots;
  profile.max_sequences = 16;
  profile.max_encodes = 8;
  profile.kv_bytes_per_token = kLayers * engine::FakeModel::kBytesPerToken;
  return profile;
}

scheduler::StageConfig MakeConfig(const scheduler::WorkerProfile& profile, const Knobs& knobs) {
  scheduler::StageConfig config;
  config.profile = profile;
  config.layout = SimLayoutRules();
  config.embedding_bytes_per_token = engine::FakeModel::kBytesPerToken;
  config.max_position = kMaxPosition;
  config.chunk_tokens = knobs.chunk_tokens;
  config.step_tokens = 64;
  config.max_batch = knobs.max_batch;
  config.max_steps_in_flight = knobs.max_steps_in_flight;
  config.num_layers = kLayers;
  config.layer_group = knobs.layer_group;
  config.max_piece_bytes = 100 * engine::FakeModel::kBytesPerToken;
  config.staging_bytes = knobs.staging_pieces * config.max_piece_bytes;
  config.landing_bytes = knobs.landing_pieces * config.max_piece_bytes;
  config.buffer_alignment = engine::FakeModel::kBytesPerToken;
  return config;
}

}  // namespace

Knobs KnobsOf(const ClusterShape& shape, Incarnation id) {
  Knobs knobs;
  if (shape.variety == 0) return knobs;
  base::SeededRandom random(shape.variety * 1000003 + id.value());
  const auto one_of = [&](std::initializer_list<int> choices) {
    return choices.begin()[random.Below(choices.size())];
  };
  knobs.size = one_of({1, 1, 2, 4});
  knobs.slowness = one_of({1, 1, 2, 3});
  knobs.chunk_tokens = one_of({8, 32, 64});
  knobs.max_batch = one_of({2, 8, 16});
  knobs.max_steps_in_flight = one_of({1, 2});
  knobs.layer_group = one_of({1, 2, 3});
  knobs.staging_pieces = one_of({1, 2, 6});
  knobs.landing_pieces = one_of({1, 2, 4});
  return knobs;
}

SimWorker::SimWorker(Cluster& cluster, Incarnation id, const std::string& letters,
                     const ClusterShape& shape)
    : ControlPeer(cluster, id),
      roles(letters),
      stage(MakeConfig(MakeProfile(id, letters, shape), KnobsOf(shape, id))),
      executor(
          SimDevice(shape.kv_blocks * KnobsOf(shape, id).size,
                    shape.embedding_slots * KnobsOf(shape, id).size, KnobsOf(shape, id).slowness),
          cluster.world.clock, Events()),
      world_(cluster.world),
      profile_(MakeProfile(id, letters, shape)),
      endpoint_(cluster.world.hub.Connect(id)),
      next_report_(cluster.world.now()) {}

SimWorker::~SimWorker() = default;

engine::ExecutorEvents SimWorker::Events() {
  return {
      .on_result = [this](scheduler::StepResult result) { Finished(std::move(result)); },
      .on_import = [this](scheduler::BufferId buffer) { stage.OnImported(buffer, world_.now()); },
      .on_export =
          [this](scheduler::ExportResult result) { stage.OnExported(result, world_.now()); }};
}

void SimWorker::Finished(scheduler::StepResult result) {
  for (scheduler::RowResult& row : result.rows) {
    if (!world_.random.Chance(world_.faults.engine_error)) continue;
    row.numerical_error = true;
    cluster_.may_fail.insert(cluster_.request_of[row.task]);
  }
  stage.OnStepResult(std::move(result), world_.now());
}

void SimWorker::AfterEvent() {
  while (true) {
    std::vector<scheduler::StageAction> actions = stage.TakeActions();
    if (stage.draining()) CheckDraining();
    stage.CheckInvariants();
    if (actions.empty()) return;
    for (scheduler::StageAction& action : actions) {
      std::visit([this](auto& a) { Do(a); }, action);
    }
  }
}

bool SimWorker::IsIdle() const {
  return stage.Stats() == scheduler::StageStats() && executor.num_patches() == 0;
}

// What drains finishes what it has and takes nothing else.
void SimWorker::CheckDraining() {
  std::set<scheduler::TaskId> tasks;
  for (const scheduler::TaskReport& task : stage.Report(true).tasks) {
    // The decode of what it has prefilled is no new work.
    const bool follows =
        task.stage == Stage::kDecode && taken_.has_value() && taken_->contains(task.producer);
    if (!follows) tasks.insert(task.task);
  }
  if (!taken_.has_value()) taken_ = tasks;
  for (const scheduler::TaskId& task : tasks) {
    if (!taken_->contains(task)) cluster_.Violated("a draining worker took " + ToString(task));
  }
}

base::TimePoint SimWorker::NextWake() const {
  return std::min({stage.NextDeadline(), executor.NextEvent(), next_report_});
}

void SimWorker::Wake() {
  executor.RunUntil(world_.now());
  stage.OnTime(world_.now());
  if (next_report_ <= world_.now()) Report();
}

ToMachine SimWorker::Hello() {
  handled_ = 0;
  scheduler::WorkerHello hello{.profile = profile_, .highest_seen = highest};
  hello.report = stage.Report(true);
  hello.draining = stage.draining();
  hello.lost_peers = lost_peers_;
  return [hello](SimScheduler& at) { at.Handle(hello); };
}

void SimWorker::Handle(const scheduler::SchedulerToWorker& message) {
  ++handled_;
  if (cluster_.shape().sabotage == Sabotage::kReleaseIgnored &&
      std::holds_alternative<scheduler::ReleaseTask>(message)) {
    return;
  }
  std::visit(
      [&](const auto& m) {
        if constexpr (requires { m.task, m.request; }) cluster_.request_of[m.task] = m.request;
      },
      message);
  stage.Handle(message, world_.now());
  if (!world_.random.Chance(world_.faults.repeat_control)) return;
  // Later than its stream would allow, but not later than another scheduler's word.
  world_.At(milliseconds(world_.random.Between(0, 500)), id(), [this, message, from = highest] {
    if (from == highest) stage.Handle(message, world_.now());
  });
}

void SimWorker::OnPeerLost(Incarnation peer) {
  lost_peers_.push_back(peer);
  stage.OnPeerLost(peer, world_.now());
}

void SimWorker::Report() {
  next_report_ = world_.now() + milliseconds(100);
  scheduler::WorkerReport report = stage.Report(reports_++ % 10 == 0);
  report.handled_sequence = handled_;
  Do(scheduler::SendToScheduler{report});
}

void SimWorker::Do(const scheduler::SendToScheduler& action) {
  cluster_.ToScheduler(
      *this, [id = id(), message = action.message](SimScheduler& at) { at.Handle(id, message); });
}

// A pull may fail before or after the gateway has seen it.
void SimWorker::Do(const scheduler::Pull& action) {
  const Incarnation self = id(), gateway = action.gateway.incarnation;
  const bool lost_there = world_.random.Chance(world_.faults.reset_stream);
  const bool lost_back = world_.random.Chance(world_.faults.reset_stream);
  const auto answer = [this, request = action.request](absl::StatusOr<scheduler::PulledInput> in) {
    Pulled(request, std::move(in));
  };
  if (lost_there) {
    world_.At(world_.Delay(), self, [answer] { answer(absl::UnavailableError("reset")); });
    return;
  }
  // What nobody answers ends by its deadline; a second answer changes nothing.
  world_.At(kPullDeadline, self, [answer] { answer(absl::UnavailableError("deadline")); });
  if (world_.IsBlocked(Stream::kPull, self, gateway)) return;
  world_.At(world_.Delay(), gateway,
            [this, self, gateway, answer, lost_back, &world = world_, &cluster = cluster_,
             request = action.request] {
              auto input = cluster.gateways.at(gateway)->Pull(request, self);
              if (lost_back) input = absl::UnavailableError("reset");
              if (world.IsBlocked(Stream::kPull, gateway, self)) return;
              world.At(world.Delay(), self, [answer, input] { answer(input); });
            });
}

void SimWorker::Pulled(const scheduler::PullRequest& request,
                       absl::StatusOr<scheduler::PulledInput> input) {
  if (dropped_.count(request.task) > 0) return;
  if (!answered_.insert(request.task).second) return;
  const auto segments = input.ok() ? input->segments : std::vector<scheduler::Segment>();
  stage.OnPulled(request.task, input, world_.now());
  if (request.stage != Stage::kEncode || !input.ok()) return;
  int32_t index = 0;
  for (const scheduler::Segment& segment : segments) {
    const auto* item = std::get_if<scheduler::Item>(&segment);
    if (item == nullptr || index++ != request.item) continue;
    world_.At(world_.Delay(), id(), [this, task = request.task, item = *item] {
      if (dropped_.count(task) > 0) return;
      if (world_.random.Chance(world_.faults.engine_error)) {
        cluster_.may_fail.insert(cluster_.request_of[task]);
        return stage.OnMediaReady(task, absl::InternalError("media"), world_.now());
      }
      executor.ProvideInput(task, InputOf(item));
      stage.OnMediaReady(task, item.grid, world_.now());
    });
  }
}

void SimWorker::Do(const scheduler::DropInput& action) {
  dropped_.insert(action.task);
  executor.DropInput(action.task);
}

void SimWorker::Do(const scheduler::SendTransfer& action) {
  const Incarnation peer = action.peer.incarnation;
  const auto* deny = std::get_if<scheduler::Deny>(&action.message);
  if (deny != nullptr && deny->reason == scheduler::Deny::Reason::kMismatch &&
      cluster_.failure.empty()) {
    cluster_.failure = "an honest worker was told that its transfer is unlike the reservation";
  }
  world_.Send(Stream::kTransfer, id(), peer,
              [&cluster = cluster_, from = id(), peer, message = action.message] {
                cluster.workers.at(peer)->stage.OnTransferMessage(from, message,
                                                                  cluster.world.now());
              });
}

void SimWorker::Do(const scheduler::PostSend& action) {
  const base::MemoryRef piece =
      executor.transfer_regions().staging.Sub(action.buffer.offset, action.buffer.bytes);
  const Incarnation self = id(), peer = action.peer.incarnation;
  if (cluster_.shape().sabotage == Sabotage::kChecksumIgnored) {
    cluster_.sent_checksums[{self, peer, action.sequence}] =
        base::Checksum64(piece.HostBytes().data(), piece.HostBytes().size());
  }
  endpoint_->Send(peer, action.peer.address, action.sequence, piece,
                  [this, &world = world_, self, peer, sequence = action.sequence](absl::Status s) {
                    world.At(base::Duration(0), self, [this, peer, sequence, s] {
                      const bool kept = cluster_.shape().sabotage == Sabotage::kStagingKept;
                      if (kept && !std::exchange(staging_kept_, true)) return;
                      stage.OnPieceSent(peer, sequence, s, world_.now());
                    });
                  });
  world_.MovePieces();
}

void SimWorker::Do(const scheduler::PostReceive& action) {
  const base::MemoryRef piece =
      executor.transfer_regions().landing.Sub(action.buffer.offset, action.buffer.bytes);
  const Incarnation self = id(), peer = action.peer.incarnation;
  // It may be called after the death of this worker.
  endpoint_->Receive(peer, action.sequence, piece,
                     [this, &world = world_, &cluster = cluster_, self, peer,
                      landing = piece.HostBytes(), sequence = action.sequence](absl::Status s) {
                       uint64_t sum = s.ok() ? base::Checksum64(landing.data(), landing.size()) : 0;
                       if (cluster.shape().sabotage == Sabotage::kChecksumIgnored) {
                         sum = cluster.sent_checksums[{peer, self, sequence}];
                       }
                       world.At(base::Duration(0), self, [this, peer, sequence, s, sum] {
                         stage.OnPieceReceived(peer, sequence, s, sum, world_.now());
                       });
                     });
  world_.MovePieces();
}

void SimWorker::Do(scheduler::SubmitStep& action) { executor.Submit(std::move(action.plan)); }

void SimWorker::Do(scheduler::SubmitImport& action) { executor.Import(std::move(action.spec)); }

void SimWorker::Do(scheduler::SubmitExport& action) { executor.Export(std::move(action.spec)); }

void SimWorker::Do(scheduler::SendTokens action) {
  const Incarnation self = id(), gateway = action.gateway.incarnation;
  world_.Send(
      Stream::kTokens, self, gateway,
      [&cluster = cluster_, self, gateway, batch = action.batch] {
        World& world = cluster.world;
        const auto reply = cluster.gateways.at(gateway)->Tokens(batch);
        world.Send(
            Stream::kReplies, gateway, self,
            [&cluster, self, reply] {
              cluster.workers.at(self)->stage.OnTokenReply(reply, cluster.world.now());
            },
            [&cluster, self, gateway] {
              // Replies are lost with the stream that they answer.
              cluster.world.Reset(Stream::kTokens, self, gateway);
              cluster.world.At(cluster.world.Delay(), self, [&cluster, self, gateway] {
                cluster.workers.at(self)->ResetTokens(gateway);
              });
            });
      },
      [this, gateway] { ResetTokens(gateway); });
}

void SimWorker::ResetTokens(Incarnation gateway) {
  world_.Reset(Stream::kReplies, gateway, id());
  stage.OnTokenStreamReset(gateway, world_.now());
}

void SimWorker::Do(const scheduler::AbortPeer& action) {
  endpoint_->Abort(action.peer);
  world_.MovePieces();
}

}  // namespace triptych::simulation
