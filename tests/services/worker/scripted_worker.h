#pragma once

// A worker's loop among scripted neighbours: a gateway that answers pulls and takes tokens, a
// scheduler that only listens, an engine on a thread of its own. No socket, no gRPC.

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "services/worker/worker_loop.h"
#include "transport/loopback/loopback_transport.h"

namespace triptych::services::testing {

inline constexpr scheduler::Incarnation kSelf{7}, kPeer{8}, kGatewayId{1000};
inline const scheduler::PeerAddress kGateway{kGatewayId, "gateway:1"};
inline const scheduler::PeerAddress kSelfAddress{kSelf, "self:1"};

inline constexpr int64_t kTransferBytes = 4096;  // of each region

inline scheduler::TaskId Task(uint64_t number) { return {{1, scheduler::Incarnation(99)}, number}; }

// Runs plans on its own thread; the token with index i of every answer is 100 + i.
class ScriptedExecutor final : public engine::Executor {
 public:
  ScriptedExecutor() : thread_([this] { Run(); }) {
    capacity_ = {.kv_block_tokens = 4,
                 .kv_blocks = 64,
                 .embedding_slots = 64,
                 .kv_bytes_per_token = 8,
                 .embedding_bytes_per_token = 8,
                 .num_layers = 1,
                 .max_position = 4096};
  }
  ~ScriptedExecutor() override { Stop(); }
  void set_events(engine::ExecutorEvents events) { events_ = std::move(events); }
  void Stop() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  size_t num_patches() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return patches_.size();
  }

  const engine::Capacity& capacity() const override { return capacity_; }
  void ProvideInput(scheduler::TaskId task, engine::EncodeInput) override {
    std::lock_guard<std::mutex> lock(mutex_);
    patches_.insert(task);
  }
  void DropInput(scheduler::TaskId task) override {
    std::lock_guard<std::mutex> lock(mutex_);
    patches_.erase(task);
  }
  const engine::TransferRegions& transfer_regions() const override { return regions_; }
  void Submit(scheduler::StepPlan plan) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      plans_.push_back(std::move(plan));
    }
    changed_.notify_all();
  }

  // Nothing is copied: what these tests look at never crosses workers.
  void Import(scheduler::ImportSpec spec) override { events_.on_import(spec.buffer.id); }
  void Export(scheduler::ExportSpec spec) override { events_.on_export({spec.buffer.id, 0}); }
  void ChecksumLanded(scheduler::PieceBuffer, std::function<void(uint64_t)> on_checksum) override {
    on_checksum(0);
  }

 private:
  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stopping_ || !plans_.empty(); });
      if (stopping_) return;
      scheduler::StepResult result = Result(plans_.front());
      plans_.pop_front();
      lock.unlock();
      events_.on_result(std::move(result));
      lock.lock();
    }
  }
  scheduler::StepResult Result(const scheduler::StepPlan& plan) {
    scheduler::StepResult result;
    result.id = plan.id;
    result.lane = plan.lane;
    for (const auto& row : plan.rows) {
      scheduler::RowResult out{.task = row.task};
      if (row.sample) out.tokens.push_back({.token = 100 + row.sample->index});
      result.rows.push_back(std::move(out));
    }
    result.seconds = 1e-4;
    return result;
  }

  engine::Capacity capacity_;
  engine::ExecutorEvents events_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<scheduler::StepPlan> plans_;
  std::set<scheduler::TaskId> patches_;
  std::vector<uint8_t> staging_ = std::vector<uint8_t>(kTransferBytes);
  std::vector<uint8_t> landing_ = std::vector<uint8_t>(kTransferBytes);
  const engine::TransferRegions regions_{base::HostRef(absl::MakeSpan(staging_)),
                                         base::HostRef(absl::MakeSpan(landing_))};
  bool stopping_ = false;
  std::thread thread_;
};

// The gateway and the scheduler, as the loop sees them. Everything that it is told is kept.
class ScriptedLinks final : public WorkerLinks {
 public:
  scheduler::PulledInput input;
  WorkerLoop* loop = nullptr;
  bool answer_pulls = true;

  void SendToScheduler(const scheduler::WorkerToScheduler& message) override {
    std::lock_guard<std::mutex> lock(mutex_);
    told_.push_back(message);
    changed_.notify_all();
  }
  void Pull(const scheduler::PullRequest& request, const scheduler::PeerAddress&) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      pulled_.insert(request.task);
      changed_.notify_all();
    }
    if (answer_pulls) loop->PostPulled(request.task, input);
  }
  void DropInput(scheduler::TaskId task) override {
    std::lock_guard<std::mutex> lock(mutex_);
    dropped_.insert(task);
    changed_.notify_all();
  }
  void SendTransfer(const scheduler::PeerAddress&, const scheduler::TransferMessage&) override {}
  void SendTokens(const scheduler::PeerAddress&, const scheduler::TokenBatch& batch,
                  const StageTimes*) override {
    int32_t next = 0;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (size_t i = 0; i < batch.tokens.size(); ++i) {
        tokens_[batch.start_index + static_cast<int32_t>(i)] = batch.tokens[i].token;
      }
      while (tokens_.contains(next)) ++next;
      if (batch.finish != scheduler::Finish::kNone) finish_ = batch.finish;
      changed_.notify_all();
    }
    loop->PostTokenReplies({{.request = batch.request,
                             .task = batch.task,
                             .epoch = batch.epoch,
                             .kind = scheduler::TokenReply::Kind::kAccepted,
                             .next_index = next}});
  }
  void ForgetPeer(scheduler::Incarnation peer) override {
    std::lock_guard<std::mutex> lock(mutex_);
    forgotten_.insert(peer);
    changed_.notify_all();
  }

  // Waits until a message of this kind about `task` was sent; false after ten seconds.
  template <typename Message>
  bool WaitFor(scheduler::TaskId task) {
    return WaitUntil([&] {
      for (const auto& message : told_) {
        const auto* found = std::get_if<Message>(&message);
        if (found != nullptr && found->task == task) return true;
      }
      return false;
    });
  }
  bool WaitForPull(scheduler::TaskId task) {
    return WaitUntil([&] { return pulled_.contains(task); });
  }
  bool WaitForDrop(scheduler::TaskId task) {
    return WaitUntil([&] { return dropped_.contains(task); });
  }
  bool WaitForForgotten(scheduler::Incarnation peer) {
    return WaitUntil([&] { return forgotten_.contains(peer); });
  }
  bool WaitForFinish() {
    return WaitUntil([&] { return finish_ != scheduler::Finish::kNone; });
  }
  // Waits for a report that reflects this many messages of the scheduler.
  bool WaitForHandled(uint64_t sequence) {
    return WaitUntil([&] {
      for (const auto& message : told_) {
        const auto* report = std::get_if<scheduler::WorkerReport>(&message);
        if (report != nullptr && report->handled_sequence == sequence) return true;
      }
      return false;
    });
  }
  std::map<int32_t, int32_t> tokens() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return tokens_;
  }

 private:
  bool WaitUntil(const std::function<bool()>& done) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_until(lock, clock_.Now() + std::chrono::seconds(10), done);
  }

  const base::RealClock clock_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<scheduler::WorkerToScheduler> told_;
  std::map<int32_t, int32_t> tokens_;
  std::set<scheduler::TaskId> pulled_, dropped_;
  std::set<scheduler::Incarnation> forgotten_;
  scheduler::Finish finish_ = scheduler::Finish::kNone;
};

// One worker with every role.
class ScriptedWorker {
 public:
  base::RealClock clock;
  base::CapturingLogger log{clock};
  base::Registry registry;
  transport::LoopbackHub hub;
  std::unique_ptr<transport::LoopbackEndpoint> endpoint = hub.Connect(kSelf);
  scheduler::StageConfig config = Config();
  WorkerMetrics metrics{&registry, config.profile};
  ScriptedLinks links;
  ScriptedExecutor executor;
  WorkerLoop loop{config, WorkerLoopParts{clock, log, executor, *endpoint, links, metrics}};

  ScriptedWorker() {
    links.loop = &loop;
    links.input.segments = {scheduler::TokenRun{{1, 2, 3, 4, 5, 6, 7, 8, 9}}};
    links.input.max_tokens = 5;
    executor.set_events(
        {.on_result =
             [this](scheduler::StepResult result) { loop.PostStepResult(std::move(result)); },
         .on_import = [this](scheduler::BufferId buffer) { loop.PostImported(buffer); },
         .on_export = [this](scheduler::ExportResult result) { loop.PostExported(result); }});
    loop.Start();
  }
  ~ScriptedWorker() {
    loop.Stop();
    executor.Stop();
  }

  void Tell(scheduler::SchedulerToWorker message) { loop.PostScheduler({std::move(message)}); }
  scheduler::AssignPrefill Prefill(uint64_t task) const {
    return {
        .task = Task(task), .request = {kGatewayId, task}, .gateway = kGateway, .prompt_tokens = 9};
  }
  // The planned hand-over inside this worker.
  void HandOver(uint64_t request, uint64_t prefill, uint64_t decode) {
    Tell(scheduler::AssignDecode{.task = Task(decode),
                                 .request = {kGatewayId, request},
                                 .gateway = kGateway,
                                 .prompt_tokens = 9,
                                 .producer = Task(prefill),
                                 .producer_worker = kSelfAddress});
    Tell(scheduler::BindConsumer{Task(prefill), Task(decode), kSelfAddress});
  }
  bool Idle() { return loop.WaitUntilIdle(clock.Now() + std::chrono::seconds(10)); }

 private:
  static scheduler::StageConfig Config() {
    scheduler::StageConfig config;
    config.profile.incarnation = kSelf;
    config.profile.roles.bits = 7;
    config.profile.fingerprint = "model";
    config.profile.kv_block_tokens = 4;
    config.profile.kv_blocks = 64;
    config.profile.embedding_slots = 64;
    config.profile.max_sequences = 8;
    config.profile.max_encodes = 4;
    config.profile.kv_bytes_per_token = 8;
    config.embedding_bytes_per_token = 8;
    config.max_piece_bytes = 1024;
    config.staging_bytes = config.landing_bytes = kTransferBytes;
    config.layout = {.vocab_size = 1000, .block_tokens = 4, .max_prompt_tokens = 4096};
    config.chunk_tokens = 4;
    config.step_tokens = 16;
    config.max_batch = 8;
    return config;
  }
};

}  // namespace triptych::services::testing
