#include "services/convert/worker_messages.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "scheduler/plan/limits.h"
#include "services/convert/ids.h"

namespace triptych::services {
namespace {

// A worker's inventory is bounded by what it can hold; these only guard against nonsense.
constexpr int kMaxTasks = 1 << 16;
constexpr int kMaxItems = 4096;
constexpr int kMaxLostPeers = 4096;

constexpr int32_t kMaxAmount = 1 << 30;
constexpr int64_t kMaxCost = int64_t{1} << 50;

bool IsAmount(int32_t value) { return value >= -kMaxAmount && value <= kMaxAmount; }
bool IsCost(int64_t value) { return value >= 0 && value <= kMaxCost; }

absl::Status OutOfRange() { return absl::InvalidArgumentError("value out of range"); }

void Write(const scheduler::InputProducer& input, v1::InputProducer* out) {
  out->set_item(input.item);
  *out->mutable_producer() = ToProto(input.producer);
}

scheduler::InputProducer Read(const v1::InputProducer& input) {
  return {input.item(), FromProto(input.producer())};
}

// ---- scheduler to worker ----

void Write(const scheduler::AssignEncode& m, v1::SchedulerToWorker* out) {
  v1::AssignEncode* p = out->mutable_assign_encode();
  *p->mutable_task() = ToProto(m.task);
  *p->mutable_request() = ToProto(m.request);
  *p->mutable_gateway() = ToProto(m.gateway);
  p->set_item(m.item);
  p->set_num_tokens(m.num_tokens);
  p->set_patches(m.patches);
  *p->mutable_consumer() = ToProto(m.consumer);
  *p->mutable_consumer_worker() = ToProto(m.consumer_worker);
  p->set_priority(m.priority);
  p->set_age(m.age);
  p->set_pass(m.pass);
}

void Write(const scheduler::AssignPrefill& m, v1::SchedulerToWorker* out) {
  v1::AssignPrefill* p = out->mutable_assign_prefill();
  *p->mutable_task() = ToProto(m.task);
  *p->mutable_request() = ToProto(m.request);
  *p->mutable_gateway() = ToProto(m.gateway);
  p->set_epoch(m.epoch.value());
  p->set_prompt_tokens(m.prompt_tokens);
  for (int32_t tokens : m.item_tokens) p->add_item_tokens(tokens);
  for (const auto& input : m.inputs) Write(input, p->add_inputs());
  p->set_priority(m.priority);
  p->set_age(m.age);
  p->set_pass(m.pass);
}

void Write(const scheduler::AssignDecode& m, v1::SchedulerToWorker* out) {
  v1::AssignDecode* p = out->mutable_assign_decode();
  *p->mutable_task() = ToProto(m.task);
  *p->mutable_request() = ToProto(m.request);
  *p->mutable_gateway() = ToProto(m.gateway);
  p->set_epoch(m.epoch.value());
  p->set_prompt_tokens(m.prompt_tokens);
  *p->mutable_producer() = ToProto(m.producer);
  *p->mutable_producer_worker() = ToProto(m.producer_worker);
  p->set_priority(m.priority);
  p->set_age(m.age);
  p->set_pass(m.pass);
}

void Write(const scheduler::BindConsumer& m, v1::SchedulerToWorker* out) {
  v1::BindConsumer* p = out->mutable_bind_consumer();
  *p->mutable_producer() = ToProto(m.producer);
  *p->mutable_consumer() = ToProto(m.consumer);
  *p->mutable_consumer_worker() = ToProto(m.consumer_worker);
}

void Write(const scheduler::Rebind& m, v1::SchedulerToWorker* out) {
  *out->mutable_rebind()->mutable_consumer() = ToProto(m.consumer);
  Write(m.input, out->mutable_rebind()->mutable_input());
}

void Write(const scheduler::ReleaseTask& m, v1::SchedulerToWorker* out) {
  *out->mutable_release_task()->mutable_task() = ToProto(m.task);
}

void Write(const scheduler::DrainWorker&, v1::SchedulerToWorker* out) { out->mutable_drain(); }

scheduler::AssignEncode Read(const v1::AssignEncode& p) {
  scheduler::AssignEncode m;
  m.task = FromProto(p.task());
  m.request = FromProto(p.request());
  m.gateway = FromProto(p.gateway());
  m.item = p.item();
  m.num_tokens = p.num_tokens();
  m.patches = p.patches();
  m.consumer = FromProto(p.consumer());
  m.consumer_worker = FromProto(p.consumer_worker());
  m.priority = p.priority();
  m.age = p.age();
  m.pass = p.pass();
  return m;
}

absl::StatusOr<scheduler::SchedulerToWorker> Read(const v1::AssignPrefill& p) {
  if (p.item_tokens_size() > kMaxItems || p.inputs_size() > kMaxItems || p.prompt_tokens() < 0) {
    return OutOfRange();
  }
  scheduler::AssignPrefill m;
  m.task = FromProto(p.task());
  m.request = FromProto(p.request());
  m.gateway = FromProto(p.gateway());
  m.epoch = scheduler::OutputEpoch(p.epoch());
  m.prompt_tokens = p.prompt_tokens();
  for (int32_t tokens : p.item_tokens()) {
    if (tokens <= 0) return OutOfRange();
    m.item_tokens.push_back(tokens);
  }
  for (const auto& input : p.inputs()) m.inputs.push_back(Read(input));
  m.priority = p.priority();
  m.age = p.age();
  m.pass = p.pass();
  return m;
}

scheduler::AssignDecode Read(const v1::AssignDecode& p) {
  scheduler::AssignDecode m;
  m.task = FromProto(p.task());
  m.request = FromProto(p.request());
  m.gateway = FromProto(p.gateway());
  m.epoch = scheduler::OutputEpoch(p.epoch());
  m.prompt_tokens = p.prompt_tokens();
  m.producer = FromProto(p.producer());
  m.producer_worker = FromProto(p.producer_worker());
  m.priority = p.priority();
  m.age = p.age();
  m.pass = p.pass();
  return m;
}

scheduler::BindConsumer Read(const v1::BindConsumer& p) {
  return {FromProto(p.producer()), FromProto(p.consumer()), FromProto(p.consumer_worker())};
}

// ---- worker to scheduler ----

void Write(const scheduler::TaskReport& m, v1::TaskReport* p) {
  *p->mutable_task() = ToProto(m.task);
  *p->mutable_request() = ToProto(m.request);
  p->set_stage(static_cast<v1::Stage>(m.stage));
  p->set_state(static_cast<v1::TaskState>(m.state));
  p->set_epoch(m.epoch.value());
  p->set_item(m.item);
  *p->mutable_consumer() = ToProto(m.consumer);
  *p->mutable_producer() = ToProto(m.producer);
  for (int32_t item : m.items_landed) p->add_items_landed(item);
  for (const auto& input : m.inputs) Write(input, p->add_inputs());
  p->set_prompt_tokens(m.prompt_tokens);
  p->set_finish(static_cast<v1::Finish>(m.finish));
}

absl::StatusOr<scheduler::TaskReport> Read(const v1::TaskReport& p) {
  scheduler::TaskReport m;
  ASSIGN_OR_RETURN(m.stage, StageFromProto(p.stage()));
  ASSIGN_OR_RETURN(m.finish, FinishFromProto(p.finish()));
  if (p.state() < 0 || p.state() > v1::TASK_STATE_DELIVERED || p.items_landed_size() > kMaxItems ||
      p.inputs_size() > kMaxItems || p.epoch() > scheduler::kHighestEpoch ||
      p.prompt_tokens() < 0 || p.prompt_tokens() > kMaxTokens) {
    return OutOfRange();
  }
  m.task = FromProto(p.task());
  m.request = FromProto(p.request());
  m.state = static_cast<scheduler::TaskState>(p.state());
  m.epoch = scheduler::OutputEpoch(p.epoch());
  m.item = p.item();
  m.consumer = FromProto(p.consumer());
  m.producer = FromProto(p.producer());
  m.prompt_tokens = p.prompt_tokens();
  m.items_landed.assign(p.items_landed().begin(), p.items_landed().end());
  for (const auto& input : p.inputs()) m.inputs.push_back(Read(input));
  return m;
}

void Write(const scheduler::WorkerReport& m, v1::WorkerReport* p) {
  p->set_free_kv_blocks(m.free_kv_blocks);
  p->set_free_embedding_slots(m.free_embedding_slots);
  p->set_free_sequences(m.free_sequences);
  for (const scheduler::StageLoad& load : m.load) {
    v1::StageLoad* entry = p->add_load();
    entry->set_queued_cost(load.queued_cost);
    entry->set_running_cost(load.running_cost);
    entry->set_fixed_seconds(load.fixed_seconds);
    entry->set_seconds_per_unit(load.seconds_per_unit);
  }
  p->set_prediction_error(m.prediction_error);
  p->set_draining(m.draining);
  p->set_handled_sequence(m.handled_sequence);
  p->set_has_inventory(m.has_inventory);
  for (const auto& task : m.tasks) Write(task, p->add_tasks());
  const size_t peers = std::min<size_t>(m.peers.size(), kMaxLostPeers);
  for (size_t i = 0; i < peers; ++i) p->add_peers(m.peers[i].value());
}

void Write(const scheduler::WorkerReport& m, v1::WorkerToScheduler* out) {
  Write(m, out->mutable_report());
}

bool IsDuration(double seconds) { return seconds >= 0 && seconds < 1e9; }

absl::StatusOr<scheduler::WorkerReport> Read(const v1::WorkerReport& p) {
  if (p.tasks_size() > kMaxTasks || p.load_size() > scheduler::kNumStages ||
      p.peers_size() > kMaxLostPeers || !IsAmount(p.free_kv_blocks()) ||
      !IsAmount(p.free_embedding_slots()) || !IsAmount(p.free_sequences())) {
    return OutOfRange();
  }
  scheduler::WorkerReport m;
  m.free_kv_blocks = p.free_kv_blocks();
  m.free_embedding_slots = p.free_embedding_slots();
  m.free_sequences = p.free_sequences();
  for (int i = 0; i < p.load_size(); ++i) {
    // Placement sorts by these: a NaN would have no order.
    const v1::StageLoad& load = p.load(i);
    if (!IsCost(load.queued_cost()) || !IsCost(load.running_cost()) ||
        !IsDuration(load.fixed_seconds()) || !IsDuration(load.seconds_per_unit())) {
      return OutOfRange();
    }
    m.load[i] = {load.queued_cost(), load.running_cost(), load.fixed_seconds(),
                 load.seconds_per_unit()};
  }
  if (!IsDuration(p.prediction_error())) return OutOfRange();
  m.prediction_error = p.prediction_error();
  m.draining = p.draining();
  m.handled_sequence = p.handled_sequence();
  m.has_inventory = p.has_inventory();
  for (const auto& task : p.tasks()) {
    ASSIGN_OR_RETURN(scheduler::TaskReport report, Read(task));
    m.tasks.push_back(std::move(report));
  }
  for (const uint64_t peer : p.peers()) m.peers.emplace_back(peer);
  return m;
}

void Write(const scheduler::TaskAccepted& m, v1::WorkerToScheduler* out) {
  *out->mutable_accepted()->mutable_task() = ToProto(m.task);
}

void Write(const scheduler::TaskRefused& m, v1::WorkerToScheduler* out) {
  v1::TaskRefused* p = out->mutable_refused();
  *p->mutable_task() = ToProto(m.task);
  p->set_free_kv_blocks(m.free_kv_blocks);
  p->set_free_embedding_slots(m.free_embedding_slots);
  p->set_free_sequences(m.free_sequences);
}

void Write(const scheduler::TaskDelivered& m, v1::WorkerToScheduler* out) {
  *out->mutable_delivered()->mutable_task() = ToProto(m.task);
}

void Write(const scheduler::ItemLanded& m, v1::WorkerToScheduler* out) {
  *out->mutable_item_landed()->mutable_task() = ToProto(m.task);
  Write(m.input, out->mutable_item_landed()->mutable_input());
  out->mutable_item_landed()->set_num_tokens(m.num_tokens);
}

void Write(const scheduler::FirstTokenSampled& m, v1::WorkerToScheduler* out) {
  *out->mutable_first_token()->mutable_task() = ToProto(m.task);
  out->mutable_first_token()->set_finish(static_cast<v1::Finish>(m.finish));
}

void Write(const scheduler::DecodeStarted& m, v1::WorkerToScheduler* out) {
  *out->mutable_decode_started()->mutable_task() = ToProto(m.task);
}

void Write(const scheduler::TaskFailed& m, v1::WorkerToScheduler* out) {
  *out->mutable_failed()->mutable_task() = ToProto(m.task);
  *out->mutable_failed()->mutable_status() = ToProto(m.status);
  out->mutable_failed()->set_tokens_sent(m.tokens_sent);
  out->mutable_failed()->set_preempted(m.preempted);
  out->mutable_failed()->set_peer(m.peer.value());
}

void Write(const scheduler::ConsumerUnreachable& m, v1::WorkerToScheduler* out) {
  v1::ConsumerUnreachable* p = out->mutable_consumer_unreachable();
  *p->mutable_task() = ToProto(m.task);
  *p->mutable_consumer() = ToProto(m.consumer);
  p->set_peer(m.peer.value());
}

absl::StatusOr<scheduler::WorkerToScheduler> Read(const v1::TaskRefused& p) {
  if (!IsAmount(p.free_kv_blocks()) || !IsAmount(p.free_embedding_slots()) ||
      !IsAmount(p.free_sequences())) {
    return OutOfRange();
  }
  return scheduler::TaskRefused{FromProto(p.task()), p.free_kv_blocks(), p.free_embedding_slots(),
                                p.free_sequences()};
}

}  // namespace

v1::SchedulerToWorker ToProto(const scheduler::SchedulerToWorker& message) {
  v1::SchedulerToWorker out;
  std::visit([&](const auto& m) { Write(m, &out); }, message);
  return out;
}

v1::WorkerToScheduler ToProto(const scheduler::WorkerToScheduler& message) {
  v1::WorkerToScheduler out;
  std::visit([&](const auto& m) { Write(m, &out); }, message);
  return out;
}

v1::WorkerHello ToProto(const scheduler::WorkerHello& hello) {
  const scheduler::WorkerProfile& profile = hello.profile;
  v1::WorkerHello out;
  v1::WorkerProfile* p = out.mutable_profile();
  p->set_name(profile.name);
  p->set_roles(profile.roles.bits);
  p->set_fingerprint(profile.fingerprint);
  p->set_address(profile.address);
  p->set_admin(profile.admin);
  p->set_pid(profile.pid);
  p->set_kv_block_tokens(profile.kv_block_tokens);
  p->set_kv_blocks(profile.kv_blocks);
  p->set_embedding_slots(profile.embedding_slots);
  p->set_embedding_page_slots(profile.embedding_page_slots);
  p->set_max_sequences(profile.max_sequences);
  p->set_max_encodes(profile.max_encodes);
  p->set_kv_bytes_per_token(profile.kv_bytes_per_token);
  *out.mutable_highest_seen() = ToProto(hello.highest_seen);
  for (scheduler::Incarnation peer : hello.lost_peers) out.add_lost_peers(peer.value());
  out.set_draining(hello.draining);
  Write(hello.report, out.mutable_report());
  return out;
}

absl::StatusOr<scheduler::SchedulerToWorker> FromProto(const v1::SchedulerToWorker& message) {
  using Case = v1::SchedulerToWorker::MessageCase;
  switch (message.message_case()) {
    case Case::kAssignEncode:
      return Read(message.assign_encode());
    case Case::kAssignPrefill:
      return Read(message.assign_prefill());
    case Case::kAssignDecode:
      return Read(message.assign_decode());
    case Case::kBindConsumer:
      return Read(message.bind_consumer());
    case Case::kRebind:
      return scheduler::Rebind{FromProto(message.rebind().consumer()),
                               Read(message.rebind().input())};
    case Case::kReleaseTask:
      return scheduler::ReleaseTask{FromProto(message.release_task().task())};
    case Case::kDrain:
      return scheduler::DrainWorker{};
    default:
      return absl::InvalidArgumentError("unknown message to a worker");
  }
}

absl::StatusOr<scheduler::WorkerToScheduler> FromProto(const v1::WorkerToScheduler& message) {
  using Case = v1::WorkerToScheduler::MessageCase;
  switch (message.message_case()) {
    case Case::kReport: {
      ASSIGN_OR_RETURN(scheduler::WorkerReport report, Read(message.report()));
      return report;
    }
    case Case::kAccepted:
      return scheduler::TaskAccepted{FromProto(message.accepted().task())};
    case Case::kRefused:
      return Read(message.refused());
    case Case::kDelivered:
      return scheduler::TaskDelivered{FromProto(message.delivered().task())};
    case Case::kItemLanded:
      if (message.item_landed().num_tokens() < 0) return OutOfRange();
      return scheduler::ItemLanded{FromProto(message.item_landed().task()),
                                   Read(message.item_landed().input()),
                                   message.item_landed().num_tokens()};
    case Case::kFirstToken: {
      ASSIGN_OR_RETURN(const scheduler::Finish finish,
                       FinishFromProto(message.first_token().finish()));
      return scheduler::FirstTokenSampled{FromProto(message.first_token().task()), finish};
    }
    case Case::kDecodeStarted:
      return scheduler::DecodeStarted{FromProto(message.decode_started().task())};
    case Case::kFailed:
      if (message.failed().tokens_sent() < 0 || message.failed().tokens_sent() > kMaxTokens) {
        return OutOfRange();
      }
      return scheduler::TaskFailed{FromProto(message.failed().task()),
                                   FromProto(message.failed().status()),
                                   message.failed().tokens_sent(), message.failed().preempted(),
                                   scheduler::Incarnation(message.failed().peer())};
    case Case::kConsumerUnreachable:
      return scheduler::ConsumerUnreachable{
          FromProto(message.consumer_unreachable().task()),
          FromProto(message.consumer_unreachable().consumer()),
          scheduler::Incarnation(message.consumer_unreachable().peer())};
    default:
      return absl::InvalidArgumentError("unknown message from a worker");
  }
}

absl::StatusOr<scheduler::WorkerHello> FromProto(const v1::WorkerHello& hello) {
  const v1::WorkerProfile& p = hello.profile();
  const auto is_size = [](int64_t value) { return value >= 0 && value <= kMaxAmount; };
  const auto is_page = [](int32_t value) { return value > 0 && value <= 1 << 16; };
  if (p.roles() == 0 || p.roles() >= (1u << scheduler::kNumStages) || !is_size(p.kv_blocks()) ||
      !is_size(p.embedding_slots()) || !is_page(p.embedding_page_slots()) ||
      !is_page(p.kv_block_tokens()) || !is_size(p.max_sequences()) || !is_size(p.max_encodes()) ||
      !IsCost(p.kv_bytes_per_token()) || hello.lost_peers_size() > kMaxLostPeers ||
      hello.highest_seen().term() > scheduler::kHighestTerm) {
    return OutOfRange();
  }
  if (p.name().size() > kMaxNameBytes || p.address().size() > kMaxNameBytes ||
      p.admin().size() > kMaxNameBytes || p.fingerprint().size() > kMaxFingerprintBytes) {
    return OutOfRange();
  }
  scheduler::WorkerHello out;
  for (uint64_t peer : hello.lost_peers()) out.lost_peers.emplace_back(peer);
  out.profile.name = p.name();
  out.profile.roles.bits = static_cast<uint8_t>(p.roles());
  out.profile.fingerprint = p.fingerprint();
  out.profile.address = p.address();
  out.profile.admin = p.admin();
  out.profile.pid = p.pid();
  out.profile.kv_block_tokens = p.kv_block_tokens();
  out.profile.kv_blocks = p.kv_blocks();
  out.profile.embedding_slots = p.embedding_slots();
  out.profile.embedding_page_slots = p.embedding_page_slots();
  out.profile.max_sequences = p.max_sequences();
  out.profile.max_encodes = p.max_encodes();
  out.profile.kv_bytes_per_token = p.kv_bytes_per_token();
  out.highest_seen = FromProto(hello.highest_seen());
  out.draining = hello.draining();
  ASSIGN_OR_RETURN(out.report, Read(hello.report()));
  return out;
}

}  // namespace triptych::services
