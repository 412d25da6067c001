#pragma once

// What every stream of a worker to this gateway begins with.

#include <grpcpp/grpcpp.h>

#include <utility>

#include "services/gateway/core/gateway_core.h"
#include "triptych/v1/common.pb.h"

namespace triptych::services {

// A worker that says what it was not told to say.
inline grpc::Status NoPass() {
  return {grpc::StatusCode::PERMISSION_DENIED, "the task was not given to this worker"};
}

// Checks whom a batch is meant for, and learns from the first one who its worker is. False: the
// stream is being closed with NOT_FOUND, it means another incarnation.
template <typename Stream>
bool MeetWorker(const GatewayCore& core, const v1::Envelope& envelope, Stream* stream) {
  const uint64_t receiver = envelope.receiver_incarnation();
  if (receiver != 0 && receiver != core.self().value()) {
    stream->Close({grpc::StatusCode::NOT_FOUND, "another incarnation"});
    return false;
  }
  if (stream->peer() != 0) return true;
  stream->set_peer(envelope.sender_incarnation());
  v1::Envelope answers;
  answers.set_sender_incarnation(core.self().value());
  answers.set_receiver_incarnation(stream->peer());
  stream->set_envelope(std::move(answers));
  return true;
}

}  // namespace triptych::services
