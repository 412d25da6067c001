#pragma once

// Two processes of one host and user: the receiver pulls pieces out of the sender's staging region,
// which it has mapped. The sender's region is shown to whoever connects to the sender's channel as
// the same user and with the token that the sender gave it over the control plane. Offsets are
// checked against the region; a piece counts only if its sender's process still lived once it was
// read, for a device does not tell that the memory behind a mapping has lost its owner.
//
// The bytes sent must lie in the region; landing memory is any that the copier reaches. Callbacks
// come from the transport's thread, the copier's, or from within a call, with no lock held.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "transport/cuda_ipc/ipc_socket.h"
#include "transport/cuda_ipc/peer_copier.h"
#include "transport/transport.h"

namespace triptych::transport {

struct IpcOptions {
  scheduler::Incarnation self;
  std::string channel;  // the name that peers connect to; unpredictable is better
  base::MemoryRef staging;
  std::function<uint64_t()> random;  // for tokens
};

class IpcTransport final : public Transport {
 public:
  // OK once the peer's region is mapped; an error when it cannot be, or later when the channel
  // broke (not after Abort): then nothing comes from that peer over this transport any more.
  using OnChannel = std::function<void(const absl::Status&)>;

  // Exports the region and listens. Borrows the clock and the copier.
  static absl::StatusOr<std::unique_ptr<IpcTransport>> Start(IpcOptions options,
                                                             const base::Clock& clock,
                                                             PeerCopier* copier);
  // Completes everything and waits for copies under way. No call may come later.
  ~IpcTransport() override;

  const std::string& channel() const { return options_.channel; }
  // What `peer` has to show at our channel; the same until it was used, then empty for good.
  std::string TokenFor(scheduler::Incarnation peer);
  // Begins to receive from `peer`, once for each. Receive may follow at once.
  void Connect(scheduler::Incarnation peer, const std::string& channel, const std::string& token,
               OnChannel on_channel);

  // UNAVAILABLE at once to a peer that has not connected. `address` is not used.
  void Send(scheduler::Incarnation peer, const std::string& address, uint64_t sequence,
            base::MemoryRef bytes, OnDone on_done) override;
  void Receive(scheduler::Incarnation peer, uint64_t sequence, base::MemoryRef landing,
               OnDone on_done) override;
  void Abort(scheduler::Incarnation peer) override;

  // How long a channel's other end may take to show its region.
  static constexpr base::Duration kConnectWithin = std::chrono::seconds(2);
  // Connections that have not said who they are; the oldest gives way.
  static constexpr size_t kMaxStrangers = 16;
  // Pieces that a sender may announce before their receives are posted.
  static constexpr size_t kMaxEarly = 4096;

 private:
  using Incarnation = scheduler::Incarnation;
  // One connected socket. Shared with the thread that polls it.
  struct Channel {
    enum class Kind : uint8_t { kStranger, kIncoming, kOutgoing };
    explicit Channel(IpcSocket connected) : socket(std::move(connected)) {}
    const IpcSocket socket;
    Kind kind = Kind::kStranger;
    Incarnation peer;
    bool open = true;
    std::deque<IpcMessage> outbox;  // that the socket did not take; bounded by what is posted
  };
  struct Posted {
    base::MemoryRef landing;
    OnDone on_done;
  };
  struct Announced {
    int64_t offset = 0, bytes = 0;
  };
  // From one peer. Shared with copies under way.
  struct Incoming {
    std::shared_ptr<Channel> channel;
    std::shared_ptr<MappedRegion> region;  // null: not mapped yet, or given up
    OnChannel on_channel;
    base::TimePoint connect_by;
    absl::Status over;  // not OK: nothing more is received
    uint64_t highest_posted = 0;
    std::map<uint64_t, Posted> posted;
    std::map<uint64_t, Announced> early;
    std::set<uint64_t> copying;
  };
  // To one peer.
  struct Outgoing {
    std::shared_ptr<Channel> channel;
    std::multimap<uint64_t, OnDone> sends;  // one that is said again has two
  };
  // What is called once the lock is free.
  using Due = std::vector<std::function<void()>>;
  static void CallAll(const Due& due) {
    for (const auto& call : due) call();
  }

  IpcTransport(IpcOptions options, const base::Clock& clock, PeerCopier* copier)
      : options_(std::move(options)), clock_(clock), copier_(*copier) {}

  void Run();
  void AcceptAll();
  void Serve(const std::shared_ptr<Channel>& channel);
  void Expire(base::TimePoint now);
  void Wake() const;

  using ChannelPtr = std::shared_ptr<Channel>;
  using IncomingPtr = std::shared_ptr<Incoming>;
  bool Take(const ChannelPtr& channel, const IpcMessage& message, Due* due)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool TakeHello(const ChannelPtr& channel, const IpcMessage& message)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool TakeRegion(const ChannelPtr& channel, const IpcMessage& message, Due* due)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool TakePiece(const ChannelPtr& channel, const IpcMessage& message, Due* due)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool TakeRead(const ChannelPtr& channel, const IpcMessage& message, Due* due)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Pull(const IncomingPtr& from, uint64_t sequence, Posted posted, Announced piece, Due* due)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnCopied(const IncomingPtr& from, uint64_t sequence, absl::Status status,
                const OnDone& on_done);
  void SayRead(Incoming& from, uint64_t sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Say(Channel& channel, const IpcMessage& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Close(const ChannelPtr& channel, const absl::Status& why, Due* due)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void EndIncoming(Incoming& from, const absl::Status& why, Due* due);
  static void EndOutgoing(Outgoing& to, const absl::Status& why, Due* due);

  const IpcOptions options_;
  const base::Clock& clock_;
  PeerCopier& copier_;
  std::string handle_;
  IpcSocket listener_;
  int wake_ = -1;  // an eventfd
  base::Mutex mutex_;
  base::CondVar copied_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int copies_ ABSL_GUARDED_BY(mutex_) = 0;  // under way
  std::vector<ChannelPtr> channels_ ABSL_GUARDED_BY(mutex_);
  // Incarnations never come back: an id is all that stays of a peer that was aborted.
  std::set<Incarnation> aborted_ ABSL_GUARDED_BY(mutex_);
  std::map<Incarnation, std::string> tokens_ ABSL_GUARDED_BY(mutex_);  // used: empty
  std::map<Incarnation, IncomingPtr> incoming_ ABSL_GUARDED_BY(mutex_);
  std::map<Incarnation, Outgoing> outgoing_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace triptych::transport
