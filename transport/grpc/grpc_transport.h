#pragma once

// The portable back end: pieces travel in chunks of 1 MiB over gRPC, through host memory (a
// device's is refused). One stream a direction and pair of workers. Where an answer is known at
// once (an aborted peer, bytes that were early) the callback comes from within Send, Receive or
// Abort, with no lock held.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/rpc_security.h"
#include "transport/grpc/move_receiver.h"
#include "transport/grpc/move_sender.h"
#include "transport/transport.h"

namespace triptych::transport {

class GrpcTransport final : public Transport {
 public:
  GrpcTransport(scheduler::Incarnation self, base::RpcSecurity security)
      : self_(self), security_(std::move(security)) {}
  // Aborts every peer and waits until gRPC is done with the streams to them. No Move call may come
  // later: stop the server first.
  ~GrpcTransport() override;

  void Send(scheduler::Incarnation peer, const std::string& address, uint64_t sequence,
            base::MemoryRef bytes, OnDone on_done) override;
  void Receive(scheduler::Incarnation peer, uint64_t sequence, base::MemoryRef landing,
               OnDone on_done) override;
  void Abort(scheduler::Incarnation peer) override;

  // The method of v1::Transfer that brings the bytes: the worker's service forwards it here.
  grpc::ServerBidiReactor<v1::MoveChunk, v1::MoveClosed>* Move();

 private:
  class MoveStream;

  // Null once the peer was aborted.
  std::shared_ptr<MoveSender> Sender(scheduler::Incarnation peer, const std::string& address);
  std::shared_ptr<MoveReceiver> Receiver(scheduler::Incarnation peer);

  const scheduler::Incarnation self_;
  const base::RpcSecurity security_;
  base::Mutex mutex_;
  // Incarnations never come back, so an id is all that is kept of a peer that was aborted: its
  // connection and its file descriptor are given up.
  std::set<scheduler::Incarnation> aborted_ ABSL_GUARDED_BY(mutex_);
  // Shared with callers; bounded by the number of living workers.
  std::map<scheduler::Incarnation, std::shared_ptr<MoveSender>> senders_ ABSL_GUARDED_BY(mutex_);
  std::map<scheduler::Incarnation, std::shared_ptr<MoveReceiver>> receivers_
      ABSL_GUARDED_BY(mutex_);
  // Aborted, until the next Abort() finds that their streams have closed.
  std::vector<std::shared_ptr<MoveSender>> closing_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::transport
