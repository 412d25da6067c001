// The transport's own thread: what comes over the channels.

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "base/check.h"
#include "transport/cuda_ipc/ipc_transport.h"

namespace triptych::transport {

namespace {

constexpr int kExpiryMs = 500;
// A thread that sleeps is woken tens of microseconds late, several times a piece. So often it asks
// again after it was woken, before it sleeps: about 50 us.
constexpr int kSpins = 50;

}  // namespace

void IpcTransport::Run() {
  int spins = 0;
  while (true) {
    std::vector<ChannelPtr> channels;
    std::vector<pollfd> polled{{.fd = wake_, .events = POLLIN, .revents = 0},
                               {.fd = listener_.fd(), .events = POLLIN, .revents = 0}};
    {
      base::MutexLock lock(&mutex_);
      if (stopping_) return;
      channels = channels_;
      for (const ChannelPtr& channel : channels) {
        const int write = channel->outbox.empty() ? 0 : POLLOUT;
        polled.push_back({.fd = channel->socket.fd(),
                          .events = static_cast<int16_t>(POLLIN | POLLRDHUP | write),
                          .revents = 0});
      }
    }
    const int ready = poll(polled.data(), polled.size(), spins > 0 ? 0 : kExpiryMs);
    if (ready == 0 && spins > 0) {
      --spins;
      continue;
    }
    spins = kSpins;
    if (polled[0].revents != 0) {
      eventfd_t count = 0;
      eventfd_read(wake_, &count);
    }
    if (polled[1].revents != 0) AcceptAll();
    for (size_t i = 0; i < channels.size(); ++i) {
      if (polled[i + 2].revents != 0) Serve(channels[i]);
    }
    Expire(clock_.Now());
  }
}

void IpcTransport::Wake() const { eventfd_write(wake_, 1); }

void IpcTransport::AcceptAll() {
  while (std::optional<IpcSocket> socket = listener_.Accept()) {
    if (socket->PeerUser() != geteuid()) continue;
    Due due;
    base::MutexLock lock(&mutex_);
    const auto stranger = [](const ChannelPtr& channel) {
      return channel->kind == Channel::Kind::kStranger;
    };
    if (std::count_if(channels_.begin(), channels_.end(), stranger) >=
        static_cast<int64_t>(kMaxStrangers)) {
      const ChannelPtr oldest = *std::find_if(channels_.begin(), channels_.end(), stranger);
      Close(oldest, absl::OkStatus(), &due);  // a stranger has nothing under way
    }
    channels_.push_back(std::make_shared<Channel>(*std::move(socket)));
  }
}

void IpcTransport::Serve(const ChannelPtr& channel) {
  Due due;
  {
    base::MutexLock lock(&mutex_);
    while (channel->open && !channel->outbox.empty()) {
      const IpcSocket::Result sent = channel->socket.Send(channel->outbox.front());
      if (sent == IpcSocket::Result::kLater) break;
      channel->outbox.pop_front();
    }
    while (channel->open) {
      IpcMessage message;
      const IpcSocket::Result got = channel->socket.Receive(&message);
      if (got == IpcSocket::Result::kLater) break;
      if (got == IpcSocket::Result::kBroken || !Take(channel, message, &due)) {
        Close(channel, absl::UnavailableError("peer is gone"), &due);
      }
    }
  }
  CallAll(due);
}

// A peer that shows no region in time does not serve.
void IpcTransport::Expire(base::TimePoint now) {
  Due due;
  {
    base::MutexLock lock(&mutex_);
    for (const auto& [peer, from] : incoming_) {
      const ChannelPtr channel = from->channel;
      if (!channel->open || from->region != nullptr || now < from->connect_by) continue;
      Close(channel, absl::UnavailableError("cuda_ipc: the peer shows no region"), &due);
    }
  }
  CallAll(due);
}

// False: the other end breaks the protocol.
bool IpcTransport::Take(const ChannelPtr& channel, const IpcMessage& message, Due* due) {
  using Kind = Channel::Kind;
  switch (message.kind) {
    case IpcMessage::Kind::kHello:
      return channel->kind == Kind::kStranger && TakeHello(channel, message);
    case IpcMessage::Kind::kRegion:
      return channel->kind == Kind::kIncoming && TakeRegion(channel, message, due);
    case IpcMessage::Kind::kPiece:
      return channel->kind == Kind::kIncoming && TakePiece(channel, message, due);
    case IpcMessage::Kind::kRead:
      return channel->kind == Kind::kOutgoing && TakeRead(channel, message, due);
  }
  return false;
}

bool IpcTransport::TakeHello(const ChannelPtr& channel, const IpcMessage& message) {
  const Incarnation peer(message.receiver);
  const auto token = tokens_.find(peer);
  const bool invited = message.sender == options_.self.value() && !aborted_.contains(peer) &&
                       token != tokens_.end() && !token->second.empty() &&
                       token->second == message.get_text();
  if (!invited) return false;
  token->second.clear();
  channel->kind = Channel::Kind::kOutgoing;
  channel->peer = peer;
  outgoing_[peer] = {.channel = channel, .sends = {}};
  IpcMessage region{.kind = IpcMessage::Kind::kRegion};
  region.bytes = options_.staging.bytes;
  region.set_text(handle_);
  Say(*channel, region);
  return true;
}

bool IpcTransport::TakeRegion(const ChannelPtr& channel, const IpcMessage& message, Due* due) {
  const auto it = incoming_.find(channel->peer);
  if (it == incoming_.end() || it->second->region != nullptr || message.bytes < 0) return false;
  absl::StatusOr<std::unique_ptr<MappedRegion>> region =
      copier_.Map(message.get_text(), message.bytes);
  if (!region.ok()) {
    Close(channel, region.status(), due);
    return true;
  }
  it->second->region = *std::move(region);
  due->push_back([f = it->second->on_channel] { f(absl::OkStatus()); });
  return true;
}

bool IpcTransport::TakePiece(const ChannelPtr& channel, const IpcMessage& message, Due* due) {
  const auto it = incoming_.find(channel->peer);
  if (it == incoming_.end() || it->second->region == nullptr) return false;
  Incoming& from = *it->second;
  const int64_t size = from.region->ref().bytes;
  const Announced piece{message.offset, message.bytes};
  const bool declared = piece.offset == -1 && piece.bytes >= 0;
  const bool inside = piece.offset >= 0 && piece.bytes >= 0 && piece.bytes <= size &&
                      piece.offset <= size - piece.bytes;
  if (!declared && !inside) return false;
  if (const auto posted = from.posted.find(message.sequence); posted != from.posted.end()) {
    Posted receive = std::move(posted->second);
    from.posted.erase(posted);
    Pull(it->second, message.sequence, std::move(receive), piece, due);
  } else if (message.sequence <= from.highest_posted) {
    // Said again: it was received before, or it is being read and will be answered.
    if (!from.copying.contains(message.sequence)) SayRead(from, message.sequence);
  } else {
    if (from.early.size() >= kMaxEarly) return false;
    from.early[message.sequence] = piece;
  }
  return true;
}

bool IpcTransport::TakeRead(const ChannelPtr& channel, const IpcMessage& message, Due* due) {
  const auto it = outgoing_.find(channel->peer);
  if (it == outgoing_.end()) return false;
  const auto [begin, end] = it->second.sends.equal_range(message.sequence);
  for (auto send = begin; send != end; ++send) {
    due->push_back([f = std::move(send->second)] { f(absl::OkStatus()); });
  }
  it->second.sends.erase(begin, end);
  return true;
}

}  // namespace triptych::transport
