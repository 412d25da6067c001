#pragma once

// Gateways' messages between the wire and the machines: control stream, payload pulls, tokens. The
// advisory StageTimes of a TokenBatch is not for the machines: its users read it from the wire.

#include "absl/status/statusor.h"
#include "scheduler/plan/gateway_messages.h"
#include "triptych/v1/payload.pb.h"
#include "triptych/v1/scheduler.pb.h"
#include "triptych/v1/tokens.pb.h"

namespace triptych::services {

v1::GatewayToScheduler ToProto(const scheduler::GatewayToScheduler& message);
v1::SchedulerToGateway ToProto(const scheduler::SchedulerToGateway& message);
v1::GatewayHello ToProto(const scheduler::GatewayHello& hello);
v1::PullRequest ToProto(const scheduler::PullRequest& pull);
v1::PulledInput ToProto(const scheduler::PulledInput& input);
v1::TokenBatch ToProto(const scheduler::TokenBatch& batch);
v1::TokenReply ToProto(const scheduler::TokenReply& reply);

// INVALID_ARGUMENT: no such message, or a value out of range.
absl::StatusOr<scheduler::GatewayToScheduler> FromProto(const v1::GatewayToScheduler& message);
absl::StatusOr<scheduler::SchedulerToGateway> FromProto(const v1::SchedulerToGateway& message);
// `incarnation` is that of the stream's envelope.
absl::StatusOr<scheduler::GatewayHello> FromProto(const v1::GatewayHello& hello,
                                                  scheduler::Incarnation incarnation);
absl::StatusOr<scheduler::PullRequest> FromProto(const v1::PullRequest& pull);
absl::StatusOr<scheduler::PulledInput> FromProto(const v1::PulledInput& input);
absl::StatusOr<scheduler::TokenBatch> FromProto(const v1::TokenBatch& batch);
absl::StatusOr<scheduler::TokenReply> FromProto(const v1::TokenReply& reply);

}  // namespace triptych::services
