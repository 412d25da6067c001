#include "scheduler/transfer/receiver.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace triptych::scheduler {
namespace {

bool Disjoint(const CacheRange& a, const CacheRange& b) {
  return a.token_end <= b.token_begin || b.token_end <= a.token_begin ||
         (a.kind == TransferKind::kKv &&
          (a.layer_end <= b.layer_begin || b.layer_end <= a.layer_begin));
}

}  // namespace

TransferReceiver::TransferReceiver(std::string fingerprint, TransferMemory landing,
                                   int64_t max_piece_bytes)
    : fingerprint_(std::move(fingerprint)),
      max_piece_bytes_(max_piece_bytes),
      arena_(landing.bytes, landing.alignment) {
  // Else a piece could wait for ever.
  CHECK_LE(max_piece_bytes_, arena_.size());
}

// ---- the consumer -------------------------------------------------------------------------------

void TransferReceiver::Expect(const Expectation& expectation, base::TimePoint now) {
  const InputId id(expectation.consumer, expectation.item);
  auto [it, inserted] = inputs_.try_emplace(id);
  if (!inserted) return;
  it->second.expectation = expectation;
  TakeParked(id, now);
}

void TransferReceiver::Rebind(const TaskId& consumer, const InputProducer& input,
                              base::TimePoint now) {
  const InputId id(consumer, input.item);
  auto it = inputs_.find(id);
  if (it == inputs_.end() || it->second.received) return;
  if (it->second.expectation.producer == input.producer) return;
  EndAttempt(it->second);
  it->second.expectation.producer = input.producer;
  it->second.ended_attempts = 0;
  TakeParked(id, now);
  GiveGo();
}

void TransferReceiver::Forget(const TaskId& consumer, base::TimePoint) {
  over_.Insert(consumer);
  std::erase_if(parked_, [&](const Parked& parked) {
    const bool over = parked.offer.key.consumer == consumer;
    if (over) Refuse(parked.peer, parked.offer.key, Deny::Reason::kOver);
    return over;
  });
  auto it = inputs_.lower_bound(InputId(consumer, INT32_MIN));
  while (it != inputs_.end() && it->first.first == consumer) {
    if (!it->second.received) EndAttempt(it->second);
    it = inputs_.erase(it);
  }
  GiveGo();
}

void TransferReceiver::Imported(BufferId buffer, base::TimePoint) {
  if (!arena_.Holds(buffer)) return;
  arena_.Release(buffer);
  GiveGo();
}

void TransferReceiver::Complete(Input& input) {
  TransferReceived received{.consumer = input.expectation.consumer,
                            .item = input.expectation.item,
                            .producer = input.attempt->key.producer,
                            .num_tokens = input.attempt->num_tokens};
  for (const auto& [index, piece] : input.attempt->pieces) {
    if (piece.ready.first_token.has_value()) received.first_token = piece.ready.first_token;
  }
  // The pieces are remembered, for acknowledgements that were lost.
  input.received = true;
  actions_.emplace_back(std::move(received));
}

// ---- the producer's messages --------------------------------------------------------------------

void TransferReceiver::Handle(Incarnation peer, const TransferMessage& message,
                              base::TimePoint now) {
  if (lost_.Contains(peer)) return;
  std::visit([&](const auto& m) { OnMessage(peer, m, now); }, message);
}

void TransferReceiver::OnMessage(Incarnation peer, const Offer& offer, base::TimePoint now) {
  if (over_.Contains(offer.key.consumer)) return Refuse(peer, offer.key, Deny::Reason::kOver);
  auto it = inputs_.find(InputId(offer.key.consumer, offer.key.item));
  if (it == inputs_.end() || it->second.expectation.producer != offer.key.producer) {
    return Park(peer, offer, now);
  }
  Answer(peer, offer, it->second);
  GiveGo();
}

void TransferReceiver::Answer(Incarnation peer, const Offer& offer, Input& input) {
  if (offer.fingerprint != fingerprint_) {
    return Refuse(peer, offer.key, Deny::Reason::kWrongFingerprint);
  }
  if (!Fits(input, offer)) return Refuse(peer, offer.key, Deny::Reason::kMismatch);
  const bool current = input.attempt.has_value() && input.attempt->key == offer.key;
  if (input.received || offer.key.attempt <= input.ended_attempts) {
    if (!current) Refuse(peer, offer.key, Deny::Reason::kOver);
    return;
  }
  if (!current) {
    if (input.attempt.has_value() && input.attempt->key.attempt > offer.key.attempt) {
      return Refuse(peer, offer.key, Deny::Reason::kOver);
    }
    EndAttempt(input);
    input.attempt = Attempt{
        .key = offer.key, .peer = peer, .num_tokens = offer.num_tokens, .bytes = offer.bytes};
  }
  if (input.attempt->peer == peer) Say(peer, Grant{offer.key});
}

void TransferReceiver::OnMessage(Incarnation peer, const Ready& ready, base::TimePoint) {
  Input* input = Find(ready.key);
  if (input == nullptr || input->attempt->peer != peer) {
    return Refuse(peer, ready.key, Deny::Reason::kOver);
  }
  if (const Piece* known = FindPiece(ready.key, ready.index)) return RepeatAnswer(peer, *known);
  if (input->received || !Fits(*input, ready)) {
    return Refuse(peer, ready.key, Deny::Reason::kMismatch);
  }
  input->attempt->pieces[ready.index] = Piece{.ready = ready};
  waiting_.push_back({ready.key, ready.index});
  GiveGo();
}

void TransferReceiver::RepeatAnswer(Incarnation peer, const Piece& piece) {
  switch (piece.state) {
    case Piece::State::kWaiting:
      Say(peer, Grant{piece.ready.key});
      break;
    case Piece::State::kGoing:
      SayGo(peer, peers_.at(peer), piece.sequence);
      break;
    case Piece::State::kLanded:
      Say(peer, PieceAcknowledged{piece.ready.key, piece.ready.index});
      break;
  }
}

// An item may have come out smaller than what is reserved for it; KV covers what was assigned.
bool TransferReceiver::Fits(const Input& input, const Offer& offer) const {
  const Expectation& expected = input.expectation;
  if (offer.kind != expected.kind || offer.payload != PayloadKind::kPlain ||
      offer.heads != expected.heads || offer.from_token != expected.from_token ||
      offer.num_tokens <= expected.from_token) {
    return false;
  }
  const bool exact = expected.kind == TransferKind::kKv;
  if (exact ? offer.num_tokens != expected.num_tokens : offer.num_tokens > expected.num_tokens) {
    return false;
  }
  const auto share =
      static_cast<__int128>(expected.bytes) * (offer.num_tokens - expected.from_token);
  return static_cast<__int128>(offer.bytes) * (expected.num_tokens - expected.from_token) == share;
}

// Each piece has exactly the bytes of its range, and no two ranges overlap: so all bytes together
// mean that everything is there.
bool TransferReceiver::Fits(const Input& input, const Ready& ready) const {
  const Expectation& expected = input.expectation;
  const Attempt& attempt = *input.attempt;
  const CacheRange& range = ready.range;
  if (ready.index < 0 || ready.bytes <= 0 || ready.bytes > max_piece_bytes_ ||
      range.kind != expected.kind) {
    return false;
  }
  if (range.token_begin < expected.from_token || range.token_begin >= range.token_end ||
      range.token_end > attempt.num_tokens) {
    return false;
  }
  int64_t layers = 1, num_layers = 1;
  if (expected.kind == TransferKind::kKv) {
    if (range.layer_begin < 0 || range.layer_begin >= range.layer_end ||
        range.layer_end > expected.num_layers) {
      return false;
    }
    layers = range.layer_end - range.layer_begin;
    num_layers = expected.num_layers;
  }
  const int64_t tokens = range.token_end - range.token_begin;
  const int64_t all_tokens = attempt.num_tokens - expected.from_token;
  const auto share = static_cast<__int128>(attempt.bytes) * tokens * layers;
  if (static_cast<__int128>(ready.bytes) * all_tokens * num_layers != share) return false;
  const bool last = ready.position == Ready::Position::kLast;
  if (ready.first_token.has_value() != (last && expected.kind == TransferKind::kKv)) return false;
  return std::all_of(attempt.pieces.begin(), attempt.pieces.end(),
                     [&](const auto& entry) { return Disjoint(entry.second.ready.range, range); });
}

void TransferReceiver::OnMessage(Incarnation peer, const AbortTransfer& abort, base::TimePoint) {
  std::erase_if(parked_, [&](const Parked& parked) {
    return parked.peer == peer && parked.offer.key == abort.key;
  });
  auto it = inputs_.find(InputId(abort.key.consumer, abort.key.item));
  if (it != inputs_.end() && it->second.expectation.producer == abort.key.producer) {
    Input& input = it->second;
    if (!input.received && input.attempt.has_value() && input.attempt->key == abort.key &&
        input.attempt->peer == peer) {
      input.attempt.reset();
    }
    input.ended_attempts = std::max(input.ended_attempts, abort.key.attempt);
  }
  Refuse(peer, abort.key, Deny::Reason::kOver);
  GiveGo();
}

// ---- parking ------------------------------------------------------------------------------------

void TransferReceiver::Park(Incarnation peer, const Offer& offer, base::TimePoint now) {
  for (const Parked& parked : parked_) {
    // It stays; but silence would mean that this worker is out of reach.
    if (parked.peer == peer && parked.offer.key == offer.key) {
      return Refuse(peer, offer.key, Deny::Reason::kUnknownTask);
    }
  }
  parked_.push_back({peer, offer, now + kParkedFor});
  if (parked_.size() <= static_cast<size_t>(kMaxParked)) return;
  Refuse(parked_.front().peer, parked_.front().offer.key, Deny::Reason::kUnknownTask);
  parked_.pop_front();
}

void TransferReceiver::TakeParked(const InputId& id, base::TimePoint) {
  Input& input = inputs_.at(id);
  std::deque<Parked> others;
  for (Parked& parked : std::exchange(parked_, {})) {
    const TransferKey& key = parked.offer.key;
    if (InputId(key.consumer, key.item) == id && input.expectation.producer == key.producer) {
      Answer(parked.peer, parked.offer, input);
    } else {
      others.push_back(std::move(parked));
    }
  }
  parked_ = std::move(others);
}

// ---- landing ------------------------------------------------------------------------------------

// In order of arrival; whose peer holds its share already is passed by.
void TransferReceiver::GiveGo() {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Piece* piece = FindPiece(it->key, it->index);
    if (piece == nullptr || piece->state != Piece::State::kWaiting) {
      it = waiting_.erase(it);
      continue;
    }
    const Ready& ready = piece->ready;
    const Incarnation incarnation = Find(ready.key)->attempt->peer;
    if (!arena_.MayHold(incarnation, ready.bytes)) {
      ++it;
      continue;
    }
    const std::optional<PieceBuffer> buffer = arena_.Allocate(incarnation, ready.bytes);
    if (!buffer.has_value()) return;
    Peer& peer = peers_[incarnation];
    piece->state = Piece::State::kGoing;
    piece->sequence = ++peer.last_sequence;
    peer.receives[piece->sequence] = Receive{
        .key = ready.key, .index = ready.index, .buffer = *buffer, .checksum = ready.checksum};
    actions_.emplace_back(PostReceive{PeerAddress{incarnation, ""}, piece->sequence, *buffer});
    SayGo(incarnation, peer, piece->sequence);
    it = waiting_.erase(it);
  }
}

// Repeated whenever the sender repeats what it answers.
void TransferReceiver::SayGo(Incarnation incarnation, const Peer& peer, uint64_t sequence) {
  const Receive& receive = peer.receives.at(sequence);
  Say(incarnation, Go{.key = receive.key,
                      .index = receive.index,
                      .sequence = sequence,
                      .over_below = peer.receives.begin()->first,
                      .connection = peer.connection});
}

void TransferReceiver::OnReceived(Incarnation incarnation, uint64_t sequence,
                                  const absl::Status& status, uint64_t checksum, base::TimePoint) {
  auto peer = peers_.find(incarnation);
  if (peer == peers_.end()) return;
  auto entry = peer->second.receives.find(sequence);
  if (entry == peer->second.receives.end()) return;
  const Receive receive = entry->second;
  peer->second.receives.erase(entry);
  if (!status.ok()) ++peer->second.connection;
  if (lost_.Contains(incarnation)) {
    if (peer->second.receives.empty()) peers_.erase(peer);
    arena_.Release(receive.buffer.id);
    return GiveGo();
  }
  Piece* piece = FindPiece(receive.key, receive.index);
  if (piece == nullptr || piece->state != Piece::State::kGoing || piece->sequence != sequence) {
    arena_.Release(receive.buffer.id);
    Refuse(incarnation, receive.key, Deny::Reason::kOver);
  } else if (!status.ok() || checksum != receive.checksum) {
    arena_.Release(receive.buffer.id);
    Find(receive.key)->attempt->pieces.erase(receive.index);
    Say(incarnation,
        PieceAcknowledged{receive.key, receive.index, PieceAcknowledged::Verdict::kCorrupt});
  } else {
    Land(receive, *piece, incarnation);
  }
  GiveGo();
}

void TransferReceiver::Land(const Receive& receive, Piece& piece, Incarnation peer) {
  piece.state = Piece::State::kLanded;
  Say(peer, PieceAcknowledged{receive.key, receive.index});
  actions_.emplace_back(PieceLanded{.consumer = receive.key.consumer,
                                    .item = receive.key.item,
                                    .range = piece.ready.range,
                                    .buffer = receive.buffer});
  Input& input = *Find(receive.key);
  input.attempt->landed_bytes += piece.ready.bytes;
  if (input.attempt->landed_bytes == input.attempt->bytes) Complete(input);
}

// ---- peers and time -----------------------------------------------------------------------------

void TransferReceiver::PeerLost(Incarnation incarnation, base::TimePoint) {
  lost_.Insert(incarnation);
  std::erase_if(parked_, [&](const Parked& parked) { return parked.peer == incarnation; });
  for (auto& [id, input] : inputs_) {
    if (input.attempt.has_value() && input.attempt->peer == incarnation && !input.received) {
      input.attempt.reset();
    }
  }
  auto it = peers_.find(incarnation);
  if (it != peers_.end()) {
    if (it->second.receives.empty()) {
      peers_.erase(it);
    } else {
      actions_.emplace_back(AbortPeer{incarnation});
    }
  }
  GiveGo();
}

void TransferReceiver::AddPeers(std::set<Incarnation>* peers) const {
  for (const auto& [incarnation, peer] : peers_) {
    if (!peer.receives.empty()) peers->insert(incarnation);
  }
  for (const auto& [id, input] : inputs_) {
    if (input.attempt.has_value() && !input.received) peers->insert(input.attempt->peer);
  }
}

void TransferReceiver::OnTime(base::TimePoint now) {
  while (!parked_.empty() && parked_.front().until <= now) {
    Refuse(parked_.front().peer, parked_.front().offer.key, Deny::Reason::kUnknownTask);
    parked_.pop_front();
  }
}

base::TimePoint TransferReceiver::NextDeadline() const {
  return parked_.empty() ? base::kNever : parked_.front().until;
}

// ---- parts --------------------------------------------------------------------------------------

// The input whose current attempt this is.
TransferReceiver::Input* TransferReceiver::Find(const TransferKey& key) {
  auto it = inputs_.find(InputId(key.consumer, key.item));
  if (it == inputs_.end() || !it->second.attempt.has_value()) return nullptr;
  return it->second.attempt->key == key ? &it->second : nullptr;
}

TransferReceiver::Piece* TransferReceiver::FindPiece(const TransferKey& key, int32_t index) {
  Input* input = Find(key);
  if (input == nullptr) return nullptr;
  auto it = input->attempt->pieces.find(index);
  return it == input->attempt->pieces.end() ? nullptr : &it->second;
}

void TransferReceiver::EndAttempt(Input& input) {
  if (!input.attempt.has_value()) return;
  const TransferKey key = input.attempt->key;
  const Incarnation peer = input.attempt->peer;
  input.attempt.reset();
  Refuse(peer, key, Deny::Reason::kOver);
}

void TransferReceiver::Say(Incarnation peer, TransferMessage message) {
  actions_.emplace_back(SendTransfer{PeerAddress{peer, ""}, std::move(message)});
}

// kOver lets the sender drop its buffers, so it is said only once no operation of the key is under
// way; until then each Go is repeated, and the last one to complete says it.
void TransferReceiver::Refuse(Incarnation peer, const TransferKey& key, Deny::Reason reason) {
  if (reason == Deny::Reason::kOver) {
    auto it = peers_.find(peer);
    if (it != peers_.end()) {
      bool under_way = false;
      for (const auto& [sequence, receive] : it->second.receives) {
        if (receive.key != key) continue;
        under_way = true;
        SayGo(peer, it->second, sequence);
      }
      if (under_way) return;
    }
  }
  Say(peer, Deny{key, reason});
}

}  // namespace triptych::scheduler
