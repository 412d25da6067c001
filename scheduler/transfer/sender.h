#pragma once

// All outgoing transfers of one worker: the producers' side of the handshake, the order of sends to
// each peer, and the budget of staging memory. It moves no bytes and knows no engine: the owner
// exports pieces into staging buffers and carries out the actions.
//
// A staged buffer lives until its piece is checked in at the consumer, so that it can be sent
// again, and never less than until every send that was posted from it is done. One thread.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "scheduler/transfer/buffer_arena.h"
#include "scheduler/transfer/remembered.h"
#include "scheduler/transfer/transfer_actions.h"

namespace triptych::scheduler {

// One output for one consumer. `key.attempt` must be higher than that of earlier offers of the same
// (producer, consumer, item).
struct OutgoingTransfer {
  TransferKey key;
  PeerAddress peer;
  TransferKind kind = TransferKind::kKv;
  int32_t num_tokens = 0;
  int64_t bytes = 0;  // of all pieces
  int32_t from_token = 0;
  HeadRange heads;
};

// A piece that an export has written. `index` counts the pieces of its key from 0, in any order.
struct StagedPiece {
  TransferKey key;
  int32_t index = 0;
  CacheRange range;
  PieceBuffer buffer;  // reserved before
  uint64_t checksum = 0;
  Ready::Position position = Ready::Position::kMore;
  std::optional<FirstToken> first_token;
};

class TransferSender {
 public:
  // `staging` is the region that pieces are exported to.
  TransferSender(std::string fingerprint, TransferMemory staging);

  // Starts; the answer is TransferGranted or TransferFailed. A key that is known is left alone.
  void Offer(const OutgoingTransfer& transfer, base::TimePoint now);

  // Before an export is planned: memory for it; then PieceStaged or DropStaged must follow,
  // whatever becomes of the transfer. Nothing: no room now (StagingFree will tell), its peer holds
  // its share, or the key is not granted.
  std::optional<PieceBuffer> ReserveStaging(const TransferKey& key, int64_t bytes);
  // The export is done. When the transfer is over by now, the buffer is only released.
  void PieceStaged(const StagedPiece& piece, base::TimePoint now);
  // The export will not come.
  void DropStaged(BufferId buffer);

  // The producer gives up on it, at any time; no further event is told of this key.
  void Cancel(const TransferKey& key, base::TimePoint now);

  // Grant, Deny, Go, PieceAcknowledged of that peer; others are ignored.
  void Handle(Incarnation peer, const TransferMessage& message, base::TimePoint now);
  void OnSent(Incarnation peer, uint64_t sequence, const absl::Status& status, base::TimePoint now);
  // For good: every transfer to it fails with UNAVAILABLE, now and later.
  void PeerLost(Incarnation peer, base::TimePoint now);

  void OnTime(base::TimePoint now);
  base::TimePoint NextDeadline() const;
  std::vector<TransferAction> TakeActions() { return std::exchange(actions_, {}); }

  // Bytes of staging buffers in use; 0 at rest.
  int64_t staged_bytes() const { return arena_.held_bytes(); }
  const BufferArena& arena() const { return arena_; }
  // Adds those to whom something is under way, or who have not answered that it is over.
  void AddPeers(std::set<Incarnation>* peers) const;
  int num_transfers() const { return static_cast<int>(transfers_.size()); }
  // CHECKs what must hold between events; looks at everything, so only tests call it.
  void CheckInvariants() const;

 private:
  struct Piece {
    StagedPiece staged;
    bool acknowledged = false;
    bool dropped = false;  // its bytes are: nobody wants them, and nobody says so
    int failures = 0;
  };
  struct Transfer {
    OutgoingTransfer offer;
    enum class State : uint8_t { kOffered, kGranted, kAborting } state = State::kOffered;
    std::map<int32_t, Piece> pieces;
    int32_t num_pieces = -1;  // known with the last one
    int32_t num_open = 0;     // of pieces: not acknowledged
    base::TimePoint retry_at = base::kNever;
    base::TimePoint heard_at{};  // the peer's last answer, or since when one is waited for
    base::TimePoint moved_at{};  // the last that brought it on

    bool WaitsForPeer() const {
      return state == State::kOffered || (state == State::kGranted && num_open > 0);
    }
    // When its peer is out of reach unless it answers.
    base::TimePoint GivesUpAt() const;
  };
  struct Buffer {
    int posted = 0;      // sends under way
    bool wanted = true;  // by a piece, or by an export to come
  };
  struct Send {
    PieceBuffer buffer;
    bool posted = true;
    base::TimePoint done_at;
  };
  // The link to one peer. Its order outlives every transfer.
  struct Peer {
    PeerAddress address;
    base::TimePoint heard_at{};      // its last word
    int dropped = 0;                 // pieces whose bytes are gone: nothing new is staged for it
    uint64_t connection = 0;         // the latest that the receiver has named
    uint64_t next_sequence = 1;      // lower ones are posted, or over at the receiver
    std::map<uint64_t, Go> early;    // of which an earlier one is missing
    std::map<uint64_t, Send> sends;  // whose piece is not acknowledged, or that are under way
  };

  void OnMessage(Incarnation peer, const Grant& grant, base::TimePoint now);
  void OnMessage(Incarnation peer, const Deny& deny, base::TimePoint now);
  void OnMessage(Incarnation peer, const Go& go, base::TimePoint now);
  void OnMessage(Incarnation peer, const PieceAcknowledged& acknowledged, base::TimePoint now);
  template <typename Other>
  void OnMessage(Incarnation, const Other&, base::TimePoint) {}

  Transfer* Find(const TransferKey& key, Incarnation peer);
  enum class Followed : uint8_t { kPosted, kNoMemory, kNoSuchPiece };
  Followed Follow(Peer& peer, const Go& go, base::TimePoint now);
  bool HasBuffer(Peer& peer, Piece& piece);
  void DropBytes(Transfer& transfer, Peer& peer);
  void Repeat(Peer& peer, uint64_t sequence, base::TimePoint now);
  void Breach(Incarnation peer, base::TimePoint now);
  void SendOffer(const Transfer& transfer);
  void SendReady(const Transfer& transfer, const Piece& piece);
  void RepeatMessages(Transfer& transfer, base::TimePoint now);
  void Stop(const TransferKey& key, base::TimePoint now);
  void Erase(const TransferKey& key);
  void Fail(const TransferKey& key, absl::Status status, base::TimePoint now);
  void PieceOver(Incarnation peer, const Piece& piece);
  void Unwant(BufferId buffer);
  void ReleaseIfIdle(BufferId buffer);
  void Tell(const PeerAddress& peer, TransferMessage message);

  const std::string fingerprint_;
  BufferArena arena_;
  std::map<TransferKey, Transfer> transfers_;
  std::map<BufferId, Buffer> buffers_;
  std::map<Incarnation, Peer> peers_;
  Remembered<Incarnation> lost_{kMaxRemembered};
  std::vector<TransferAction> actions_;
};

}  // namespace triptych::scheduler
