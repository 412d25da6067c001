#pragma once

// Simulated time and a simulated network. Everything that happens is an event at a process; events
// at one time happen in the order in which they were made. A stream keeps its order, and loses what
// is on it when it is reset. One thread, one seed.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "base/clock.h"
#include "base/random.h"
#include "scheduler/plan/ids.h"
#include "transport/loopback/loopback_transport.h"

namespace triptych::simulation {

using scheduler::Incarnation;

// One life of one process.
class Process {
 public:
  explicit Process(Incarnation id) : id_(id) {}
  virtual ~Process() = default;
  Incarnation id() const { return id_; }
  // Called after each event: carries actions out.
  virtual void AfterEvent() = 0;
  virtual base::TimePoint NextWake() const = 0;
  virtual void Wake() = 0;

  base::TimePoint frozen_until{};

 private:
  friend class World;
  const Incarnation id_;
  base::TimePoint wake_at_ = base::kNever;
};

// Chances of trouble, each for one message or piece.
struct Faults {
  double reset_stream = 0;  // before this message: what is on the stream is lost, and so is it
  double duplicate = 0;
  double slow = 0;        // up to 300 ms instead of up to 2
  double break_link = 0;  // between workers: bytes and words that are under way, in both directions
  double piece_drop = 0, piece_corrupt = 0, piece_delay = 0;
  double repeat_control = 0;  // heard again: at once, or by workers also much later
  double engine_error = 0;    // logits that are not finite, media that cannot be read
};

enum class Stream : uint8_t { kControl, kTransfer, kTokens, kReplies, kPull };

class World {
 public:
  explicit World(uint64_t seed);

  base::TimePoint now() const { return clock.Now(); }
  Process* Find(Incarnation id);
  void Add(Process* process) { processes_[process->id()] = process; }
  // The process has died: events at it do not happen any more.
  void Remove(Incarnation id) { processes_.erase(id); }
  Incarnation NewIncarnation() { return Incarnation(++last_incarnation_); }

  // `event` happens at `process` after `delay`, unless it has died by then; later if it is frozen.
  void At(base::Duration delay, Incarnation process, std::function<void()> event);
  // Without a process.
  void At(base::Duration delay, std::function<void()> event);

  // A message of a stream, delivered in order; `on_reset` when the stream breaks instead.
  void Send(Stream stream, Incarnation from, Incarnation to, std::function<void()> deliver,
            std::function<void()> on_reset = nullptr);
  void Reset(Stream stream, Incarnation from, Incarnation to);
  // Nothing from `from` reaches `to` for this long (of all streams and pieces, or of one stream);
  // the other direction flows. A stream that lost a message breaks when the time is over.
  void Block(Incarnation from, Incarnation to, base::Duration time,
             std::optional<Stream> only = std::nullopt);
  bool IsBlocked(Stream stream, Incarnation from, Incarnation to) const;
  base::Duration Delay();

  // Something was posted to the hub: pieces move a little later.
  void MovePieces();

  // The next event; false when there is none before `until`.
  bool Step(base::TimePoint until);

  base::SimulatedClock clock;
  base::SeededRandom random;
  Faults faults;
  transport::LoopbackHub hub;

 private:
  struct Event {
    Incarnation process;  // 0: none
    std::function<void()> run;
  };
  struct StreamState {
    uint64_t generation = 0;
    base::TimePoint last{};
  };
  using StreamKey = std::tuple<Stream, Incarnation, Incarnation>;

  void Push(base::TimePoint at, Event event);
  void BreakLink(Incarnation a, Incarnation b);
  void Schedule(Process* process);
  void Lose(const StreamKey& key, std::function<void()> on_reset);
  bool IsCut(Incarnation from, Incarnation to) const;
  transport::LoopbackFault PieceFault(const transport::LoopbackOperation& operation);

  std::map<Incarnation, Process*> processes_;
  std::map<std::pair<base::TimePoint, uint64_t>, Event> events_;
  std::map<StreamKey, StreamState> streams_;
  std::map<std::pair<Incarnation, Incarnation>, base::TimePoint> cut_until_;
  std::map<StreamKey, base::TimePoint> stream_cut_until_;
  uint64_t next_event_ = 1;
  uint64_t last_incarnation_ = 0;
};

}  // namespace triptych::simulation
