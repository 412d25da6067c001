#pragma once

// Workers with fake engines, a gateway and a scheduler that only follows orders, on one queue of
// events: the test chooses which goes next, or lets a seeded generator choose.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "scheduler/stage/stage_scheduler.h"
#include "scheduler/stage/stage_state.h"
#include "tests/scheduler/stage/fake_engine.h"

namespace triptych::scheduler {

class StageSchedulerTestAccess {
 public:
  static const StageState& State(const StageScheduler& s) { return *s.state_; }
};

namespace testing {

inline Roles RolesOf(const std::string& text) {
  Roles roles;
  REQUIRE(ParseRoles(text, &roles));
  return roles;
}

inline TaskId Task(uint64_t number) { return {{1, Incarnation(99)}, number}; }

inline const PeerAddress kGateway{Incarnation(1000), "gateway:1"};

// The answer that a request must get, computed without blocks, chunks or workers.
inline std::vector<int32_t> ReferenceAnswer(const PulledInput& input, const LayoutRules& rules) {
  const PromptLayout layout = *ResolveLayout(input.segments, {}, rules);
  std::vector<uint64_t> inputs(layout.token_ids.begin(), layout.token_ids.end());
  size_t item = 0;
  for (const Segment& segment : input.segments) {
    const auto* found = std::get_if<Item>(&segment);
    if (found == nullptr) continue;
    const ItemSlots slots = layout.items[item++];
    for (int32_t i = 0; i < slots.size(); ++i) {
      inputs[slots.begin + i] = EmbeddingWord(found->content_key, i);
    }
  }
  uint64_t digest = 0;
  for (int32_t i = 0; i < layout.num_tokens(); ++i) {
    digest = Mix(digest, KvWord(inputs[i], layout.PositionAt(i)));
  }
  std::vector<int32_t> answer;
  Uses uses;
  if (input.sampling.has_penalty()) {
    for (int32_t token : layout.token_ids) uses[token].in_prompt = 1;
  }
  const std::set<int32_t> stops(input.stop_token_ids.begin(), input.stop_token_ids.end());
  while (static_cast<int32_t>(answer.size()) < input.max_tokens) {
    const auto index = static_cast<int32_t>(answer.size());
    answer.push_back(Draw(digest, {input.sampling, index, {}}, uses).token);
    if (input.sampling.has_penalty()) ++uses[answer.back()].in_answer;
    if (stops.contains(answer.back())) break;
    digest = Mix(digest, KvWord(answer.back(), layout.PositionAt(layout.num_tokens() + index)));
  }
  return answer;
}

// One request at the gateway, and the tokens that it has taken.
struct FakeRequest {
  RequestId id;
  PulledInput input;
  OutputEpoch epoch;
  std::vector<int32_t> tokens;
  Finish finish = Finish::kNone;
  absl::Status error;
  bool ended = false;
  bool over() const { return ended || finish != Finish::kNone || !error.ok(); }
  std::vector<int32_t> ItemTokenCounts(const LayoutRules& rules) const {
    std::vector<int32_t> counts;
    const PromptLayout layout = *ResolveLayout(input.segments, {}, rules);
    for (const ItemSlots& slots : layout.items) counts.push_back(slots.size());
    return counts;
  }
  Item ItemAt(int32_t item) const {
    for (const Segment& segment : input.segments) {
      const auto* found = std::get_if<Item>(&segment);
      if (found != nullptr && item-- == 0) return *found;
    }
    return {};
  }
};

struct FakeWorker {
  PeerAddress address;
  std::unique_ptr<StageScheduler> stage;
  std::unique_ptr<FakeEngine> engine;
  std::vector<WorkerToScheduler> told;
  std::map<TaskId, int32_t> next_index;  // of tokens, by task
  bool alive = true;
};

class StageFixture {
 public:
  StageConfig config;
  base::SimulatedClock clock;
  std::map<uint64_t, FakeRequest> requests;
  std::vector<std::unique_ptr<FakeWorker>> workers;
  // What is on its way, each an event of its own. Events of one channel stay in order.
  struct Event {
    std::string channel;
    std::function<void()> run;
  };
  std::deque<Event> events;
  bool gateway_silent = false;             // tokens are taken in, replies are lost
  bool resent_allowed = false;             // a stream was rebuilt: indexes may be sent again
  bool corrupt_next = false;               // flips a word of the next piece
  std::optional<int32_t> bad_first_token;  // what travels with KV instead of the first token
  std::optional<Grid> media_grid;          // what the media of every item give, instead of its grid
  int64_t pieces_moved = 0;
  std::function<void(FakeWorker&, const WorkerToScheduler&)> on_told;

  StageFixture() {
    config.profile.fingerprint = "model";
    config.profile.kv_block_tokens = 4;
    config.profile.kv_blocks = 64;
    config.profile.embedding_slots = 64;
    config.profile.embedding_page_slots = 4;
    config.profile.max_sequences = 8;
    config.profile.max_encodes = 4;
    config.profile.kv_bytes_per_token = 8;
    config.embedding_bytes_per_token = 8;
    config.layout = {.vocab_size = kVocabulary, .block_tokens = 4, .max_prompt_tokens = 4096};
    config.chunk_tokens = 8;
    config.step_tokens = 24;
    config.max_batch = 8;
    config.max_piece_bytes = 8 * 8;
    config.staging_bytes = config.landing_bytes = 4096 * 8;
    config.buffer_alignment = 8;
  }

  FakeWorker& AddWorker(const std::string& roles) {
    auto worker = std::make_unique<FakeWorker>();
    const uint64_t number = workers.size() + 1;
    worker->address = {Incarnation(number), "worker:" + std::to_string(number)};
    StageConfig own = config;
    own.profile.roles = RolesOf(roles);
    own.profile.incarnation = worker->address.incarnation;
    worker->stage = std::make_unique<StageScheduler>(own);
    worker->engine = std::make_unique<FakeEngine>(own);
    workers.push_back(std::move(worker));
    return *workers.back();
  }

  FakeRequest& AddRequest(uint64_t number, std::vector<Segment> segments, int32_t max_tokens) {
    FakeRequest& request = requests[number];
    request.id = {kGateway.incarnation, number};
    request.input = {.segments = std::move(segments),
                     .sampling = {.temperature = 1,
                                  .seed = number,
                                  .presence_penalty = number % 2 == 0 ? 0.5f : 0.0f},
                     .max_tokens = max_tokens};
    return request;
  }

  void Send(FakeWorker& worker, SchedulerToWorker message) {
    worker.stage->Handle(message, clock.Now());
    Collect(worker);
  }
  // Runs the oldest event, or what an engine may do first; false at rest.
  bool RunOne() {
    if (!events.empty()) {
      RunEvent(0);
      return true;
    }
    for (auto& worker : workers) {
      if (worker->alive && worker->engine->num_choices() > 0) {
        RunEngine(*worker, 0);
        return true;
      }
    }
    return false;
  }
  // Runs the oldest event of the channel that event `pick` is on.
  void RunEvent(size_t pick) {
    size_t first = 0;
    while (events[first].channel != events[pick].channel) ++first;
    Event event = std::move(events[first]);
    events.erase(events.begin() + static_cast<std::ptrdiff_t>(first));
    event.run();
  }
  void RunAll() {
    for (int i = 0; RunOne(); ++i) REQUIRE(i < 200000);
  }
  void RunEngine(FakeWorker& worker, size_t choice) { Tell(worker, worker.engine->Run(choice)); }
  void Tell(FakeWorker& worker, const FakeEngine::Event& event) {
    if (const auto* imported = std::get_if<BufferId>(&event)) {
      worker.stage->OnImported(*imported, clock.Now());
    } else if (const auto* exported = std::get_if<ExportResult>(&event)) {
      worker.stage->OnExported(*exported, clock.Now());
    } else if (const auto* result = std::get_if<StepResult>(&event)) {
      worker.stage->OnStepResult(*result, clock.Now());
    }
    Collect(worker);
  }
  // Runs one step of the language lane and tells its result; nothing else.
  void FinishStep(FakeWorker& worker) { Tell(worker, worker.engine->RunLanguageStep()); }
  // The worker's process is gone, and every other worker is told.
  void Kill(FakeWorker& worker) {
    worker.alive = false;
    for (auto& other : workers) {
      if (!other->alive) continue;
      other->stage->OnPeerLost(worker.address.incarnation, clock.Now());
      CompleteWith(*other, worker.address.incarnation);
      Collect(*other);
    }
  }
  // Moves time to the next deadline of any worker.
  void AdvanceToDeadline() {
    base::TimePoint next = base::kNever;
    for (auto& w : workers) {
      if (w->alive) next = std::min(next, w->stage->NextDeadline());
    }
    if (next == base::kNever) return;
    if (next > clock.Now()) clock.Set(next);
    for (auto& w : workers) {
      if (!w->alive) continue;
      w->stage->OnTime(clock.Now());
      Collect(*w);
    }
  }
  void Collect(FakeWorker& worker) {
    for (StageAction& action : worker.stage->TakeActions()) {
      std::visit([&](auto& a) { Do(worker, a); }, action);
    }
    CheckInvariants(worker);
  }

  template <typename Message>
  int Count(const FakeWorker& worker, TaskId task) const {
    int count = 0;
    for (const WorkerToScheduler& told : worker.told) {
      const auto* message = std::get_if<Message>(&told);
      if (message != nullptr && message->task == task) ++count;
    }
    return count;
  }
  template <typename Message>
  const Message* Last(const FakeWorker& worker) const {
    for (size_t i = worker.told.size(); i-- > 0;) {
      if (const auto* message = std::get_if<Message>(&worker.told[i])) return message;
    }
    return nullptr;
  }
  void CheckAtRest() {
    for (auto& worker : workers) {
      if (!worker->alive) continue;
      CHECK(worker->stage->Stats() == StageStats{});
      const StageState& state = StageSchedulerTestAccess::State(*worker->stage);
      INFO(worker->address.address << ": staged " << state.sender.staged_bytes() << ", landing "
                                   << state.receiver.landing_bytes() << ", transfers "
                                   << state.sender.num_transfers() << ", posted "
                                   << posted_sends_.size() << " " << posted_receives_.size());
    }
  }
  // Free + held is the total, and nothing free is named by a step that has not finished.
  void CheckInvariants(const FakeWorker& worker) {
    const StageState& state = StageSchedulerTestAccess::State(*worker.stage);
    worker.stage->CheckInvariants();
    REQUIRE(state.blocks.num_free() + state.blocks.num_held() == state.blocks.num_blocks());
    REQUIRE(state.slot_pages.num_free() + state.slot_pages.num_held() ==
            state.slot_pages.num_blocks());
    for (const std::deque<StepPlan>& lane : worker.engine->lanes) {
      for (const StepPlan& plan : lane) CheckPlan(state, plan);
    }
    for (const ImportSpec& spec : worker.engine->imports) {
      REQUIRE(state.receiver.arena().Holds(spec.buffer.id));
      CheckSpec(state, spec);
    }
    for (const ExportSpec& spec : worker.engine->exports) {
      REQUIRE(state.sender.arena().Holds(spec.buffer.id));
      CheckSpec(state, spec);
    }
  }

 private:
  static void CheckPlan(const StageState& state, const StepPlan& plan) {
    for (const PlanRow& row : plan.rows) {
      CheckHeld(state.blocks, row.pages);
      for (const EmbeddingRange& range : row.embeddings) CheckHeld(state.slot_pages, range.pages);
    }
    for (const EncodeRow& row : plan.encodes) CheckHeld(state.slot_pages, row.pages);
  }
  // From, to, sequence.
  using Operation = std::tuple<Incarnation, Incarnation, uint64_t>;

  void Post(const std::string& kind, const FakeWorker& from, std::function<void()> run) {
    events.push_back({kind + "/" + from.address.address, std::move(run)});
  }
  static void CheckHeld(const BlockPool& pool, const std::vector<BlockId>& pages) {
    for (BlockId page : pages) REQUIRE_FALSE(pool.IsFree(page));
  }
  template <typename Spec>
  static void CheckSpec(const StageState& state, const Spec& spec) {
    const bool kv = spec.range.kind == TransferKind::kKv;
    CheckHeld(kv ? state.blocks : state.slot_pages, spec.pages);
  }
  FakeWorker* ByIncarnation(Incarnation incarnation) {
    for (auto& worker : workers) {
      if (worker->address.incarnation == incarnation && worker->alive) return worker.get();
    }
    return nullptr;
  }
  FakeRequest* ById(const RequestId& id) {
    auto it = requests.find(id.number);
    return it == requests.end() ? nullptr : &it->second;
  }

  void Do(FakeWorker& worker, SendToScheduler& action) {
    worker.told.push_back(action.message);
    if (!on_told) return;
    Post("told", worker, [this, &worker, message = action.message] {
      if (worker.alive) on_told(worker, message);
    });
  }
  void Do(FakeWorker& worker, Pull& action) {
    Post("pull" + std::to_string(action.request.task.number), worker,
         [this, &worker, request = action.request] { AnswerPull(worker, request); });
  }
  void Do(FakeWorker& worker, DropInput& action) { worker.engine->patches.erase(action.task); }
  void Do(FakeWorker& worker, SendTransfer& action) {
    Post("transfer" + action.peer.address, worker,
         [this, from = worker.address.incarnation, to = action.peer.incarnation,
          message = action.message] {
           FakeWorker* receiver = ByIncarnation(to);
           if (receiver == nullptr || ByIncarnation(from) == nullptr) return;
           TransferMessage sent = message;
           auto* ready = std::get_if<Ready>(&sent);
           if (bad_first_token && ready != nullptr && ready->first_token) {
             ready->first_token->token.token = *bad_first_token;
           }
           receiver->stage->OnTransferMessage(from, sent, clock.Now());
           Collect(*receiver);
         });
  }
  void Do(FakeWorker& worker, PostSend& action) {
    const Operation operation{worker.address.incarnation, action.peer.incarnation, action.sequence};
    if (completed_.contains(operation)) {
      // Sent again after the receiver had it: dropped there.
      return Post("again", worker, [this, &worker, action] {
        if (!worker.alive) return;
        worker.stage->OnPieceSent(action.peer.incarnation, action.sequence, absl::OkStatus(),
                                  clock.Now());
        Collect(worker);
      });
    }
    posted_sends_[operation] = action.buffer;
    TryMove(worker.address.incarnation, action.peer.incarnation, action.sequence);
  }
  void Do(FakeWorker& worker, PostReceive& action) {
    posted_receives_[{action.peer.incarnation, worker.address.incarnation, action.sequence}] =
        action.buffer;
    TryMove(action.peer.incarnation, worker.address.incarnation, action.sequence);
  }
  void Do(FakeWorker& worker, SubmitStep& action) {
    REQUIRE(!action.plan.empty());
    worker.engine->Submit(std::move(action.plan));
  }
  void Do(FakeWorker& worker, SubmitImport& action) {
    worker.engine->imports.push_back(std::move(action.spec));
    REQUIRE(worker.engine->imports.size() <= 64);
  }
  void Do(FakeWorker& worker, SubmitExport& action) {
    worker.engine->exports.push_back(std::move(action.spec));
    REQUIRE(worker.engine->exports.size() <= 64);
  }
  void Do(FakeWorker& worker, SendTokens& action) {
    Post("tokens", worker, [this, &worker, batch = action.batch] { TakeTokens(worker, batch); });
    auto [it, first] = worker.next_index.try_emplace(action.batch.task, action.batch.start_index);
    if (!resent_allowed) REQUIRE(it->second == action.batch.start_index);
    it->second = action.batch.start_index + static_cast<int32_t>(action.batch.tokens.size());
  }
  void Do(FakeWorker&, AbortPeer&) {}

  void AnswerPull(FakeWorker& worker, const PullRequest& pull) {
    if (!worker.alive) return;
    FakeRequest* request = ById(pull.request);
    absl::StatusOr<PulledInput> answer = absl::NotFoundError("no such request");
    if (request != nullptr && !request->over()) {
      if (pull.stage != Stage::kEncode && pull.epoch < request->epoch) {
        answer = absl::FailedPreconditionError("old epoch");
      } else {
        answer = request->input;
        if (pull.stage != Stage::kEncode) {
          request->epoch = pull.epoch;
          answer->prefix_tokens = request->tokens;
        }
      }
    }
    const bool media = answer.ok() && pull.stage == Stage::kEncode;
    worker.stage->OnPulled(pull.task, std::move(answer), clock.Now());
    Collect(worker);
    if (!media) return;
    Post("media" + std::to_string(pull.task.number), worker,
         [this, &worker, pull, item = request->ItemAt(pull.item)] {
           if (!worker.alive) return;
           worker.engine->patches[pull.task] = item.content_key;
           worker.stage->OnMediaReady(pull.task, media_grid.value_or(item.grid), clock.Now());
           Collect(worker);
         });
  }

  void TakeTokens(FakeWorker& worker, const TokenBatch& batch) {
    FakeRequest* request = ById(batch.request);
    TokenReply reply{.request = batch.request, .task = batch.task, .epoch = batch.epoch};
    if (request == nullptr || batch.epoch < request->epoch || request->ended) {
      reply.kind = TokenReply::Kind::kGone;
    } else {
      Append(*request, batch, reply);
    }
    if (gateway_silent || !worker.alive) return;
    Post("replies", worker, [this, &worker, reply] {
      if (!worker.alive) return;
      worker.stage->OnTokenReply(reply, clock.Now());
      Collect(worker);
    });
  }
  static void Append(FakeRequest& request, const TokenBatch& batch, TokenReply& reply) {
    const auto have = static_cast<int32_t>(request.tokens.size());
    if (batch.start_index > have) {
      reply.kind = TokenReply::Kind::kResumeFrom;
    } else {
      for (size_t i = have - batch.start_index; i < batch.tokens.size(); ++i) {
        request.tokens.push_back(batch.tokens[i].token);
      }
      if (batch.finish != Finish::kNone) request.finish = batch.finish;
      if (!batch.error.ok()) request.error = batch.error;
    }
    reply.next_index = static_cast<int32_t>(request.tokens.size());
  }

  // Every posted operation with a lost peer ends with an error.
  void CompleteWith(FakeWorker& worker, Incarnation lost) {
    const Incarnation own = worker.address.incarnation;
    for (const auto& [operation, buffer] : std::exchange(posted_sends_, {})) {
      const auto& [from, to, sequence] = operation;
      if (from == own && to == lost) {
        worker.stage->OnPieceSent(lost, sequence, absl::UnavailableError("lost"), clock.Now());
      } else {
        posted_sends_[operation] = buffer;
      }
    }
    for (const auto& [operation, buffer] : std::exchange(posted_receives_, {})) {
      const auto& [from, to, sequence] = operation;
      if (to == own && from == lost) {
        worker.stage->OnPieceReceived(lost, sequence, absl::UnavailableError("lost"), 0,
                                      clock.Now());
      } else {
        posted_receives_[operation] = buffer;
      }
    }
  }

  // Both ends of a piece are posted: its bytes move.
  void TryMove(Incarnation from, Incarnation to, uint64_t sequence) {
    const Operation operation{from, to, sequence};
    if (!posted_sends_.contains(operation) || !posted_receives_.contains(operation)) return;
    Post("bytes" + std::to_string(to.value()), *ByIncarnation(from),
         [this, from, to, sequence, operation] {
           FakeWorker* sender = ByIncarnation(from);
           FakeWorker* receiver = ByIncarnation(to);
           if (sender == nullptr || receiver == nullptr) return;
           if (!posted_sends_.contains(operation) || !posted_receives_.contains(operation)) return;
           const auto landed =
               FakeEngine::Words(receiver->engine->landing, posted_receives_[operation]);
           const auto staged = FakeEngine::Words(sender->engine->staging, posted_sends_[operation]);
           REQUIRE(landed.size() == staged.size());
           std::copy(staged.begin(), staged.end(), landed.begin());
           posted_sends_.erase(operation);
           posted_receives_.erase(operation);
           completed_.insert(operation);
           if (std::exchange(corrupt_next, false)) landed[0] ^= 1;
           ++pieces_moved;
           const uint64_t checksum = FakeEngine::Checksum(landed);
           sender->stage->OnPieceSent(to, sequence, absl::OkStatus(), clock.Now());
           receiver->stage->OnPieceReceived(from, sequence, absl::OkStatus(), checksum,
                                            clock.Now());
           Collect(*sender);
           Collect(*receiver);
         });
  }

  std::set<Operation> completed_;
  std::map<Operation, PieceBuffer> posted_sends_;
  std::map<Operation, PieceBuffer> posted_receives_;
};

inline Segment Text(std::vector<int32_t> ids) { return TokenRun{std::move(ids)}; }
inline Segment LongText(int32_t count) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < count; ++i) ids.push_back((i * 7 + 3) % kVocabulary);
  return TokenRun{std::move(ids)};
}
// A picture of 2 * side by 2 * side patches: side * side tokens.
inline Segment Picture(uint64_t content_key, int32_t side) {
  return Item{
      .grid = {1, 2 * side, 2 * side}, .content_key = content_key, .max_tokens = side * side};
}

}  // namespace testing
}  // namespace triptych::scheduler
