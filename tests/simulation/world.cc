#include "tests/simulation/world.h"

#include <algorithm>

namespace triptych::simulation {

using std::chrono::microseconds;
using std::chrono::milliseconds;

World::World(uint64_t seed)
    : random(seed),
      hub([this](const transport::LoopbackOperation& piece) { return PieceFault(piece); }) {}

Process* World::Find(Incarnation id) {
  auto it = processes_.find(id);
  return it == processes_.end() ? nullptr : it->second;
}

void World::Push(base::TimePoint at, Event event) {
  events_.emplace(std::make_pair(at, next_event_++), std::move(event));
}

void World::At(base::Duration delay, Incarnation process, std::function<void()> event) {
  Push(now() + delay, {process, std::move(event)});
}

void World::At(base::Duration delay, std::function<void()> event) {
  Push(now() + delay, {Incarnation(), std::move(event)});
}

base::Duration World::Delay() {
  const bool slow = random.Chance(faults.slow);
  return microseconds(random.Between(50, slow ? 300000 : 2000));
}

void World::Send(Stream stream, Incarnation from, Incarnation to, std::function<void()> deliver,
                 std::function<void()> on_reset) {
  if (random.Chance(faults.reset_stream)) {
    Reset(stream, from, to);
    if (on_reset) At(Delay(), from, std::move(on_reset));
    return;
  }
  if (stream == Stream::kTransfer && random.Chance(faults.break_link)) return BreakLink(from, to);
  StreamState& state = streams_[{stream, from, to}];
  if (IsBlocked(stream, from, to)) return Lose({stream, from, to}, std::move(on_reset));
  state.last = std::max(state.last, now() + Delay());
  const bool twice =
      stream != Stream::kControl && stream != Stream::kPull && random.Chance(faults.duplicate);
  for (int i = 0; i < (twice ? 2 : 1); ++i) {
    auto arrive = [this, key = StreamKey(stream, from, to), generation = state.generation,
                   deliver] {
      if (streams_[key].generation == generation) deliver();
    };
    Push(state.last, {to, std::move(arrive)});
  }
}

void World::BreakLink(Incarnation a, Incarnation b) {
  for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
    Reset(Stream::kTransfer, from, to);
    hub.Break(from, to);
  }
  MovePieces();
}

void World::Reset(Stream stream, Incarnation from, Incarnation to) {
  ++streams_[{stream, from, to}].generation;
}

void World::Block(Incarnation from, Incarnation to, base::Duration time,
                  std::optional<Stream> only) {
  base::TimePoint& until =
      only.has_value() ? stream_cut_until_[{*only, from, to}] : cut_until_[{from, to}];
  until = std::max(until, now() + time);
  // Bytes wait for it, as a stalled connection makes them.
  if (!only.has_value()) At(time, [this] { hub.RunPending(); });
}

bool World::IsCut(Incarnation from, Incarnation to) const {
  auto it = cut_until_.find({from, to});
  return it != cut_until_.end() && it->second > now();
}

bool World::IsBlocked(Stream stream, Incarnation from, Incarnation to) const {
  auto it = stream_cut_until_.find({stream, from, to});
  return IsCut(from, to) || (it != stream_cut_until_.end() && it->second > now());
}

// Its sender learns of it when the block is over; all that was sent until then is lost.
void World::Lose(const StreamKey& key, std::function<void()> on_reset) {
  const auto& [stream, from, to] = key;
  const base::TimePoint over = std::max(cut_until_[{from, to}], stream_cut_until_[key]);
  At(over - now(), from, [this, key, on_reset = std::move(on_reset)] {
    ++streams_[key].generation;
    if (on_reset) on_reset();
  });
}

void World::MovePieces() {
  At(Delay(), [this] { hub.RunPending(); });
}

transport::LoopbackFault World::PieceFault(const transport::LoopbackOperation& operation) {
  if (IsCut(operation.from, operation.to)) return transport::LoopbackFault::kDelay;
  if (random.Chance(faults.piece_drop)) return transport::LoopbackFault::kDrop;
  if (random.Chance(faults.piece_corrupt)) return transport::LoopbackFault::kCorrupt;
  if (random.Chance(faults.piece_delay)) {
    At(milliseconds(random.Between(1, 400)), [this] { hub.RunPending(); });
    return transport::LoopbackFault::kDelay;
  }
  return transport::LoopbackFault::kNone;
}

void World::Schedule(Process* process) {
  const base::TimePoint wake = process->NextWake();
  if (wake == base::kNever || wake >= process->wake_at_) return;
  process->wake_at_ = wake;
  const Incarnation id = process->id();
  Push(std::max(wake, now()), {id, [this, id] {
                                 Process* sleeper = Find(id);
                                 sleeper->wake_at_ = base::kNever;
                                 sleeper->Wake();
                               }});
}

bool World::Step(base::TimePoint until) {
  if (events_.empty() || events_.begin()->first.first > until) {
    clock.Set(std::max(now(), until));
    return false;
  }
  auto node = events_.extract(events_.begin());
  clock.Set(std::max(now(), node.key().first));
  Event event = std::move(node.mapped());
  if (event.process == Incarnation()) {
    event.run();
    return true;
  }
  Process* process = Find(event.process);
  if (process == nullptr) return true;
  if (process->frozen_until > now()) {
    // Under its number: what was frozen with it, or later, stays behind it.
    events_.emplace(std::make_pair(process->frozen_until, node.key().second), std::move(event));
    return true;
  }
  event.run();
  // The event may have been its end.
  process = Find(event.process);
  if (process == nullptr) return true;
  process->AfterEvent();
  Schedule(process);
  return true;
}

}  // namespace triptych::simulation
