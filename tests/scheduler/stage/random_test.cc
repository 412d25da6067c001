// Defends: whatever the order of events, with refusals, preemption, cancels and lost workers, every
// request that is not cancelled gets its reference answer, no block is free while a step names it,
// tokens go out once and in order, and at rest nothing is held.

#include "base/random.h"

#include <catch2/catch.hpp>
#include <deque>
#include <map>

#include "tests/scheduler/stage/walk.h"

namespace triptych::scheduler::testing {
namespace {

// A scheduler that places a few requests at a time on random workers and starts them again, with a
// new epoch, whenever a task is refused or fails.
class Storm {
 public:
  Storm(uint64_t seed, std::vector<std::string> roles) : random_(seed) {
    // One to three layers, all in a piece or some.
    fixture.config.num_layers = static_cast<int32_t>(1 + seed % 3);
    fixture.config.layer_group = static_cast<int32_t>(seed / 3 % 3);
    fixture.config.profile.kv_bytes_per_token = 8 * fixture.config.num_layers;
    fixture.config.profile.kv_blocks = 26;
    fixture.config.profile.embedding_slots = 24;
    fixture.config.profile.max_sequences = 4;
    fixture.config.landing_bytes = 8 * 28;
    fixture.config.staging_bytes = 8 * 28;
    for (const std::string& role : roles) fixture.AddWorker(role);
    fixture.on_told = [this](FakeWorker& worker, const WorkerToScheduler& message) {
      Told(worker, message);
    };
  }

  void Submit(uint64_t number) {
    std::vector<Segment> segments{LongText(1 + static_cast<int32_t>(random_.Next() % 20))};
    for (uint64_t i = random_.Next() % 3; i > 0; --i) {
      segments.push_back(Picture(random_.Next(), 1 + static_cast<int32_t>(random_.Next() % 3)));
      segments.push_back(LongText(1 + static_cast<int32_t>(random_.Next() % 5)));
    }
    FakeRequest& request = fixture.AddRequest(number, std::move(segments),
                                              1 + static_cast<int32_t>(random_.Next() % 20));
    waiting_.push_back(number);
    const auto answer = ReferenceAnswer(request.input, fixture.config.layout);
    if (random_.Next() % 3 == 0) {
      request.input.stop_token_ids = {answer[random_.Next() % answer.size()]};
    }
  }

  // Runs until every request is over; kills `victim` after `kill_after` events, if it is not null.
  void Run(FakeWorker* victim, int kill_after) {
    for (int i = 0; !walks_.empty() || !waiting_.empty(); ++i) {
      INFO("event " << i);
      REQUIRE(i < 100000);
      if (victim != nullptr && i == kill_after) Lose(*victim);
      if (!waiting_.empty() && walks_.size() < 4 && random_.Next() % 8 == 0) Place();
      Advance();
      End();
    }
    fixture.RunAll();
  }

  StageFixture fixture;
  int failures = 0, refusals = 0;

 private:
  void Advance() {
    // Each order that a device may choose is a choice of its own.
    std::vector<std::pair<FakeWorker*, size_t>> busy;
    for (auto& worker : fixture.workers) {
      const size_t work = worker->alive ? worker->engine->num_choices() : 0;
      for (size_t choice = 0; choice < work; ++choice) busy.push_back({worker.get(), choice});
    }
    const size_t choices = fixture.events.size() + busy.size();
    if (choices == 0 || random_.Next() % 200 == 0) return fixture.AdvanceToDeadline();
    const size_t pick = random_.Next() % choices;
    if (pick < fixture.events.size()) return fixture.RunEvent(pick);
    const auto [worker, choice] = busy[pick - fixture.events.size()];
    fixture.RunEngine(*worker, choice);
  }

  FakeWorker& Pick(Stage stage) {
    std::vector<FakeWorker*> able;
    for (auto& worker : fixture.workers) {
      const StageState& state = StageSchedulerTestAccess::State(*worker->stage);
      if (worker->alive && state.config.profile.roles.has(stage)) able.push_back(worker.get());
    }
    return *able.at(random_.Next() % able.size());
  }

  void Place() {
    const uint64_t number = waiting_.front();
    waiting_.pop_front();
    FakeRequest& request = fixture.requests.at(number);
    request.epoch = OutputEpoch(++last_epoch_);
    last_task_ += 100;
    Walk walk{fixture,   Pick(Stage::kEncode), Pick(Stage::kPrefill), Pick(Stage::kDecode), request,
              last_task_};
    walk.Place();
    walks_.emplace(number, walk);
  }
  void ReleaseTasks(const Walk& walk) {
    for (size_t i = 0; i < 3; ++i) SendIfAlive(walk.encode, ReleaseTask{walk.encode_task(i)});
    SendIfAlive(walk.decode, ReleaseTask{walk.decode_task()});
    SendIfAlive(walk.prefill, ReleaseTask{walk.prefill_task()});
  }
  void SendIfAlive(FakeWorker& worker, const SchedulerToWorker& message) {
    if (worker.alive) fixture.Send(worker, message);
  }
  void Restart(uint64_t number) {
    ReleaseTasks(walks_.at(number));
    walks_.erase(number);
    waiting_.push_back(number);
  }
  void Lose(FakeWorker& victim) {
    fixture.Kill(victim);
    std::vector<uint64_t> lost;
    for (const auto& [number, walk] : walks_) {
      if (!walk.encode.alive || !walk.prefill.alive || !walk.decode.alive) lost.push_back(number);
    }
    for (uint64_t number : lost) Restart(number);
  }
  void Told(FakeWorker&, const WorkerToScheduler& message) {
    if (const auto* refused = std::get_if<TaskRefused>(&message)) {
      ++refusals;
      RestartOwner(refused->task);
    } else if (const auto* failed = std::get_if<TaskFailed>(&message)) {
      ++failures;
      const bool retry = absl::IsAborted(failed->status) || absl::IsUnavailable(failed->status) ||
                         absl::IsNotFound(failed->status);
      INFO(failed->status);
      REQUIRE(retry);
      RestartOwner(failed->task);
    } else if (const auto* started = std::get_if<DecodeStarted>(&message)) {
      for (const auto& [number, walk] : walks_) {
        if (walk.decode_task() != started->task || !walk.prefill.alive) continue;
        fixture.Send(walk.prefill, ReleaseTask{walk.prefill_task()});
        break;
      }
    }
  }
  void RestartOwner(const TaskId& task) {
    for (const auto& [number, walk] : walks_) {
      if (walk.base != task.number / 100 * 100) continue;
      return Restart(number);
    }
  }
  // Ends what the gateway regards as over, and cancels now and then.
  void End() {
    std::vector<uint64_t> over;
    for (const auto& [number, walk] : walks_) {
      if (random_.Next() % 3000 == 0) walk.request.ended = true;
      if (walk.request.over()) over.push_back(number);
    }
    for (uint64_t number : over) {
      ReleaseTasks(walks_.at(number));
      walks_.erase(number);
    }
    std::erase_if(waiting_, [&](uint64_t n) { return fixture.requests.at(n).over(); });
  }

  base::SeededRandom random_;
  std::deque<uint64_t> waiting_;
  std::map<uint64_t, Walk> walks_;
  uint64_t last_task_ = 0;
  uint32_t last_epoch_ = 0;
};

void CheckStorm(uint64_t seed, std::vector<std::string> roles, int victim, int kill_after) {
  INFO("seed " << seed);
  Storm storm(seed, std::move(roles));
  for (uint64_t number = 1; number <= 12; ++number) storm.Submit(number);
  FakeWorker* lost = victim < 0 ? nullptr : storm.fixture.workers.at(victim).get();
  storm.Run(lost, kill_after);
  for (const auto& [number, request] : storm.fixture.requests) {
    INFO("request " << number);
    if (request.ended) continue;
    CHECK(request.tokens == ReferenceAnswer(request.input, storm.fixture.config.layout));
  }
  for (int i = 0; i < 20; ++i) {
    storm.fixture.AdvanceToDeadline();
    storm.fixture.RunAll();
  }
  storm.fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: random order on every topology", "[scheduler][stage]") {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    CheckStorm(seed, {"encode", "prefill", "decode"}, -1, 0);
    CheckStorm(seed, {"encode+prefill+decode"}, -1, 0);
    CheckStorm(seed, {"encode+prefill", "decode"}, -1, 0);
    CheckStorm(seed, {"encode", "prefill+decode"}, -1, 0);
    CheckStorm(seed, {"encode+prefill+decode", "encode+prefill+decode"}, -1, 0);
  }
}

TEST_CASE("StageScheduler: a worker lost at a random moment costs no request",
          "[scheduler][stage]") {
  for (uint64_t seed = 100; seed < 112; ++seed) {
    for (int victim = 0; victim < 3; ++victim) {
      CheckStorm(seed, {"encode", "prefill", "decode", "encode+prefill+decode"}, victim,
                 static_cast<int>(seed * 37 % 900));
    }
  }
}

}  // namespace
}  // namespace triptych::scheduler::testing
