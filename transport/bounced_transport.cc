#include "transport/bounced_transport.h"

#include <optional>
#include <utility>

namespace triptych::transport {
namespace {

std::optional<base::MemoryRef> TwinOf(const TwinRegion& region, const base::MemoryRef& piece) {
  const auto* const begin = static_cast<const uint8_t*>(region.device.data);
  const auto* const data = static_cast<const uint8_t*>(piece.data);
  if (piece.space != region.device.space || data < begin || piece.bytes > region.device.bytes ||
      data - begin > region.device.bytes - piece.bytes) {
    return std::nullopt;
  }
  return region.host.Sub(data - begin, piece.bytes);
}

absl::Status Outside() { return absl::FailedPreconditionError("memory outside of the region"); }

}  // namespace

BouncedTransport::~BouncedTransport() {
  base::MutexLock lock(&state_->mutex);
  state_->closed = true;
  while (state_->copies > 0) state_->copied.Wait(&state_->mutex);
}

void BouncedTransport::Copy(const std::shared_ptr<State>& state, PeerCopier& copier,
                            const base::MemoryRef& to, const base::MemoryRef& from, OnDone next,
                            const OnDone& on_done) {
  {
    base::MutexLock lock(&state->mutex);
    if (!state->closed)
      ++state->copies;
    else
      next = nullptr;
  }
  if (next == nullptr) return on_done(absl::AbortedError("transfer aborted"));
  copier.Copy(to, from, [state, next = std::move(next)](absl::Status copied) {
    next(std::move(copied));
    base::MutexLock lock(&state->mutex);
    if (--state->copies == 0) state->copied.NotifyAll();
  });
}

void BouncedTransport::Send(scheduler::Incarnation peer, const std::string& address,
                            uint64_t sequence, base::MemoryRef bytes, OnDone on_done) {
  if (bytes.data == nullptr) return inner_.Send(peer, address, sequence, bytes, std::move(on_done));
  const std::optional<base::MemoryRef> host = TwinOf(staging_, bytes);
  if (!host.has_value()) return on_done(Outside());
  Copy(
      state_, copier_, *host, bytes,
      [this, peer, address, sequence, host = *host, on_done](const absl::Status& copied) {
        if (!copied.ok()) return on_done(copied);
        inner_.Send(peer, address, sequence, host, on_done);
      },
      on_done);
}

void BouncedTransport::Receive(scheduler::Incarnation peer, uint64_t sequence,
                               base::MemoryRef landing, OnDone on_done) {
  if (landing.data == nullptr) return inner_.Receive(peer, sequence, landing, std::move(on_done));
  const std::optional<base::MemoryRef> host = TwinOf(landing_, landing);
  if (!host.has_value()) return on_done(Outside());
  inner_.Receive(peer, sequence, *host,
                 [state = state_, &copier = copier_, landing, host = *host,
                  on_done](const absl::Status& received) {
                   if (!received.ok()) return on_done(received);
                   Copy(state, copier, landing, host, on_done, on_done);
                 });
}

}  // namespace triptych::transport
