#include "transport/cuda_ipc/ipc_transport.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status.h"

namespace triptych::transport {
namespace {

absl::Status Aborted() { return absl::AbortedError("transfer aborted"); }
absl::Status Gone() { return absl::UnavailableError("peer is gone"); }

}  // namespace

absl::StatusOr<std::unique_ptr<IpcTransport>> IpcTransport::Start(IpcOptions options,
                                                                  const base::Clock& clock,
                                                                  PeerCopier* copier) {
  std::unique_ptr<IpcTransport> made(new IpcTransport(std::move(options), clock, copier));
  ASSIGN_OR_RETURN(made->handle_, copier->Export(made->options_.staging));
  CHECK_LE(made->handle_.size(), PeerCopier::kMaxHandleBytes);
  ASSIGN_OR_RETURN(made->listener_, IpcSocket::Listen(made->options_.channel));
  made->wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (made->wake_ < 0) {
    return absl::UnavailableError(absl::StrCat("cuda_ipc: eventfd: ", std::strerror(errno)));
  }
  made->thread_ = std::thread([raw = made.get()] { raw->Run(); });
  return made;
}

IpcTransport::~IpcTransport() {
  Due due;
  {
    base::MutexLock lock(&mutex_);
    stopping_ = true;
    for (auto& [peer, from] : incoming_) from->on_channel = nullptr;
    for (const ChannelPtr& channel : std::vector<ChannelPtr>(channels_)) {
      Close(channel, Aborted(), &due);
    }
  }
  if (wake_ >= 0) Wake();
  if (thread_.joinable()) thread_.join();
  CallAll(due);
  {
    base::MutexLock lock(&mutex_);
    while (copies_ > 0) copied_.Wait(&mutex_);
  }
  if (wake_ >= 0) close(wake_);
}

std::string IpcTransport::TokenFor(Incarnation peer) {
  base::MutexLock lock(&mutex_);
  if (aborted_.contains(peer)) return "";
  const auto [it, fresh] = tokens_.try_emplace(peer);
  if (fresh) it->second = absl::StrFormat("%016x%016x", options_.random(), options_.random());
  return it->second;
}

void IpcTransport::Connect(Incarnation peer, const std::string& channel, const std::string& token,
                           OnChannel on_channel) {
  absl::StatusOr<IpcSocket> socket = IpcSocket::Connect(channel);
  absl::Status failed = socket.status();
  if (failed.ok() && socket->PeerUser() != geteuid()) {
    failed = absl::UnavailableError("cuda_ipc: the channel is another user's");
  }
  if (token.size() > sizeof(IpcMessage::text)) {
    failed = absl::InvalidArgumentError("cuda_ipc: no token");
  }
  {
    base::MutexLock lock(&mutex_);
    if (aborted_.contains(peer)) return;
    if (failed.ok() && incoming_.contains(peer)) return;
    if (failed.ok()) {
      auto connected = std::make_shared<Channel>(*std::move(socket));
      connected->kind = Channel::Kind::kIncoming;
      connected->peer = peer;
      auto from = std::make_shared<Incoming>();
      from->channel = connected;
      from->on_channel = std::move(on_channel);
      from->connect_by = clock_.Now() + kConnectWithin;
      incoming_[peer] = std::move(from);
      channels_.push_back(connected);
      IpcMessage hello{.kind = IpcMessage::Kind::kHello,
                       .sender = peer.value(),
                       .receiver = options_.self.value()};
      hello.set_text(token);
      Say(*connected, hello);
    }
  }
  if (!failed.ok()) return on_channel(failed);
  Wake();
}

void IpcTransport::Send(Incarnation peer, const std::string& /*address*/, uint64_t sequence,
                        base::MemoryRef bytes, OnDone on_done) {
  const auto* const region = static_cast<const uint8_t*>(options_.staging.data);
  const auto* const data = static_cast<const uint8_t*>(bytes.data);
  IpcMessage piece{.kind = IpcMessage::Kind::kPiece, .sequence = sequence, .offset = -1};
  piece.bytes = bytes.bytes;
  if (!bytes.declared_only()) {
    const bool inside = bytes.space == options_.staging.space && data >= region &&
                        bytes.bytes <= options_.staging.bytes &&
                        data - region <= options_.staging.bytes - bytes.bytes;
    if (!inside) {
      return on_done(absl::FailedPreconditionError("cuda_ipc sends out of its region only"));
    }
    piece.offset = data - region;
  }
  absl::Status refused;
  {
    base::MutexLock lock(&mutex_);
    const auto it = outgoing_.find(peer);
    if (aborted_.contains(peer)) {
      refused = Aborted();
    } else if (it == outgoing_.end() || !it->second.channel->open) {
      refused = Gone();
    } else {
      it->second.sends.emplace(sequence, std::move(on_done));
      Say(*it->second.channel, piece);
    }
  }
  if (!refused.ok()) on_done(refused);
}

void IpcTransport::Receive(Incarnation peer, uint64_t sequence, base::MemoryRef landing,
                           OnDone on_done) {
  if (!landing.declared_only() && landing.space != options_.staging.space) {
    return on_done(absl::FailedPreconditionError("cuda_ipc lands where it sends from"));
  }
  Due due;
  {
    base::MutexLock lock(&mutex_);
    const auto it = incoming_.find(peer);
    absl::Status over = aborted_.contains(peer) ? Aborted() : Gone();
    if (it != incoming_.end()) over = it->second->over;
    if (!over.ok()) {
      due.push_back([over, f = std::move(on_done)] { f(over); });
    } else {
      Incoming& from = *it->second;
      from.highest_posted = std::max(from.highest_posted, sequence);
      Posted posted{landing, std::move(on_done)};
      if (const auto early = from.early.find(sequence); early != from.early.end()) {
        const Announced piece = early->second;
        from.early.erase(early);
        Pull(it->second, sequence, std::move(posted), piece, &due);
      } else {
        from.posted[sequence] = std::move(posted);
      }
    }
  }
  CallAll(due);
}

void IpcTransport::Abort(Incarnation peer) {
  Due due;
  {
    base::MutexLock lock(&mutex_);
    aborted_.insert(peer);
    tokens_.erase(peer);
    if (const auto it = incoming_.find(peer); it != incoming_.end()) {
      const IncomingPtr from = it->second;
      from->on_channel = nullptr;
      from->over = Aborted();
      Close(from->channel, Aborted(), &due);
      incoming_.erase(peer);
    }
    if (const auto it = outgoing_.find(peer); it != outgoing_.end()) {
      const ChannelPtr channel = it->second.channel;
      Close(channel, Aborted(), &due);
      outgoing_.erase(peer);
    }
  }
  CallAll(due);
}

void IpcTransport::Pull(const IncomingPtr& from, uint64_t sequence, Posted posted, Announced piece,
                        Due* due) {
  const bool declared = piece.offset < 0;
  if (piece.bytes != posted.landing.bytes || declared != posted.landing.declared_only()) {
    SayRead(*from, sequence);
    due->push_back([f = std::move(posted.on_done)] {
      f(absl::DataLossError("piece differs from what was announced"));
    });
    return;
  }
  if (declared) {
    SayRead(*from, sequence);
    due->push_back([f = std::move(posted.on_done)] { f(absl::OkStatus()); });
    return;
  }
  ++copies_;
  from->copying.insert(sequence);
  const base::MemoryRef bytes = from->region->ref().Sub(piece.offset, piece.bytes);
  copier_.Copy(posted.landing, bytes,
               [this, from, sequence, region = from->region, f = std::move(posted.on_done)](
                   absl::Status status) { OnCopied(from, sequence, std::move(status), f); });
}

// On the copier's thread.
void IpcTransport::OnCopied(const IncomingPtr& from, uint64_t sequence, absl::Status status,
                            const OnDone& on_done) {
  Due due;
  {
    base::MutexLock lock(&mutex_);
    // The owner of what was read may have died meanwhile, and nobody said so yet.
    if (from->over.ok() && from->channel->socket.HungUp()) Close(from->channel, Gone(), &due);
    if (!from->over.ok()) status = from->over;
    from->copying.erase(sequence);
    SayRead(*from, sequence);
  }
  CallAll(due);
  on_done(std::move(status));
  base::MutexLock lock(&mutex_);
  if (--copies_ == 0) copied_.NotifyAll();  // within the lock: who waits may destroy this at once
}

void IpcTransport::SayRead(Incoming& from, uint64_t sequence) {
  Say(*from.channel, {.kind = IpcMessage::Kind::kRead, .sequence = sequence});
}

void IpcTransport::Say(Channel& channel, const IpcMessage& message) {
  if (!channel.open) return;
  if (channel.outbox.empty() && channel.socket.Send(message) == IpcSocket::Result::kDone) return;
  // A broken socket is noticed by the thread that polls it.
  channel.outbox.push_back(message);
  Wake();
}

void IpcTransport::Close(const ChannelPtr& channel, const absl::Status& why, Due* due) {
  if (!channel->open) return;
  channel->open = false;
  channel->outbox.clear();
  channel->socket.Shutdown();
  std::erase(channels_, channel);
  if (const auto it = incoming_.find(channel->peer);
      it != incoming_.end() && it->second->channel == channel) {
    EndIncoming(*it->second, why, due);
  }
  if (const auto it = outgoing_.find(channel->peer);
      it != outgoing_.end() && it->second.channel == channel) {
    EndOutgoing(it->second, why, due);
  }
}

void IpcTransport::EndIncoming(Incoming& from, const absl::Status& why, Due* due) {
  if (from.over.ok()) from.over = why;
  // First: who is told of a lost piece may ask at once for another way.
  if (from.on_channel) {
    due->push_back([f = std::exchange(from.on_channel, nullptr), why] { f(why); });
  }
  for (auto& [sequence, posted] : std::exchange(from.posted, {})) {
    due->push_back([f = std::move(posted.on_done), why] { f(why); });
  }
  from.early.clear();
  from.region = nullptr;  // copies under way hold it
}

void IpcTransport::EndOutgoing(Outgoing& to, const absl::Status& why, Due* due) {
  for (auto& [sequence, on_done] : std::exchange(to.sends, {})) {
    due->push_back([f = std::move(on_done), why] { f(why); });
  }
}

}  // namespace triptych::transport
