#pragma once

// The handshake between workers, between the wire and the machines.

#include "absl/status/statusor.h"
#include "scheduler/plan/transfer_messages.h"
#include "triptych/v1/transfer.pb.h"

namespace triptych::services {

v1::TransferMessage ToProto(const scheduler::TransferMessage& message);

// INVALID_ARGUMENT: no such message, or a value out of range. `hello` is not a message of the
// machines: its receiver looks at it first.
absl::StatusOr<scheduler::TransferMessage> FromProto(const v1::TransferMessage& message);

}  // namespace triptych::services
