#pragma once

// Identities and small values between the wire and the machines. FromProto never trusts: a value
// out of range gives INVALID_ARGUMENT with fixed text.

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/plan/ids.h"
#include "scheduler/plan/step_plan.h"
#include "scheduler/plan/worker_messages.h"
#include "triptych/v1/common.pb.h"

namespace triptych::services {

v1::SchedulerId ToProto(const scheduler::SchedulerId& id);
v1::RequestId ToProto(const scheduler::RequestId& id);
v1::TaskId ToProto(const scheduler::TaskId& id);
v1::PeerAddress ToProto(const scheduler::PeerAddress& peer);
v1::Status ToProto(const absl::Status& status);
v1::Grid ToProto(const scheduler::Grid& grid);
v1::SamplingParams ToProto(const scheduler::SamplingParams& params);
v1::SampledToken ToProto(const scheduler::SampledToken& token);

scheduler::SchedulerId FromProto(const v1::SchedulerId& id);
scheduler::RequestId FromProto(const v1::RequestId& id);
scheduler::TaskId FromProto(const v1::TaskId& id);
scheduler::PeerAddress FromProto(const v1::PeerAddress& peer);
// An unknown code becomes INTERNAL.
absl::Status FromProto(const v1::Status& status);
scheduler::Grid FromProto(const v1::Grid& grid);
// INVALID_ARGUMENT: a number that is not finite (but a bias of minus infinity), a repetition
// penalty not above 0, too many biases, a token twice.
absl::StatusOr<scheduler::SamplingParams> FromProto(const v1::SamplingParams& params);
scheduler::SampledToken FromProto(const v1::SampledToken& token);

// Of names and addresses that a peer tells of itself.
inline constexpr size_t kMaxNameBytes = 256;
// Two digests of 32 characters and the name of a compute format, with dots between.
inline constexpr size_t kMaxFingerprintBytes = 128;
// Tokens of a prompt or an answer: sums of several stay below 2^31.
inline constexpr int32_t kMaxTokens = 1 << 28;

absl::StatusOr<scheduler::Stage> StageFromProto(int stage);
absl::StatusOr<scheduler::Finish> FinishFromProto(int finish);

}  // namespace triptych::services
