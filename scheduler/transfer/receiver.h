#pragma once

// All incoming transfers of one worker: the consumers' side of the handshake, the order of receives
// from each peer, and the budget of landing memory. Only what a consumer reserved, from the
// producer that its table names, with the length and checksum that were announced, is ever let in.
//
// A landing buffer lives until its receive is done and, if the piece was good, until the owner has
// said Imported(). One thread.

#include <cstdint>
#include <deque>
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

// What a consumer has reserved room for. `producer` may be unknown yet (see Rebind).
struct Expectation {
  TaskId consumer;
  int32_t item = -1;  // KV: -1
  std::optional<TaskId> producer;
  TransferKind kind = TransferKind::kKv;
  int32_t num_tokens = 0;  // embeddings: at most
  int32_t num_layers = 1;  // KV; embeddings have no layers
  int64_t bytes = 0;       // of num_tokens; each piece has its share by tokens and layers
  int32_t from_token = 0;  // earlier ones are there
  HeadRange heads;
};

class TransferReceiver {
 public:
  // `landing` is the region that pieces are received into. Larger pieces than `max_piece_bytes`,
  // which it must hold, are refused.
  TransferReceiver(std::string fingerprint, TransferMemory landing, int64_t max_piece_bytes);

  // The reservation exists: offers are granted from now on, those that were parked at once. A
  // (consumer, item) that is known is left alone.
  void Expect(const Expectation& expectation, base::TimePoint now);
  // The input comes from another producer: what the old one sent is dropped. The same producer
  // again, an unknown consumer, or an input that has been received: nothing changes.
  void Rebind(const TaskId& consumer, const InputProducer& input, base::TimePoint now);
  // The consumer is over. Receives under way complete and are dropped.
  void Forget(const TaskId& consumer, base::TimePoint now);

  // Offer, Ready, AbortTransfer of that peer; others are ignored.
  void Handle(Incarnation peer, const TransferMessage& message, base::TimePoint now);
  void OnReceived(Incarnation peer, uint64_t sequence, const absl::Status& status,
                  uint64_t checksum, base::TimePoint now);
  // After PieceLanded: no step reads the buffer any more. Must follow each PieceLanded, whether the
  // piece was imported or its consumer is over.
  void Imported(BufferId buffer, base::TimePoint now);
  // For good: its messages are ignored from now on.
  void PeerLost(Incarnation peer, base::TimePoint now);

  void OnTime(base::TimePoint now);
  base::TimePoint NextDeadline() const;
  std::vector<TransferAction> TakeActions() { return std::exchange(actions_, {}); }

  // Bytes of landing buffers in use; 0 at rest.
  int64_t landing_bytes() const { return arena_.held_bytes(); }
  const BufferArena& arena() const { return arena_; }
  // Adds those from whom something is received or granted.
  void AddPeers(std::set<Incarnation>* peers) const;
  int num_inputs() const { return static_cast<int>(inputs_.size()); }
  int num_parked() const { return static_cast<int>(parked_.size()); }
  // CHECKs what must hold between events; looks at everything, so only tests call it.
  void CheckInvariants() const;

 private:
  using InputId = std::pair<TaskId, int32_t>;  // consumer, item
  struct Piece {
    Ready ready;
    enum class State : uint8_t { kWaiting, kGoing, kLanded } state = State::kWaiting;
    uint64_t sequence = 0;
  };
  // One granted offer.
  struct Attempt {
    TransferKey key;
    Incarnation peer;
    int32_t num_tokens = 0;  // that the output has
    int64_t bytes = 0;       // of all pieces
    std::map<int32_t, Piece> pieces;
    int64_t landed_bytes = 0;
  };
  struct Input {
    Expectation expectation;
    std::optional<Attempt> attempt;
    uint32_t ended_attempts = 0;  // attempts of this producer up to here are over
    int32_t received_pieces = 0;  // once received
    bool received = false;
  };
  struct Receive {
    TransferKey key;
    int32_t index = 0;
    PieceBuffer buffer;
    uint64_t checksum = 0;
  };
  // The link from one peer. Its order outlives every transfer.
  struct Peer {
    uint64_t connection = 0;  // counts receives that broke
    uint64_t last_sequence = 0;
    std::map<uint64_t, Receive> receives;  // under way
  };
  struct Parked {
    Incarnation peer;
    Offer offer;
    base::TimePoint until;
  };
  struct Waiting {
    TransferKey key;
    int32_t index = 0;
  };

  void OnMessage(Incarnation peer, const Offer& offer, base::TimePoint now);
  void OnMessage(Incarnation peer, const Ready& ready, base::TimePoint now);
  void OnMessage(Incarnation peer, const AbortTransfer& abort, base::TimePoint now);
  template <typename Other>
  void OnMessage(Incarnation, const Other&, base::TimePoint) {}

  Input* Find(const TransferKey& key);
  Piece* FindPiece(const TransferKey& key, int32_t index);
  void Park(Incarnation peer, const Offer& offer, base::TimePoint now);
  void TakeParked(const InputId& id, base::TimePoint now);
  void Answer(Incarnation peer, const Offer& offer, Input& input);
  void RepeatAnswer(Incarnation peer, const Piece& piece);
  bool Fits(const Input& input, const Offer& offer) const;
  bool Fits(const Input& input, const Ready& ready) const;
  void GiveGo();
  void SayGo(Incarnation incarnation, const Peer& peer, uint64_t sequence);
  void Land(const Receive& receive, Piece& piece, Incarnation peer);
  void Complete(Input& input);
  void EndAttempt(Input& input);
  void Say(Incarnation peer, TransferMessage message);
  void Refuse(Incarnation peer, const TransferKey& key, Deny::Reason reason);

  const std::string fingerprint_;
  const int64_t max_piece_bytes_;
  BufferArena arena_;
  std::map<InputId, Input> inputs_;
  std::map<Incarnation, Peer> peers_;
  std::deque<Parked> parked_;    // by time
  std::deque<Waiting> waiting_;  // for landing memory, in order of arrival; may name what is over
  Remembered<Incarnation> lost_{kMaxRemembered};
  Remembered<TaskId> over_{kMaxRemembered};
  std::vector<TransferAction> actions_;
};

}  // namespace triptych::scheduler
