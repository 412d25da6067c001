#include "services/convert/ids.h"

#include <cmath>
#include <limits>
#include <string>

#include "absl/container/flat_hash_set.h"

namespace triptych::services {
namespace {

absl::Status OutOfRange() { return absl::InvalidArgumentError("value out of range"); }

}  // namespace

using scheduler::Incarnation;

v1::SchedulerId ToProto(const scheduler::SchedulerId& id) {
  v1::SchedulerId out;
  out.set_term(id.term);
  out.set_incarnation(id.incarnation.value());
  return out;
}

v1::RequestId ToProto(const scheduler::RequestId& id) {
  v1::RequestId out;
  out.set_gateway(id.gateway.value());
  out.set_number(id.number);
  return out;
}

v1::TaskId ToProto(const scheduler::TaskId& id) {
  v1::TaskId out;
  out.set_term(id.scheduler.term);
  out.set_scheduler_incarnation(id.scheduler.incarnation.value());
  out.set_number(id.number);
  return out;
}

v1::PeerAddress ToProto(const scheduler::PeerAddress& peer) {
  v1::PeerAddress out;
  out.set_incarnation(peer.incarnation.value());
  out.set_address(peer.address);
  return out;
}

v1::Status ToProto(const absl::Status& status) {
  v1::Status out;
  out.set_code(static_cast<int>(status.code()));
  out.set_message(std::string(status.message()));
  return out;
}

v1::Grid ToProto(const scheduler::Grid& grid) {
  v1::Grid out;
  out.set_t(grid.t);
  out.set_h(grid.h);
  out.set_w(grid.w);
  return out;
}

v1::SamplingParams ToProto(const scheduler::SamplingParams& params) {
  v1::SamplingParams out;
  out.set_temperature(params.temperature);
  out.set_top_p(params.top_p);
  out.set_top_k(params.top_k);
  out.set_seed(params.seed);
  out.set_top_logprobs(params.top_logprobs);
  out.set_min_p(params.min_p);
  out.set_repetition_penalty(params.repetition_penalty);
  out.set_presence_penalty(params.presence_penalty);
  out.set_frequency_penalty(params.frequency_penalty);
  for (const scheduler::TokenBias& bias : params.biases) {
    v1::TokenBias* const added = out.add_biases();
    added->set_token(bias.token);
    added->set_bias(bias.bias);
  }
  return out;
}

v1::SampledToken ToProto(const scheduler::SampledToken& token) {
  v1::SampledToken out;
  out.set_token(token.token);
  out.set_logprob(token.logprob);
  for (const scheduler::TokenLogprob& top : token.top) {
    v1::TokenLogprob* entry = out.add_top();
    entry->set_token(top.token);
    entry->set_logprob(top.logprob);
  }
  return out;
}

scheduler::SchedulerId FromProto(const v1::SchedulerId& id) {
  return {id.term(), Incarnation(id.incarnation())};
}

scheduler::RequestId FromProto(const v1::RequestId& id) {
  return {Incarnation(id.gateway()), id.number()};
}

scheduler::TaskId FromProto(const v1::TaskId& id) {
  return {{id.term(), Incarnation(id.scheduler_incarnation())}, id.number()};
}

scheduler::PeerAddress FromProto(const v1::PeerAddress& peer) {
  return {Incarnation(peer.incarnation()), peer.address()};
}

absl::Status FromProto(const v1::Status& status) {
  constexpr int kHighestCode = static_cast<int>(absl::StatusCode::kUnauthenticated);
  if (status.code() == 0) return absl::OkStatus();
  const bool known = status.code() > 0 && status.code() <= kHighestCode;
  return absl::Status(
      known ? static_cast<absl::StatusCode>(status.code()) : absl::StatusCode::kInternal,
      status.message());
}

scheduler::Grid FromProto(const v1::Grid& grid) { return {grid.t(), grid.h(), grid.w()}; }

absl::StatusOr<scheduler::SamplingParams> FromProto(const v1::SamplingParams& params) {
  scheduler::SamplingParams out;
  out.temperature = params.temperature();
  if (params.has_top_p()) out.top_p = params.top_p();
  out.top_k = params.top_k();
  out.seed = params.seed();
  if (params.has_top_logprobs()) out.top_logprobs = params.top_logprobs();
  out.min_p = params.min_p();
  if (params.has_repetition_penalty()) out.repetition_penalty = params.repetition_penalty();
  out.presence_penalty = params.presence_penalty();
  out.frequency_penalty = params.frequency_penalty();
  for (float value : {out.temperature, out.top_p, out.min_p, out.repetition_penalty,
                      out.presence_penalty, out.frequency_penalty}) {
    if (!std::isfinite(value)) return OutOfRange();
  }
  if (params.biases_size() > scheduler::kMaxTokenBiases || !(out.repetition_penalty > 0)) {
    return OutOfRange();
  }
  absl::flat_hash_set<int32_t> tokens;
  for (const v1::TokenBias& bias : params.biases()) {
    // Minus infinity forbids; plus infinity and NaN mean nothing.
    if (!(bias.bias() < std::numeric_limits<float>::infinity()) || bias.token() < 0 ||
        !tokens.insert(bias.token()).second) {
      return OutOfRange();
    }
    out.biases.push_back({bias.token(), bias.bias()});
  }
  return out;
}

scheduler::SampledToken FromProto(const v1::SampledToken& token) {
  scheduler::SampledToken out;
  out.token = token.token();
  out.logprob = token.logprob();
  out.top.reserve(token.top_size());
  for (const v1::TokenLogprob& top : token.top()) out.top.push_back({top.token(), top.logprob()});
  return out;
}

absl::StatusOr<scheduler::Stage> StageFromProto(int stage) {
  if (stage < 0 || stage >= scheduler::kNumStages) {
    return absl::InvalidArgumentError("unknown stage");
  }
  return static_cast<scheduler::Stage>(stage);
}

absl::StatusOr<scheduler::Finish> FinishFromProto(int finish) {
  if (finish < 0 || finish > static_cast<int>(scheduler::Finish::kLength)) {
    return absl::InvalidArgumentError("unknown finish");
  }
  return static_cast<scheduler::Finish>(finish);
}

}  // namespace triptych::services
