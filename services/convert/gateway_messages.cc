#include "services/convert/gateway_messages.h"

#include <chrono>
#include <utility>

#include "base/status.h"
#include "scheduler/plan/limits.h"
#include "services/convert/ids.h"

namespace triptych::services {
namespace {

// Guards against nonsense; the real limits are the gateway's.
constexpr int kMaxItems = 4096;
constexpr int kMaxLive = 1 << 16;
constexpr int kMaxSegments = 1 << 16;
constexpr int32_t kMaxPriority = 1 << 20;
constexpr base::Duration kMaxTimeLeft = std::chrono::hours(24 * 366);

absl::Status OutOfRange() { return absl::InvalidArgumentError("value out of range"); }

void Write(const scheduler::SubmitRequest& m, v1::SubmitRequest* p) {
  *p->mutable_request() = ToProto(m.request);
  p->set_fingerprint(m.fingerprint);
  p->set_tenant(m.tenant);
  p->set_priority(m.priority);
  p->set_prompt_tokens(m.prompt_tokens);
  p->set_max_tokens(m.max_tokens);
  p->set_open_ended(m.open_ended);
  for (const scheduler::ItemCost& item : m.items) {
    v1::ItemCost* entry = p->add_items();
    entry->set_media_bytes(item.media_bytes);
    entry->set_pixels(item.pixels);
    entry->set_patches(item.patches);
    entry->set_num_tokens(item.num_tokens);
    entry->set_content_key(item.content_key);
  }
  p->set_time_left_ns(m.time_left.count());
  p->set_epoch(m.epoch.value());
  p->set_tokens_sent(m.tokens_sent);
  p->set_age(m.age);
}

absl::StatusOr<scheduler::SubmitRequest> Read(const v1::SubmitRequest& p) {
  const auto is_count = [](int32_t value) { return value > 0 && value <= kMaxTokens; };
  if (p.items_size() > kMaxItems || !is_count(p.prompt_tokens()) || !is_count(p.max_tokens()) ||
      p.tokens_sent() < 0 || p.tokens_sent() > kMaxTokens || p.epoch() > scheduler::kHighestEpoch ||
      p.time_left_ns() < 0 || p.time_left_ns() > kMaxTimeLeft.count() ||
      p.fingerprint().size() > kMaxFingerprintBytes || p.tenant().size() > kMaxNameBytes ||
      p.priority() < -kMaxPriority || p.priority() > kMaxPriority) {
    return OutOfRange();
  }
  scheduler::SubmitRequest m;
  m.request = FromProto(p.request());
  m.fingerprint = p.fingerprint();
  m.tenant = p.tenant();
  m.priority = p.priority();
  m.prompt_tokens = p.prompt_tokens();
  m.max_tokens = p.max_tokens();
  m.open_ended = p.open_ended();
  for (const v1::ItemCost& item : p.items()) {
    if (item.num_tokens() <= 0 || item.patches() <= 0 || item.pixels() < 0 ||
        item.media_bytes() < 0) {
      return OutOfRange();
    }
    m.items.push_back(
        {item.media_bytes(), item.pixels(), item.patches(), item.num_tokens(), item.content_key()});
  }
  m.time_left = base::Duration(p.time_left_ns());
  m.epoch = scheduler::OutputEpoch(p.epoch());
  m.tokens_sent = p.tokens_sent();
  m.age = p.age();
  return m;
}

void Write(const scheduler::GatewayReport& m, v1::GatewayToScheduler* out) {
  out->mutable_report()->set_live_requests(m.live_requests);
}
void Write(const scheduler::SubmitRequest& m, v1::GatewayToScheduler* out) {
  Write(m, out->mutable_submit());
}
void Write(const scheduler::RequestEnded& m, v1::GatewayToScheduler* out) {
  *out->mutable_ended()->mutable_request() = ToProto(m.request);
}

void Write(const scheduler::RequestAdmitted& m, v1::SchedulerToGateway* out) {
  *out->mutable_admitted()->mutable_request() = ToProto(m.request);
  out->mutable_admitted()->set_age(m.age);
}
void Write(const scheduler::RequestFailed& m, v1::SchedulerToGateway* out) {
  *out->mutable_failed()->mutable_request() = ToProto(m.request);
  *out->mutable_failed()->mutable_status() = ToProto(m.status);
  out->mutable_failed()->set_retry_after_ns(m.retry_after.count());
}
void Write(const scheduler::Membership& m, v1::SchedulerToGateway* out) {
  v1::Membership* p = out->mutable_membership();
  p->set_whole(m.whole);
  for (scheduler::Incarnation peer : m.peers) p->add_peers(peer.value());
  for (scheduler::Incarnation peer : m.gone) p->add_gone(peer.value());
  for (const scheduler::ModelRoles& model : m.models) {
    v1::ModelRoles* to = p->add_models();
    to->set_fingerprint(model.fingerprint);
    to->set_roles(model.roles.bits);
  }
}
absl::StatusOr<scheduler::Membership> Read(const v1::Membership& p) {
  if (p.peers_size() > kMaxLive || p.gone_size() > kMaxLive || p.models_size() > kMaxLive) {
    return OutOfRange();
  }
  scheduler::Membership m;
  m.whole = p.whole();
  for (uint64_t peer : p.peers()) m.peers.emplace_back(peer);
  for (uint64_t peer : p.gone()) m.gone.emplace_back(peer);
  for (const v1::ModelRoles& model : p.models()) {
    if (model.roles() == 0 || model.roles() >= (1u << scheduler::kNumStages)) return OutOfRange();
    m.models.push_back({model.fingerprint(), {static_cast<uint8_t>(model.roles())}});
  }
  return m;
}
void Write(const scheduler::RequestProgress& m, v1::SchedulerToGateway* out) {
  *out->mutable_progress()->mutable_request() = ToProto(m.request);
  out->mutable_progress()->set_milestone(static_cast<v1::RequestProgress::Milestone>(m.milestone));
}

void Write(const scheduler::Segment& segment, v1::Segment* out) {
  if (const auto* text = std::get_if<scheduler::TokenRun>(&segment)) {
    out->mutable_text()->mutable_ids()->Add(text->ids.begin(), text->ids.end());
    return;
  }
  const auto& item = std::get<scheduler::Item>(segment);
  v1::Item* p = out->mutable_item();
  p->set_kind(static_cast<v1::ItemKind>(item.kind));
  *p->mutable_grid() = ToProto(item.grid);
  p->set_second_per_grid(item.second_per_grid);
  p->set_content_key(item.content_key);
  p->set_max_tokens(item.max_tokens);
}

absl::StatusOr<scheduler::Segment> Read(const v1::Segment& p) {
  if (p.has_text()) {
    return scheduler::TokenRun{{p.text().ids().begin(), p.text().ids().end()}};
  }
  if (!p.has_item() || p.item().kind() < 0 || p.item().kind() > v1::ITEM_KIND_VIDEO) {
    return OutOfRange();
  }
  scheduler::Item item;
  item.kind = static_cast<scheduler::ItemKind>(p.item().kind());
  item.grid = FromProto(p.item().grid());
  item.second_per_grid = p.item().second_per_grid();
  item.content_key = p.item().content_key();
  item.max_tokens = p.item().max_tokens();
  return item;
}

}  // namespace

v1::GatewayToScheduler ToProto(const scheduler::GatewayToScheduler& message) {
  v1::GatewayToScheduler out;
  std::visit([&](const auto& m) { Write(m, &out); }, message);
  return out;
}

v1::SchedulerToGateway ToProto(const scheduler::SchedulerToGateway& message) {
  v1::SchedulerToGateway out;
  std::visit([&](const auto& m) { Write(m, &out); }, message);
  return out;
}

v1::GatewayHello ToProto(const scheduler::GatewayHello& hello) {
  v1::GatewayHello out;
  out.set_name(hello.name);
  out.set_address(hello.address);
  out.set_admin(hello.admin);
  out.set_pid(hello.pid);
  *out.mutable_highest_seen() = ToProto(hello.highest_seen);
  out.set_draining(hello.draining);
  for (scheduler::Incarnation peer : hello.known_peers) out.add_known_peers(peer.value());
  for (const auto& request : hello.live) Write(request, out.add_live());
  out.mutable_pass_key()->set_a(hello.pass_key.a);
  out.mutable_pass_key()->set_b(hello.pass_key.b);
  return out;
}

v1::PullRequest ToProto(const scheduler::PullRequest& pull) {
  v1::PullRequest out;
  *out.mutable_request() = ToProto(pull.request);
  *out.mutable_task() = ToProto(pull.task);
  out.set_stage(static_cast<v1::Stage>(pull.stage));
  out.set_epoch(pull.epoch.value());
  out.set_pass(pull.pass);
  out.set_item(pull.item);
  return out;
}

v1::PulledInput ToProto(const scheduler::PulledInput& input) {
  v1::PulledInput out;
  for (const auto& segment : input.segments) Write(segment, out.add_segments());
  out.mutable_prefix_tokens()->Add(input.prefix_tokens.begin(), input.prefix_tokens.end());
  *out.mutable_sampling() = ToProto(input.sampling);
  out.set_max_tokens(input.max_tokens);
  out.set_min_tokens(input.min_tokens);
  out.mutable_stop_token_ids()->Add(input.stop_token_ids.begin(), input.stop_token_ids.end());
  for (const scheduler::TokenRun& word : input.bad_words) {
    out.add_bad_words()->mutable_ids()->Add(word.ids.begin(), word.ids.end());
  }
  return out;
}

v1::TokenBatch ToProto(const scheduler::TokenBatch& batch) {
  v1::TokenBatch out;
  *out.mutable_request() = ToProto(batch.request);
  *out.mutable_task() = ToProto(batch.task);
  out.set_epoch(batch.epoch.value());
  out.set_pass(batch.pass);
  out.set_start_index(batch.start_index);
  for (const auto& token : batch.tokens) *out.add_tokens() = ToProto(token);
  out.set_finish(static_cast<v1::Finish>(batch.finish));
  if (!batch.error.ok()) *out.mutable_error() = ToProto(batch.error);
  return out;
}

v1::TokenReply ToProto(const scheduler::TokenReply& reply) {
  v1::TokenReply out;
  *out.mutable_request() = ToProto(reply.request);
  *out.mutable_task() = ToProto(reply.task);
  out.set_epoch(reply.epoch.value());
  out.set_kind(static_cast<v1::TokenReply::Kind>(reply.kind));
  out.set_next_index(reply.next_index);
  out.set_ended(reply.ended);
  return out;
}

absl::StatusOr<scheduler::GatewayToScheduler> FromProto(const v1::GatewayToScheduler& message) {
  using Case = v1::GatewayToScheduler::MessageCase;
  switch (message.message_case()) {
    case Case::kReport:
      return scheduler::GatewayReport{message.report().live_requests()};
    case Case::kSubmit: {
      ASSIGN_OR_RETURN(scheduler::SubmitRequest submit, Read(message.submit()));
      return submit;
    }
    case Case::kEnded:
      return scheduler::RequestEnded{FromProto(message.ended().request())};
    default:
      return absl::InvalidArgumentError("unknown message from a gateway");
  }
}

absl::StatusOr<scheduler::SchedulerToGateway> FromProto(const v1::SchedulerToGateway& message) {
  using Case = v1::SchedulerToGateway::MessageCase;
  switch (message.message_case()) {
    case Case::kAdmitted:
      return scheduler::RequestAdmitted{FromProto(message.admitted().request()),
                                        message.admitted().age()};
    case Case::kFailed:
      return scheduler::RequestFailed{FromProto(message.failed().request()),
                                      FromProto(message.failed().status()),
                                      base::Duration(message.failed().retry_after_ns())};
    case Case::kMembership: {
      ASSIGN_OR_RETURN(scheduler::Membership membership, Read(message.membership()));
      return membership;
    }
    case Case::kProgress: {
      const int milestone = message.progress().milestone();
      if (milestone < 0 || milestone > v1::RequestProgress::DECODE_BOUND) return OutOfRange();
      return scheduler::RequestProgress{
          FromProto(message.progress().request()),
          static_cast<scheduler::RequestProgress::Milestone>(milestone)};
    }
    default:
      return absl::InvalidArgumentError("unknown message to a gateway");
  }
}

absl::StatusOr<scheduler::GatewayHello> FromProto(const v1::GatewayHello& hello,
                                                  scheduler::Incarnation incarnation) {
  if (hello.live_size() > kMaxLive || hello.known_peers_size() > kMaxLive ||
      hello.highest_seen().term() > scheduler::kHighestTerm ||
      hello.name().size() > kMaxNameBytes || hello.address().size() > kMaxNameBytes ||
      hello.admin().size() > kMaxNameBytes) {
    return OutOfRange();
  }
  scheduler::GatewayHello out;
  out.name = hello.name();
  out.incarnation = incarnation;
  out.address = hello.address();
  out.admin = hello.admin();
  out.pid = hello.pid();
  out.highest_seen = FromProto(hello.highest_seen());
  out.draining = hello.draining();
  for (uint64_t peer : hello.known_peers()) out.known_peers.emplace_back(peer);
  for (const auto& live : hello.live()) {
    ASSIGN_OR_RETURN(scheduler::SubmitRequest submit, Read(live));
    out.live.push_back(std::move(submit));
  }
  out.pass_key = {hello.pass_key().a(), hello.pass_key().b()};
  return out;
}

absl::StatusOr<scheduler::PullRequest> FromProto(const v1::PullRequest& pull) {
  scheduler::PullRequest out;
  ASSIGN_OR_RETURN(out.stage, StageFromProto(pull.stage()));
  out.request = FromProto(pull.request());
  out.task = FromProto(pull.task());
  out.epoch = scheduler::OutputEpoch(pull.epoch());
  out.pass = pull.pass();
  out.item = pull.item();
  return out;
}

absl::StatusOr<scheduler::PulledInput> FromProto(const v1::PulledInput& input) {
  if (input.segments_size() > kMaxSegments || input.max_tokens() < 0 ||
      input.bad_words_size() > kMaxSegments) {
    return OutOfRange();
  }
  scheduler::PulledInput out;
  for (const auto& p : input.segments()) {
    ASSIGN_OR_RETURN(scheduler::Segment segment, Read(p));
    out.segments.push_back(std::move(segment));
  }
  out.prefix_tokens.assign(input.prefix_tokens().begin(), input.prefix_tokens().end());
  ASSIGN_OR_RETURN(out.sampling, FromProto(input.sampling()));
  out.max_tokens = input.max_tokens();
  out.min_tokens = input.min_tokens();
  out.stop_token_ids.assign(input.stop_token_ids().begin(), input.stop_token_ids().end());
  for (const v1::TokenRun& word : input.bad_words()) {
    if (word.ids().empty()) return OutOfRange();
    out.bad_words.push_back({{word.ids().begin(), word.ids().end()}});
  }
  return out;
}

absl::StatusOr<scheduler::TokenBatch> FromProto(const v1::TokenBatch& batch) {
  if (batch.start_index() < 0 || batch.start_index() > kMaxTokens ||
      batch.tokens_size() > kMaxTokens) {
    return OutOfRange();
  }
  scheduler::TokenBatch out;
  ASSIGN_OR_RETURN(out.finish, FinishFromProto(batch.finish()));
  out.request = FromProto(batch.request());
  out.task = FromProto(batch.task());
  out.epoch = scheduler::OutputEpoch(batch.epoch());
  out.pass = batch.pass();
  out.start_index = batch.start_index();
  out.tokens.reserve(batch.tokens_size());
  for (const auto& token : batch.tokens()) out.tokens.push_back(FromProto(token));
  if (batch.has_error()) out.error = FromProto(batch.error());
  return out;
}

absl::StatusOr<scheduler::TokenReply> FromProto(const v1::TokenReply& reply) {
  if (reply.kind() < 0 || reply.kind() > v1::TokenReply::GONE || reply.next_index() < 0) {
    return OutOfRange();
  }
  scheduler::TokenReply out;
  out.request = FromProto(reply.request());
  out.task = FromProto(reply.task());
  out.epoch = scheduler::OutputEpoch(reply.epoch());
  out.kind = static_cast<scheduler::TokenReply::Kind>(reply.kind());
  out.next_index = reply.next_index();
  out.ended = reply.ended();
  return out;
}

}  // namespace triptych::services
