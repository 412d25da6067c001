#include "scheduler/transfer/sender.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace triptych::scheduler {

TransferSender::TransferSender(std::string fingerprint, TransferMemory staging)
    : fingerprint_(std::move(fingerprint)), arena_(staging.bytes, staging.alignment) {}

// ---- the producer -------------------------------------------------------------------------------

void TransferSender::Offer(const OutgoingTransfer& transfer, base::TimePoint now) {
  const Incarnation peer = transfer.peer.incarnation;
  if (lost_.Contains(peer)) {
    actions_.emplace_back(TransferFailed{transfer.key, absl::UnavailableError("peer lost"), peer});
    return;
  }
  auto [it, inserted] = transfers_.try_emplace(transfer.key);
  if (!inserted) return;
  it->second.offer = transfer;
  it->second.retry_at = now + kTransferRetry;
  it->second.heard_at = it->second.moved_at = now;
  peers_[peer].address = transfer.peer;
  SendOffer(it->second);
}

std::optional<PieceBuffer> TransferSender::ReserveStaging(const TransferKey& key, int64_t bytes) {
  auto it = transfers_.find(key);
  if (it == transfers_.end() || it->second.state != Transfer::State::kGranted) return std::nullopt;
  const Incarnation peer = it->second.offer.peer.incarnation;
  if (peers_.at(peer).dropped > 0 || !arena_.MayHold(peer, bytes)) return std::nullopt;
  const std::optional<PieceBuffer> buffer = arena_.Allocate(peer, bytes);
  if (buffer.has_value()) buffers_[buffer->id] = Buffer();
  return buffer;
}

void TransferSender::PieceStaged(const StagedPiece& piece, base::TimePoint now) {
  auto it = transfers_.find(piece.key);
  if (it == transfers_.end() || it->second.state != Transfer::State::kGranted) {
    Unwant(piece.buffer.id);
    return;
  }
  Transfer& transfer = it->second;
  auto [slot, inserted] = transfer.pieces.try_emplace(piece.index, Piece{.staged = piece});
  CHECK_TRUE(inserted);
  if (piece.position == Ready::Position::kLast) transfer.num_pieces = piece.index + 1;
  if (transfer.num_open++ == 0) transfer.heard_at = transfer.moved_at = now;
  transfer.retry_at = now + kTransferRetry;
  SendReady(transfer, slot->second);
}

void TransferSender::DropStaged(BufferId buffer) { Unwant(buffer); }

void TransferSender::Cancel(const TransferKey& key, base::TimePoint now) { Stop(key, now); }

// ---- the consumer's messages --------------------------------------------------------------------

void TransferSender::Handle(Incarnation peer, const TransferMessage& message, base::TimePoint now) {
  if (lost_.Contains(peer)) return;
  if (auto it = peers_.find(peer); it != peers_.end()) it->second.heard_at = now;
  std::visit([&](const auto& m) { OnMessage(peer, m, now); }, message);
}

void TransferSender::OnMessage(Incarnation peer, const Grant& grant, base::TimePoint now) {
  Transfer* transfer = Find(grant.key, peer);
  if (transfer == nullptr) return;
  transfer->heard_at = transfer->moved_at = now;
  if (transfer->state != Transfer::State::kOffered) return;
  transfer->state = Transfer::State::kGranted;
  transfer->retry_at = now + kTransferRetry;
  actions_.emplace_back(TransferGranted{grant.key});
}

void TransferSender::OnMessage(Incarnation peer, const Deny& deny, base::TimePoint now) {
  Transfer* transfer = Find(deny.key, peer);
  if (transfer == nullptr) return;
  transfer->heard_at = now;
  const TransferKey key = deny.key;
  const bool aborting = transfer->state == Transfer::State::kAborting;
  switch (deny.reason) {
    case Deny::Reason::kUnknownTask:
      if (transfer->state == Transfer::State::kOffered) transfer->retry_at = now + kOfferRetry;
      return;
    case Deny::Reason::kOver:
      // Said only when no operation of this key is under way: everything may go.
      Erase(key);
      if (!aborting) {
        actions_.emplace_back(TransferFailed{key, absl::CancelledError("no longer wanted")});
      }
      return;
    case Deny::Reason::kWrongFingerprint:
      if (!aborting) Fail(key, absl::FailedPreconditionError("another model"), now);
      return;
    case Deny::Reason::kMismatch:
      if (!aborting) Fail(key, absl::InternalError("unlike the reservation"), now);
      return;
  }
}

void TransferSender::OnMessage(Incarnation incarnation, const Go& go, base::TimePoint now) {
  auto it = peers_.find(incarnation);
  if (it == peers_.end()) return;
  Peer& peer = it->second;
  if (go.connection < peer.connection) return;  // of before the bytes broke
  peer.connection = go.connection;
  if (Transfer* transfer = Find(go.key, incarnation)) transfer->heard_at = now;
  // What the receiver does not wait for any more need not be sent, nor waited for.
  peer.next_sequence = std::max(peer.next_sequence, go.over_below);
  peer.early.erase(peer.early.begin(), peer.early.lower_bound(peer.next_sequence));
  if (go.sequence < peer.next_sequence) return Repeat(peer, go.sequence, now);
  if (peer.early.size() >= static_cast<size_t>(kMaxRemembered)) return Breach(incarnation, now);
  peer.early.emplace(go.sequence, go);
  while (!peer.early.empty() && peer.early.begin()->first == peer.next_sequence) {
    const Followed followed = Follow(peer, peer.early.begin()->second, now);
    if (followed == Followed::kNoSuchPiece) return Breach(incarnation, now);
    if (followed == Followed::kNoMemory) return;  // the receiver repeats itself
    peer.early.erase(peer.early.begin());
    ++peer.next_sequence;
  }
}

// Posts the send of a piece that is staged, wanted or not. A receiver never asks for one that is
// not.
TransferSender::Followed TransferSender::Follow(Peer& peer, const Go& go, base::TimePoint now) {
  Transfer* transfer = Find(go.key, peer.address.incarnation);
  if (transfer == nullptr) return Followed::kNoSuchPiece;
  auto it = transfer->pieces.find(go.index);
  if (it == transfer->pieces.end() || it->second.acknowledged) return Followed::kNoSuchPiece;
  if (!HasBuffer(peer, it->second)) return Followed::kNoMemory;
  transfer->moved_at = now;
  const StagedPiece& staged = it->second.staged;
  ++buffers_.at(staged.buffer.id).posted;
  peer.sends[go.sequence] = Send{.buffer = staged.buffer};
  actions_.emplace_back(PostSend{peer.address, go.sequence, staged.buffer});
  return Followed::kPosted;
}

// A receiver that asks for what was given up long ago waits for its bytes, whatever they are: it
// finds that they are corrupt, or unwanted. Only others hold the memory that is missing, so it
// comes.
bool TransferSender::HasBuffer(Peer& peer, Piece& piece) {
  if (!piece.dropped) return true;
  const std::optional<PieceBuffer> buffer =
      arena_.Allocate(peer.address.incarnation, piece.staged.buffer.bytes);
  if (!buffer.has_value()) return false;
  buffers_[buffer->id] = Buffer();
  piece.staged.buffer = *buffer;
  piece.dropped = false;
  --peer.dropped;
  return true;
}

// Of a transfer that was given up: nobody wants its bytes, but its peer is out of reach and cannot
// say so. What the transport still reads stays until it is done.
void TransferSender::DropBytes(Transfer& transfer, Peer& peer) {
  for (auto& [index, piece] : transfer.pieces) {
    if (piece.acknowledged || piece.dropped) continue;
    if (buffers_.at(piece.staged.buffer.id).posted > 0) continue;
    PieceOver(peer.address.incarnation, piece);
    piece.dropped = true;
    ++peer.dropped;
  }
}

// The receiver still waits for an operation that this side has done long ago: its bytes were lost
// with their connection.
void TransferSender::Repeat(Peer& peer, uint64_t sequence, base::TimePoint now) {
  auto it = peer.sends.find(sequence);
  if (it == peer.sends.end()) return;
  Send& send = it->second;
  if (send.posted || now - send.done_at < kTransferRetry) return;
  send.posted = true;
  ++buffers_.at(send.buffer.id).posted;
  actions_.emplace_back(PostSend{peer.address, sequence, send.buffer});
}

// A peer that breaks the protocol is worth no memory: the connection goes, and all that it holds.
void TransferSender::Breach(Incarnation peer, base::TimePoint now) {
  actions_.emplace_back(AbortPeer{peer});
  PeerLost(peer, now);
}

void TransferSender::OnMessage(Incarnation peer, const PieceAcknowledged& acknowledged,
                               base::TimePoint now) {
  Transfer* transfer = Find(acknowledged.key, peer);
  if (transfer == nullptr) return;
  auto it = transfer->pieces.find(acknowledged.index);
  if (it == transfer->pieces.end() || it->second.acknowledged) return;
  Piece& piece = it->second;
  const TransferKey key = acknowledged.key;
  transfer->heard_at = now;
  if (acknowledged.verdict == PieceAcknowledged::Verdict::kCorrupt) {
    if (transfer->state == Transfer::State::kAborting) return;
    if (++piece.failures >= kMaxPieceFailures) {
      return Fail(key, absl::DataLossError("piece corrupt too often"), now);
    }
    // At once the first time; then at the pace of the timer, for the link may be broken.
    if (piece.failures == 1) SendReady(*transfer, piece);
    return;
  }
  if (piece.dropped) return;  // it never had them
  piece.acknowledged = true;
  --transfer->num_open;
  transfer->moved_at = now;
  PieceOver(peer, piece);
  if (transfer->state == Transfer::State::kAborting || transfer->num_pieces < 0) return;
  if (static_cast<int32_t>(transfer->pieces.size()) < transfer->num_pieces) return;
  const bool all = std::all_of(transfer->pieces.begin(), transfer->pieces.end(),
                               [](const auto& entry) { return entry.second.acknowledged; });
  if (!all) return;
  transfers_.erase(key);
  actions_.emplace_back(TransferDelivered{key});
}

// ---- transport ----------------------------------------------------------------------------------

void TransferSender::OnSent(Incarnation incarnation, uint64_t sequence,
                            const absl::Status& /*status*/, base::TimePoint now) {
  // Whether it arrived is for the receiver to say; a failed send is repeated when it asks.
  auto it = peers_.find(incarnation);
  if (it == peers_.end()) return;
  auto entry = it->second.sends.find(sequence);
  if (entry == it->second.sends.end() || !entry->second.posted) return;
  Send& send = entry->second;
  send.posted = false;
  send.done_at = now;
  const BufferId buffer = send.buffer.id;
  --buffers_.at(buffer).posted;
  if (!buffers_.at(buffer).wanted) it->second.sends.erase(entry);
  ReleaseIfIdle(buffer);
  if (lost_.Contains(incarnation) && it->second.sends.empty()) peers_.erase(it);
}

void TransferSender::PeerLost(Incarnation incarnation, base::TimePoint) {
  lost_.Insert(incarnation);
  std::vector<TransferKey> keys;
  for (const auto& [key, transfer] : transfers_) {
    if (transfer.offer.peer.incarnation == incarnation) keys.push_back(key);
  }
  for (const TransferKey& key : keys) {
    const bool told = transfers_.at(key).state == Transfer::State::kAborting;
    Erase(key);
    if (told) continue;
    actions_.emplace_back(TransferFailed{key, absl::UnavailableError("peer lost"), incarnation});
  }
  auto it = peers_.find(incarnation);
  if (it == peers_.end()) return;
  it->second.early.clear();
  // Sends under way keep their buffers until the transport has let go of them.
  if (it->second.sends.empty()) {
    peers_.erase(it);
  } else {
    actions_.emplace_back(AbortPeer{incarnation});
  }
}

void TransferSender::AddPeers(std::set<Incarnation>* peers) const {
  for (const auto& [key, transfer] : transfers_) peers->insert(transfer.offer.peer.incarnation);
}

// ---- time ---------------------------------------------------------------------------------------

base::TimePoint TransferSender::Transfer::GivesUpAt() const {
  if (!WaitsForPeer()) return base::kNever;
  return std::min(heard_at + kLinkSilence, moved_at + kLinkStall);
}

void TransferSender::OnTime(base::TimePoint now) {
  std::vector<TransferKey> out_of_reach;
  for (auto& [key, transfer] : transfers_) {
    if (transfer.GivesUpAt() <= now) {
      out_of_reach.push_back(key);
    } else if (transfer.retry_at <= now) {
      RepeatMessages(transfer, now);
    }
  }
  for (const TransferKey& key : out_of_reach) {
    Fail(key, absl::UnavailableError("peer is out of reach"), now);
  }
}

base::TimePoint TransferSender::NextDeadline() const {
  base::TimePoint next = base::kNever;
  for (const auto& [key, transfer] : transfers_) {
    next = std::min({next, transfer.retry_at, transfer.GivesUpAt()});
  }
  return next;
}

void TransferSender::RepeatMessages(Transfer& transfer, base::TimePoint now) {
  transfer.retry_at = now + kTransferRetry;
  switch (transfer.state) {
    case Transfer::State::kOffered:
      SendOffer(transfer);
      break;
    case Transfer::State::kGranted:
      for (const auto& [index, piece] : transfer.pieces) {
        if (!piece.acknowledged) SendReady(transfer, piece);
      }
      break;
    case Transfer::State::kAborting:
      if (Peer& peer = peers_.at(transfer.offer.peer.incarnation);
          now - std::max(peer.heard_at, transfer.moved_at) >= kLinkSilence) {
        DropBytes(transfer, peer);
      }
      Tell(transfer.offer.peer, AbortTransfer{transfer.offer.key});
      break;
  }
}

// ---- parts --------------------------------------------------------------------------------------

TransferSender::Transfer* TransferSender::Find(const TransferKey& key, Incarnation peer) {
  auto it = transfers_.find(key);
  if (it == transfers_.end() || it->second.offer.peer.incarnation != peer) return nullptr;
  return &it->second;
}

void TransferSender::SendOffer(const Transfer& transfer) {
  Tell(transfer.offer.peer, scheduler::Offer{.key = transfer.offer.key,
                                             .fingerprint = fingerprint_,
                                             .kind = transfer.offer.kind,
                                             .heads = transfer.offer.heads,
                                             .from_token = transfer.offer.from_token,
                                             .num_tokens = transfer.offer.num_tokens,
                                             .bytes = transfer.offer.bytes});
}

void TransferSender::SendReady(const Transfer& transfer, const Piece& piece) {
  const StagedPiece& staged = piece.staged;
  Tell(transfer.offer.peer, Ready{.key = staged.key,
                                  .index = staged.index,
                                  .range = staged.range,
                                  .bytes = staged.buffer.bytes,
                                  .checksum = staged.checksum,
                                  .position = staged.position,
                                  .first_token = staged.first_token});
}

// Tells the receiver. Pieces that it was told to be ready stay until it has answered that it will
// ask for none of them: a Go may be on its way.
void TransferSender::Stop(const TransferKey& key, base::TimePoint now) {
  auto it = transfers_.find(key);
  if (it == transfers_.end() || it->second.state == Transfer::State::kAborting) return;
  Transfer& transfer = it->second;
  Tell(transfer.offer.peer, AbortTransfer{key});
  if (transfer.num_open == 0) return Erase(key);
  transfer.state = Transfer::State::kAborting;
  transfer.retry_at = now + kTransferRetry;
}

void TransferSender::Erase(const TransferKey& key) {
  auto it = transfers_.find(key);
  const Incarnation peer = it->second.offer.peer.incarnation;
  for (const auto& [index, piece] : it->second.pieces) {
    if (piece.dropped) {
      if (--peers_.at(peer).dropped == 0) actions_.emplace_back(StagingFree{});
    } else if (!piece.acknowledged) {
      PieceOver(peer, piece);
    }
  }
  transfers_.erase(it);
}

void TransferSender::Fail(const TransferKey& key, absl::Status status, base::TimePoint now) {
  const Incarnation peer = transfers_.at(key).offer.peer.incarnation;
  Stop(key, now);
  const bool reach = absl::IsUnavailable(status);
  actions_.emplace_back(TransferFailed{key, std::move(status), reach ? peer : Incarnation()});
}

void TransferSender::PieceOver(Incarnation incarnation, const Piece& piece) {
  auto it = peers_.find(incarnation);
  if (it != peers_.end()) {
    std::erase_if(it->second.sends, [&](const auto& entry) {
      return entry.second.buffer == piece.staged.buffer && !entry.second.posted;
    });
  }
  Unwant(piece.staged.buffer.id);
}

void TransferSender::Unwant(BufferId buffer) {
  auto it = buffers_.find(buffer);
  if (it == buffers_.end()) return;
  it->second.wanted = false;
  ReleaseIfIdle(buffer);
}

void TransferSender::ReleaseIfIdle(BufferId buffer) {
  auto it = buffers_.find(buffer);
  if (it->second.wanted || it->second.posted > 0) return;
  buffers_.erase(it);
  arena_.Release(buffer);
  actions_.emplace_back(StagingFree{});
}

void TransferSender::Tell(const PeerAddress& peer, TransferMessage message) {
  actions_.emplace_back(SendTransfer{peer, std::move(message)});
}

}  // namespace triptych::scheduler
