// What must hold of both ends of transfers between any two events. Tests call it; production does
// not: it looks at everything.

#include <map>

#include "base/check.h"
#include "scheduler/transfer/receiver.h"
#include "scheduler/transfer/sender.h"

namespace triptych::scheduler {

void TransferSender::CheckInvariants() const {
  CHECK_EQ(static_cast<int>(buffers_.size()), arena_.num_held());
  std::map<Incarnation, int> dropped;
  for (const auto& [key, transfer] : transfers_) {
    CHECK_TRUE(transfer.offer.key == key && peers_.contains(transfer.offer.peer.incarnation));
    CHECK_TRUE(!lost_.Contains(transfer.offer.peer.incarnation));
    int32_t open = 0;
    for (const auto& [index, piece] : transfer.pieces) {
      if (piece.acknowledged) continue;
      ++open;
      CHECK_TRUE(!piece.dropped || transfer.state == Transfer::State::kAborting);
      if (piece.dropped) ++dropped[transfer.offer.peer.incarnation];
      if (piece.dropped) continue;
      const auto buffer = buffers_.find(piece.staged.buffer.id);
      CHECK_TRUE(buffer != buffers_.end() && buffer->second.wanted);
    }
    CHECK_EQ(open, transfer.num_open);
    // Somebody hears of it in the end: it is repeated until it is over.
    CHECK_TRUE(transfer.retry_at != base::kNever);
  }
  std::map<BufferId, int> posted;
  for (const auto& [incarnation, peer] : peers_) {
    CHECK_EQ(peer.dropped, dropped[incarnation]);
    CHECK_LE(peer.early.size(), static_cast<size_t>(kMaxRemembered));
    CHECK_TRUE(peer.early.empty() || peer.early.begin()->first >= peer.next_sequence);
    for (const auto& [sequence, send] : peer.sends) {
      CHECK_TRUE(arena_.Holds(send.buffer.id));
      CHECK_LT(sequence, peer.next_sequence);
      if (send.posted) ++posted[send.buffer.id];
    }
  }
  for (const auto& [id, buffer] : buffers_) {
    CHECK_TRUE(arena_.Holds(id));
    CHECK_TRUE(buffer.wanted || buffer.posted > 0);
    CHECK_EQ(buffer.posted, posted[id]);
  }
}

void TransferReceiver::CheckInvariants() const {
  CHECK_LE(parked_.size(), static_cast<size_t>(kMaxParked));
  for (const Parked& parked : parked_) CHECK_TRUE(!over_.Contains(parked.offer.key.consumer));
  int waiting = 0;
  for (const auto& [id, input] : inputs_) {
    CHECK_TRUE(!over_.Contains(id.first));
    if (!input.attempt.has_value()) continue;
    const Attempt& attempt = *input.attempt;
    CHECK_EQ(input.received, attempt.landed_bytes == attempt.bytes);
    int64_t landed = 0;
    for (const auto& [index, piece] : attempt.pieces) {
      waiting += piece.state == Piece::State::kWaiting ? 1 : 0;
      if (piece.state == Piece::State::kLanded) landed += piece.ready.bytes;
      if (piece.state != Piece::State::kGoing) continue;
      const Receive& receive = peers_.at(attempt.peer).receives.at(piece.sequence);
      CHECK_TRUE(receive.key == attempt.key && receive.index == index);
    }
    CHECK_EQ(landed, attempt.landed_bytes);
  }
  CHECK_LE(waiting, static_cast<int>(waiting_.size()));
  for (const auto& [incarnation, peer] : peers_) {
    for (const auto& [sequence, receive] : peer.receives) {
      CHECK_TRUE(arena_.Holds(receive.buffer.id));
      CHECK_LE(sequence, peer.last_sequence);
    }
  }
}

}  // namespace triptych::scheduler
