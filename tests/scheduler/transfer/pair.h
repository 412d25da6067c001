#pragma once

// A sender and a receiver in one thread, with everything between them in the test's hands: messages
// and pieces wait until the test carries them over, loses them or repeats them.

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "scheduler/transfer/receiver.h"
#include "scheduler/transfer/sender.h"

namespace triptych::scheduler::testing {

inline constexpr Incarnation kProducerWorker{1}, kConsumerWorker{2};

inline TaskId Task(uint64_t number) { return TaskId{SchedulerId{1, Incarnation(9)}, number}; }
inline TransferKey Key(uint64_t producer, uint64_t consumer, int32_t item = -1,
                       uint32_t attempt = 1) {
  return TransferKey{Task(producer), Task(consumer), item, attempt};
}

class Pair {
 public:
  static constexpr int64_t kBytesAToken = 10;
  static constexpr int64_t kMaxPieceBytes = 1000;

  explicit Pair(int64_t staging = 1 << 20, int64_t landing = 1 << 20)
      : sender("model", {.bytes = staging}),
        receiver("model", {.bytes = landing}, std::min(landing, kMaxPieceBytes)) {}

  // ---- what the owners say ----
  void Expect(const TransferKey& key, int32_t tokens) {
    receiver.Expect({.consumer = key.consumer,
                     .item = key.item,
                     .producer = key.producer,
                     .kind = key.item < 0 ? TransferKind::kKv : TransferKind::kEmbedding,
                     .num_tokens = tokens,
                     .bytes = tokens * kBytesAToken},
                    clock.Now());
    Collect();
  }
  void Offer(const TransferKey& key, int32_t tokens) {
    sender.Offer({.key = key,
                  .peer = {kConsumerWorker, "consumer"},
                  .kind = key.item < 0 ? TransferKind::kKv : TransferKind::kEmbedding,
                  .num_tokens = tokens,
                  .bytes = tokens * kBytesAToken},
                 clock.Now());
    Collect();
  }
  bool Reserve(const TransferKey& key, int32_t tokens, PieceBuffer* buffer) {
    const auto reserved = sender.ReserveStaging(key, tokens * kBytesAToken);
    Collect();
    if (reserved.has_value()) *buffer = *reserved;
    return reserved.has_value();
  }
  void Staged(const TransferKey& key, int32_t index, int32_t begin, int32_t end, bool last,
              PieceBuffer buffer) {
    const auto kind = key.item < 0 ? TransferKind::kKv : TransferKind::kEmbedding;
    StagedPiece piece{.key = key,
                      .index = index,
                      .range = {kind, begin, end, 0, kind == TransferKind::kKv ? 1 : 0},
                      .buffer = buffer,
                      .checksum = Checksum(key, index)};
    if (last) piece.position = Ready::Position::kLast;
    if (last && kind == TransferKind::kKv) piece.first_token = FirstToken{0, {.token = 7}};
    sender.PieceStaged(piece, clock.Now());
    Collect();
  }
  bool Stage(const TransferKey& key, int32_t index, int32_t begin, int32_t end, bool last) {
    PieceBuffer buffer;
    if (!Reserve(key, end - begin, &buffer)) return false;
    Staged(key, index, begin, end, last, buffer);
    return true;
  }
  static uint64_t Checksum(const TransferKey& key, int32_t index) {
    return key.producer.number * 1000 + static_cast<uint64_t>(index);
  }

  // ---- the channel ----
  // Carries one message over; false when none waits.
  bool CarryToReceiver() { return Carry(&to_receiver, &receiver, kProducerWorker); }
  bool CarryToSender() { return Carry(&to_sender, &sender, kConsumerWorker); }
  // Completes the oldest operation that both sides have posted.
  bool MovePiece(absl::Status status = absl::OkStatus(), uint64_t flip = 0) {
    for (const auto& [sequence, send] : sends) {
      const uint64_t moved = sequence;
      if (receives.count(moved) == 0) {
        if (done.count(moved) == 0) continue;
        // Received before: transport drops it on arrival.
        sends.erase(moved);
        sender.OnSent(kConsumerWorker, moved, absl::OkStatus(), clock.Now());
        Collect();
        return true;
      }
      done.insert(moved);
      receives.erase(moved);
      sends.erase(moved);
      sender.OnSent(kConsumerWorker, moved, status, clock.Now());
      Collect();
      receiver.OnReceived(kProducerWorker, moved, status, expected_checksum.at(moved) ^ flip,
                          clock.Now());
      Collect();
      return true;
    }
    return false;
  }
  // The byte stream breaks: every operation that is posted fails at its end, heard of by the other
  // or not.
  void BreakBytes() {
    const absl::Status broken = absl::UnavailableError("broken");
    for (const auto& [sequence, send] : std::exchange(sends, {})) {
      sender.OnSent(kConsumerWorker, sequence, broken, clock.Now());
    }
    for (const auto& [sequence, receive] : std::exchange(receives, {})) {
      done.insert(sequence);  // its bytes are dropped, should they come
      receiver.OnReceived(kProducerWorker, sequence, broken, 0, clock.Now());
    }
    Collect();
  }
  // Everything that can happen without a fault and without time, imports included.
  void Settle() {
    bool more = true;
    while (more) {
      more = CarryToReceiver();
      more = CarryToSender() || more;
      more = MovePiece() || more;
      more = ImportAll() || more;
    }
  }
  bool ImportAll() {
    const auto pieces = std::exchange(landed, {});
    for (const PieceLanded& piece : pieces) {
      receiver.Imported(piece.buffer.id, clock.Now());
      Collect();
    }
    return !pieces.empty();
  }
  void Wait(base::Duration time) {
    clock.Advance(time);
    sender.OnTime(clock.Now());
    receiver.OnTime(clock.Now());
    Collect();
  }
  void WaitAndSettle() {
    for (int i = 0; i < 8; ++i) {
      Settle();
      Wait(std::chrono::milliseconds(250));
    }
  }
  void LoseMessages() {
    to_receiver.clear();
    to_sender.clear();
  }

  int num_buffers() const { return sender.arena().num_held() + receiver.arena().num_held(); }
  bool AtRest() const {
    return sender.staged_bytes() == 0 && receiver.landing_bytes() == 0 && num_buffers() == 0;
  }

  void Collect() {
    for (TransferAction& action : sender.TakeActions()) {
      if (auto* message = std::get_if<SendTransfer>(&action)) {
        to_receiver.push_back(message->message);
      } else {
        std::visit([&](auto& a) { Do(a); }, action);
      }
    }
    for (TransferAction& action : receiver.TakeActions()) {
      if (auto* message = std::get_if<SendTransfer>(&action)) {
        if (auto* go = std::get_if<Go>(&message->message)) {
          expected_checksum[go->sequence] = Checksum(go->key, go->index);
        }
        to_sender.push_back(message->message);
      } else {
        std::visit([&](auto& a) { Do(a); }, action);
      }
    }
    sender.CheckInvariants();
    receiver.CheckInvariants();
    // What moves keeps its memory.
    for (const auto& [sequence, send] : sends) CHECK_TRUE(sender.arena().Holds(send.buffer.id));
    for (const auto& [sequence, receive] : receives) {
      CHECK_TRUE(receiver.arena().Holds(receive.buffer.id));
    }
  }

  base::SimulatedClock clock;
  TransferSender sender;
  TransferReceiver receiver;
  std::deque<TransferMessage> to_receiver, to_sender;
  std::map<uint64_t, PostSend> sends;
  std::map<uint64_t, PostReceive> receives;
  std::set<uint64_t> done;  // sequences that were received
  std::map<uint64_t, uint64_t> expected_checksum;
  std::vector<TransferKey> granted, delivered;
  std::vector<TransferFailed> failed;
  std::vector<PieceLanded> landed;
  std::vector<TransferReceived> received;
  int aborts = 0;
  int repeated_sends = 0;

 private:
  template <typename Machine>
  bool Carry(std::deque<TransferMessage>* messages, Machine* machine, Incarnation from) {
    if (messages->empty()) return false;
    const TransferMessage message = messages->front();
    messages->pop_front();
    machine->Handle(from, message, clock.Now());
    Collect();
    return true;
  }
  void Do(const SendTransfer&) {}
  void Do(const PostSend& post) {
    if (!sends.emplace(post.sequence, post).second) ++repeated_sends;
  }
  void Do(const PostReceive& post) { CHECK_TRUE(receives.emplace(post.sequence, post).second); }
  void Do(const AbortPeer&) { ++aborts; }
  void Do(const TransferGranted& event) { granted.push_back(event.key); }
  void Do(const TransferDelivered& event) { delivered.push_back(event.key); }
  void Do(const TransferFailed& event) { failed.push_back(event); }
  void Do(const StagingFree&) {}
  void Do(const PieceLanded& event) { landed.push_back(event); }
  void Do(const TransferReceived& event) { received.push_back(event); }
};

}  // namespace triptych::scheduler::testing
