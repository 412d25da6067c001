#include "services/convert/transfer_messages.h"

#include <utility>

#include "services/convert/ids.h"

namespace triptych::services {
namespace {

absl::Status OutOfRange() { return absl::InvalidArgumentError("value out of range"); }

v1::TransferKey Write(const scheduler::TransferKey& key) {
  v1::TransferKey out;
  *out.mutable_producer() = ToProto(key.producer);
  *out.mutable_consumer() = ToProto(key.consumer);
  out.set_item(key.item);
  out.set_attempt(key.attempt);
  return out;
}

void Write(const scheduler::Offer& m, v1::TransferMessage* out) {
  v1::Offer* p = out->mutable_offer();
  p->set_fingerprint(m.fingerprint);
  p->set_kind(static_cast<v1::TransferKind>(m.kind));
  p->set_num_tokens(m.num_tokens);
  p->set_bytes(m.bytes);
  p->set_payload(static_cast<uint32_t>(m.payload));
  p->set_head_begin(m.heads.begin);
  p->set_head_end(m.heads.end);
  p->set_from_token(m.from_token);
}
void Write(const scheduler::Grant&, v1::TransferMessage* out) { out->mutable_grant(); }
void Write(const scheduler::Deny& m, v1::TransferMessage* out) {
  out->mutable_deny()->set_reason(static_cast<v1::Deny::Reason>(m.reason));
}
void Write(const scheduler::Ready& m, v1::TransferMessage* out) {
  v1::Ready* p = out->mutable_ready();
  p->set_index(m.index);
  v1::CacheRange* range = p->mutable_range();
  range->set_kind(static_cast<v1::TransferKind>(m.range.kind));
  range->set_token_begin(m.range.token_begin);
  range->set_token_end(m.range.token_end);
  range->set_layer_begin(m.range.layer_begin);
  range->set_layer_end(m.range.layer_end);
  p->set_bytes(m.bytes);
  p->set_checksum(m.checksum);
  p->set_last(m.position == scheduler::Ready::Position::kLast);
  if (m.first_token.has_value()) {
    p->mutable_first_token()->set_index(m.first_token->index);
    *p->mutable_first_token()->mutable_token() = ToProto(m.first_token->token);
  }
}
void Write(const scheduler::Go& m, v1::TransferMessage* out) {
  out->mutable_go()->set_index(m.index);
  out->mutable_go()->set_sequence(m.sequence);
  out->mutable_go()->set_over_below(m.over_below);
  out->mutable_go()->set_connection(m.connection);
}
void Write(const scheduler::PieceAcknowledged& m, v1::TransferMessage* out) {
  out->mutable_acknowledged()->set_index(m.index);
  out->mutable_acknowledged()->set_corrupt(m.verdict ==
                                           scheduler::PieceAcknowledged::Verdict::kCorrupt);
}
void Write(const scheduler::AbortTransfer&, v1::TransferMessage* out) { out->mutable_abort(); }

bool ValidKind(int kind) { return kind == 0 || kind == 1; }

absl::StatusOr<scheduler::TransferMessage> ReadOffer(const scheduler::TransferKey& key,
                                                     const v1::Offer& p) {
  if (!ValidKind(p.kind()) || p.payload() != 0 || p.num_tokens() <= 0 || p.bytes() < 0 ||
      p.head_begin() < 0 || p.head_end() < p.head_begin() || p.from_token() < 0 ||
      p.from_token() >= p.num_tokens()) {
    return OutOfRange();
  }
  return scheduler::Offer{.key = key,
                          .fingerprint = p.fingerprint(),
                          .kind = static_cast<scheduler::TransferKind>(p.kind()),
                          .heads = {p.head_begin(), p.head_end()},
                          .from_token = p.from_token(),
                          .num_tokens = p.num_tokens(),
                          .bytes = p.bytes()};
}

absl::StatusOr<scheduler::TransferMessage> ReadReady(const scheduler::TransferKey& key,
                                                     const v1::Ready& p) {
  const v1::CacheRange& range = p.range();
  if (!ValidKind(range.kind()) || range.token_begin() < 0 || p.index() < 0 || p.bytes() < 0 ||
      range.token_end() < range.token_begin() || range.layer_begin() < 0 ||
      range.layer_end() < range.layer_begin()) {
    return OutOfRange();
  }
  scheduler::Ready m;
  m.key = key;
  m.index = p.index();
  m.range = {static_cast<scheduler::TransferKind>(range.kind()), range.token_begin(),
             range.token_end(), range.layer_begin(), range.layer_end()};
  m.bytes = p.bytes();
  m.checksum = p.checksum();
  m.position = p.last() ? scheduler::Ready::Position::kLast : scheduler::Ready::Position::kMore;
  if (p.has_first_token()) {
    m.first_token =
        scheduler::FirstToken{p.first_token().index(), FromProto(p.first_token().token())};
  }
  return m;
}

}  // namespace

v1::TransferMessage ToProto(const scheduler::TransferMessage& message) {
  v1::TransferMessage out;
  std::visit(
      [&](const auto& m) {
        *out.mutable_key() = Write(m.key);
        Write(m, &out);
      },
      message);
  return out;
}

absl::StatusOr<scheduler::TransferMessage> FromProto(const v1::TransferMessage& message) {
  using Case = v1::TransferMessage::MessageCase;
  using Verdict = scheduler::PieceAcknowledged::Verdict;
  const v1::TransferKey& k = message.key();
  const scheduler::TransferKey key{FromProto(k.producer()), FromProto(k.consumer()), k.item(),
                                   k.attempt()};
  switch (message.message_case()) {
    case Case::kOffer:
      return ReadOffer(key, message.offer());
    case Case::kGrant:
      return scheduler::Grant{key};
    case Case::kDeny:
      if (message.deny().reason() < 0 || message.deny().reason() > v1::Deny::OVER) {
        return OutOfRange();
      }
      return scheduler::Deny{key, static_cast<scheduler::Deny::Reason>(message.deny().reason())};
    case Case::kReady:
      return ReadReady(key, message.ready());
    case Case::kGo:
      return scheduler::Go{key, message.go().index(), message.go().sequence(),
                           message.go().over_below(), message.go().connection()};
    case Case::kAcknowledged:
      return scheduler::PieceAcknowledged{
          key, message.acknowledged().index(),
          message.acknowledged().corrupt() ? Verdict::kCorrupt : Verdict::kCheckedIn};
    case Case::kAbort:
      return scheduler::AbortTransfer{key};
    default:
      return absl::InvalidArgumentError("unknown transfer message");
  }
}

}  // namespace triptych::services
