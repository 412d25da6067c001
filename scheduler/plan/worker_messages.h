#pragma once

// Control stream between a worker and the scheduler, as plain data. The envelope (scheduler id,
// both incarnations, sequence) is added by services/convert and checked before a machine sees the
// message; docs/life_of_a_request.md tells the story that these messages make.

#include <algorithm>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "scheduler/plan/ids.h"
#include "scheduler/plan/rank.h"
#include "scheduler/plan/step_plan.h"

namespace triptych::scheduler {

enum class Stage : uint8_t { kEncode = 0, kPrefill = 1, kDecode = 2 };
inline constexpr int kNumStages = 3;
const char* ToString(Stage stage);

// The subset of stages that a worker runs.
struct Roles {
  uint8_t bits = 0;
  bool has(Stage s) const { return (bits >> static_cast<int>(s)) & 1; }
  void add(Stage s) { bits |= static_cast<uint8_t>(1 << static_cast<int>(s)); }
  bool complete() const { return bits == (1 << kNumStages) - 1; }
  friend bool operator==(const Roles&, const Roles&) = default;
};
// "encode+prefill"; and back, false for anything else.
std::string ToString(Roles roles);
bool ParseRoles(const std::string& text, Roles* roles);

// Where a peer is reached. Addresses come from hellos only, never from a client.
struct PeerAddress {
  Incarnation incarnation;
  std::string address;  // host:port
  friend bool operator==(const PeerAddress&, const PeerAddress&) = default;
};

// ---- scheduler -> worker ------------------------------------------------------------------------

// Encode one item and deliver it into the slots that `consumer` reserved for it.
struct AssignEncode {
  TaskId task;
  RequestId request;
  PeerAddress gateway;
  int32_t item = 0;
  int32_t num_tokens = 0;  // that the item has at most
  int64_t patches = 0;
  TaskId consumer;              // the prefill task
  PeerAddress consumer_worker;  // may be this worker: then the hand-over is in memory
  int32_t priority = 0;         // with `age` and the request its rank, see plan/rank.h
  uint64_t age = 0;
  uint64_t pass = 0;  // to show to the gateway, see plan/task_pass.h
  Rank rank() const { return {priority, age, request}; }
};

// One entry of a consumer's table input -> producer.
struct InputProducer {
  int32_t item = 0;
  TaskId producer;
};

// Reserve KV for the whole prompt, then embedding slots for all items (that order), pull, prefill,
// sample and stream the first token.
struct AssignPrefill {
  TaskId task;
  RequestId request;
  PeerAddress gateway;
  OutputEpoch epoch;
  int32_t prompt_tokens = 0;          // with the frozen prefix of tokens already sent
  std::vector<int32_t> item_tokens;   // by item
  std::vector<InputProducer> inputs;  // may be filled later by Rebind
  int32_t priority = 0;               // with `age` and the request its rank, see plan/rank.h
  uint64_t age = 0;
  uint64_t pass = 0;  // to show to the gateway, see plan/task_pass.h
  Rank rank() const { return {priority, age, request}; }
};

// Take over after prefill: reserve KV for the prompt, receive it (or keep it, when the producer is
// this worker), go on from the first token.
struct AssignDecode {
  TaskId task;
  RequestId request;
  PeerAddress gateway;
  OutputEpoch epoch;
  int32_t prompt_tokens = 0;  // what the KV of the producer covers
  TaskId producer;            // the prefill task
  PeerAddress producer_worker;
  int32_t priority = 0;  // with `age` and the request its rank, see plan/rank.h
  uint64_t age = 0;
  uint64_t pass = 0;  // to show to the gateway, see plan/task_pass.h
  Rank rank() const { return {priority, age, request}; }
};

// To the prefill worker: push the KV of `producer` to that decode task. Replaces an earlier one.
struct BindConsumer {
  TaskId producer;
  TaskId consumer;
  PeerAddress consumer_worker;
};

// To a consumer: the item's embedding will come from another producer. Pieces of the old one are
// dropped.
struct Rebind {
  TaskId consumer;
  InputProducer input;
};

// The task is over, whatever its state: free everything it holds. Idempotent.
struct ReleaseTask {
  TaskId task;
};

// Accept no new task; finish what is there.
struct DrainWorker {};

using SchedulerToWorker = std::variant<AssignEncode, AssignPrefill, AssignDecode, BindConsumer,
                                       Rebind, ReleaseTask, DrainWorker>;

// ---- worker -> scheduler ------------------------------------------------------------------------

// What a worker can take: from its device and configuration, constant for an incarnation.
struct WorkerProfile {
  std::string name;
  Incarnation incarnation;
  Roles roles;
  std::string fingerprint;  // workers are paired only within one
  std::string address;      // of its transfer service
  std::string admin;        // host:port of its metrics
  int64_t pid = 0;
  int32_t kv_block_tokens = 0;
  int32_t kv_blocks = 0;
  int32_t embedding_slots = 0;  // whole pages
  int32_t embedding_page_slots = 64;
  int32_t max_sequences = 0;  // live sequences (prefill and decode tasks)
  int32_t max_encodes = 0;    // encode tasks accepted at once
  int64_t kv_bytes_per_token = 0;

  // Embedding slots that an item of `tokens` takes: it has pages of its own.
  int32_t SlotsFor(int32_t tokens) const {
    const int64_t pages = (int64_t{tokens} + embedding_page_slots - 1) / embedding_page_slots;
    return static_cast<int32_t>(std::min<int64_t>(pages * embedding_page_slots, INT32_MAX));
  }
};

enum class TaskState : uint8_t {
  kAccepted,   // reserved, input not pulled yet or waiting
  kRunning,    // encode runs; prefill runs or waits for embeddings; decode has its KV
  kDelivered,  // encode: acknowledged by the consumer. prefill: prompt done, KV kept. decode: -
};

// Whether an answer ends with a token, and why.
enum class Finish : uint8_t { kNone, kStop, kLength };

// One line of a worker's inventory.
struct TaskReport {
  TaskId task;
  RequestId request;
  Stage stage = Stage::kEncode;
  TaskState state = TaskState::kAccepted;
  OutputEpoch epoch;
  int32_t item = -1;  // encode
  TaskId consumer;    // encode: prefill task; prefill: decode task or zero
  TaskId producer;    // decode: its prefill task
  // Prefill: tokens that its KV was assigned to cover (AssignPrefill.prompt_tokens); what a decode
  // worker receives of it.
  int32_t prompt_tokens = 0;
  Finish finish = Finish::kNone;      // prefill: of its first token, once delivered
  std::vector<int32_t> items_landed;  // prefill: items whose embeddings are checked in
  std::vector<InputProducer> inputs;  // prefill: its table
};

// Load by stage, in that stage's cost unit: patches, prompt tokens, live sequences.
struct StageLoad {
  int64_t queued_cost = 0;
  int64_t running_cost = 0;
  // Learned: a step takes fixed_seconds + seconds_per_unit * units. 0 while unknown.
  double fixed_seconds = 0;
  double seconds_per_unit = 0;
};

struct WorkerReport {
  int32_t free_kv_blocks = 0;
  int32_t free_embedding_slots = 0;
  int32_t free_sequences = 0;
  StageLoad load[kNumStages];
  double prediction_error = 0;  // of the time of a step, relative, of late
  bool draining = false;        // takes no new task
  // Sequence number of the last scheduler message that is reflected here.
  uint64_t handled_sequence = 0;
  // Whole inventory, in every 10th report (each second) and after a hello; otherwise has_inventory
  // is false and `tasks` empty.
  bool has_inventory = false;
  std::vector<TaskReport> tasks;
  // With an inventory: whom it exchanges with or still waits for, also of tasks that are over. One
  // that the scheduler does not know is lost, and this worker has not been told.
  std::vector<Incarnation> peers;
};

struct WorkerHello {
  WorkerProfile profile;
  SchedulerId highest_seen;
  bool draining = false;
  WorkerReport report;  // with inventory
  // Incarnations that an earlier scheduler declared lost and that this worker hears no more: they
  // must stay lost under the next one too.
  std::vector<Incarnation> lost_peers;
};

// Reserved: what it holds is its own until released.
struct TaskAccepted {
  TaskId task;
};

// No room, now: back to the front of the queue. `free` is what the worker has.
struct TaskRefused {
  TaskId task;
  int32_t free_kv_blocks = 0;
  int32_t free_embedding_slots = 0;
  int32_t free_sequences = 0;
};

// Encode: the consumer has checked the embedding in. Prefill: see first_token. Decode: finished.
struct TaskDelivered {
  TaskId task;
};

// Prefill: an item's embedding has landed here (also counts as delivery of its producer).
struct ItemLanded {
  TaskId task;
  InputProducer input;
  int32_t num_tokens = 0;  // that it has; at most those that were assigned
};

// Prefill has sampled its token. With finish != kNone no decode is needed.
struct FirstTokenSampled {
  TaskId task;
  Finish finish = Finish::kNone;
};

// Decode: a token of its own was accepted by the gateway; the prefill task may be released.
struct DecodeStarted {
  TaskId task;
};

// The task cannot go on here. The code tells the scheduler's move: UNAVAILABLE or ABORTED (peer
// lost, preempted): assign again; NOT_FOUND: the gateway does not know the request or has fenced
// the task off: assign again under the next epoch, until the gateway says that the request has
// ended; anything else: the request ends with this status.
struct TaskFailed {
  TaskId task;
  absl::Status status;
  // Prefill, decode: answer tokens that its gateway has at least; 0: it never heard. The next
  // prefill covers them.
  int32_t tokens_sent = 0;
  // It had to give its memory to one of a higher rank: nobody's failure.
  bool preempted = false;
  // UNAVAILABLE: whom this worker could not reach, if that was the cause; zero: none.
  Incarnation peer;
};

// Prefill: its KV cannot be brought to `peer`, where `consumer` runs. It is kept, for another.
struct ConsumerUnreachable {
  TaskId task;
  TaskId consumer;
  Incarnation peer;
};

using WorkerToScheduler =
    std::variant<WorkerReport, TaskAccepted, TaskRefused, TaskDelivered, ItemLanded,
                 FirstTokenSampled, DecodeStarted, TaskFailed, ConsumerUnreachable>;

}  // namespace triptych::scheduler
