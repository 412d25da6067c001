#pragma once

// A worker's streams of one kind, one to each peer: opened when first needed, and again after they
// broke. What is lost with a stream is for its owner to repeat.

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/mutex.h"
#include "scheduler/plan/ids.h"
#include "services/runtime/client_stream.h"

namespace triptych::services {

// Thread-safe. Callbacks come from gRPC's threads, without a lock held.
template <typename Out, typename In>
class PeerStreams {
 public:
  using Stream = ClientStream<Out, In>;
  struct Wiring {
    // Connects to host:port. A call keeps the connection that it was started on.
    std::function<typename Stream::Start(const std::string& address)> connect;
    std::function<void(scheduler::Incarnation peer, In&)> on_batch;
    // The stream to `peer` has ended by itself. May be empty.
    std::function<void(const scheduler::PeerAddress& peer)> on_lost;
    // The first message of each stream. May be empty.
    std::function<typename Stream::Message(scheduler::Incarnation peer)> hello;
  };

  PeerStreams(scheduler::Incarnation self, Wiring wiring)
      : self_(self), wiring_(std::move(wiring)) {}
  ~PeerStreams() { Stop(); }

  // Null after Stop.
  std::shared_ptr<Stream> To(const scheduler::PeerAddress& peer) {
    base::MutexLock lock(&mutex_);
    if (stopping_) return nullptr;
    Numbered& entry = streams_[peer.incarnation];
    if (entry.stream != nullptr) return entry.stream;
    entry = {++last_number_, Open(peer, last_number_)};
    ++open_;
    if (wiring_.hello) entry.stream->Send(wiring_.hello(peer.incarnation));
    return entry.stream;
  }

  // Says hello once more on a stream that is open; on one that is not, it comes first.
  void SayHelloAgain(scheduler::Incarnation peer) {
    base::MutexLock lock(&mutex_);
    const auto it = streams_.find(peer);
    if (it != streams_.end()) it->second.stream->Send(wiring_.hello(peer));
  }

  // What was enqueued since the last may leave together.
  void Flush() {
    base::MutexLock lock(&mutex_);
    for (auto& [peer, entry] : streams_) entry.stream->Flush();
  }

  // Closes the stream to a peer that is gone; on_lost does not come.
  void Forget(scheduler::Incarnation peer) {
    base::MutexLock lock(&mutex_);
    auto it = streams_.find(peer);
    if (it == streams_.end()) return;
    it->second.stream->Close();
    streams_.erase(it);
  }

  // Closes all and waits for their ends; no callback comes afterwards.
  void Stop() {
    base::MutexLock lock(&mutex_);
    stopping_ = true;
    for (auto& [peer, entry] : streams_) entry.stream->Close();
    while (open_ > 0) closed_.Wait(&mutex_);
  }

 private:
  // Shared with gRPC, which holds a stream until it is done. Its number tells it from the peer's
  // next one: a stream that ends late must not take that out of the map.
  struct Numbered {
    uint64_t number = 0;
    std::shared_ptr<Stream> stream;
  };

  std::shared_ptr<Stream> Open(const scheduler::PeerAddress& peer, uint64_t number) {
    v1::Envelope envelope;
    envelope.set_sender_incarnation(self_.value());
    envelope.set_receiver_incarnation(peer.incarnation.value());
    return Stream::Open(
        wiring_.connect(peer.address), std::move(envelope),
        [this, id = peer.incarnation](In& batch) { wiring_.on_batch(id, batch); },
        [this, peer, number](const grpc::Status&) { OnClosed(peer, number); });
  }

  void OnClosed(const scheduler::PeerAddress& peer, uint64_t number) {
    bool lost = false;
    {
      base::MutexLock lock(&mutex_);
      auto it = streams_.find(peer.incarnation);
      lost = !stopping_ && it != streams_.end() && it->second.number == number;
      if (lost) streams_.erase(it);
    }
    if (lost && wiring_.on_lost) wiring_.on_lost(peer);
    base::MutexLock lock(&mutex_);
    // Under the lock: the destructor may run as soon as the waiter sees it.
    if (--open_ == 0) closed_.NotifyAll();
  }

  const scheduler::Incarnation self_;
  const Wiring wiring_;
  base::Mutex mutex_;
  base::CondVar closed_;
  uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  int open_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<scheduler::Incarnation, Numbered> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::services
