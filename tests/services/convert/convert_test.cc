// Defended: every plan message survives the wire whole; what is malformed is refused with
// INVALID_ARGUMENT; and whatever bytes come, FromProto ends in a value or a refusal.

#include <google/protobuf/stubs/logging.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <string>

#include "services/convert/gateway_messages.h"
#include "services/convert/ids.h"
#include "services/convert/transfer_messages.h"
#include "services/convert/worker_messages.h"
#include "tests/services/convert/fields.h"

namespace triptych::services {
namespace {

using scheduler::Incarnation;
using testing::Filler;
using testing::Same;

constexpr int kRounds = 50;

template <typename T>
void CheckSame(T expected, absl::StatusOr<T> actual) {
  REQUIRE(actual.ok());
  CHECK(Same(expected, *actual));
}

template <typename Variant>
void CheckRoundTrips() {
  for (uint64_t seed = 1; seed <= kRounds; ++seed) {
    for (size_t i = 0; i < std::variant_size_v<Variant>; ++i) {
      CAPTURE(seed, i);
      const Variant message = Filler(seed).MakeAlternative<Variant>(i);
      CheckSame<Variant>(message, FromProto(ToProto(message)));
    }
  }
}

template <typename Message>
void CheckRoundTrip() {
  for (uint64_t seed = 1; seed <= kRounds; ++seed) {
    CAPTURE(seed);
    const Message message = Filler(seed).Make<Message>();
    CheckSame<Message>(message, FromProto(ToProto(message)));
  }
}

TEST_CASE("Convert: the control streams' messages survive the wire", "[services][convert]") {
  CheckRoundTrips<scheduler::SchedulerToWorker>();
  CheckRoundTrips<scheduler::WorkerToScheduler>();
  CheckRoundTrips<scheduler::SchedulerToGateway>();
  CheckRoundTrips<scheduler::GatewayToScheduler>();
}

TEST_CASE("Convert: the handshake's messages survive the wire", "[services][convert]") {
  CheckRoundTrips<scheduler::TransferMessage>();
}

TEST_CASE("Convert: pulls and tokens survive the wire", "[services][convert]") {
  CheckRoundTrip<scheduler::PullRequest>();
  CheckRoundTrip<scheduler::PulledInput>();
  CheckRoundTrip<scheduler::TokenBatch>();
  CheckRoundTrip<scheduler::TokenReply>();
}

TEST_CASE("Convert: hellos survive the wire; the envelope says whose they are",
          "[services][convert]") {
  for (uint64_t seed = 1; seed <= kRounds; ++seed) {
    CAPTURE(seed);
    auto worker = Filler(seed).Make<scheduler::WorkerHello>();
    absl::StatusOr<scheduler::WorkerHello> read = FromProto(ToProto(worker));
    REQUIRE(read.ok());
    CHECK(read->profile.incarnation == Incarnation());
    read->profile.incarnation = worker.profile.incarnation;
    CHECK(Same(worker, *read));
    const auto gateway = Filler(seed).Make<scheduler::GatewayHello>();
    CheckSame<scheduler::GatewayHello>(gateway, FromProto(ToProto(gateway), gateway.incarnation));
  }
}

TEST_CASE("Convert: a status code that nobody knows becomes INTERNAL", "[services][convert]") {
  for (int code : {-1, 17, 1 << 20}) {
    v1::Status status;
    status.set_code(code);
    CHECK(FromProto(status).code() == absl::StatusCode::kInternal);
  }
  CHECK(FromProto(v1::Status()).ok());
}

// Each case breaks one field of a good message.
template <typename Proto>
void CheckRefused(const Proto& good, const std::vector<void (*)(Proto*)>& breaks) {
  REQUIRE(FromProto(good).ok());
  for (size_t i = 0; i < breaks.size(); ++i) {
    CAPTURE(i);
    Proto bad = good;
    breaks[i](&bad);
    CHECK(FromProto(bad).status().code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("Convert: malformed messages to and from a worker are refused", "[services][convert]") {
  Filler filler(1);
  using v1::SchedulerToWorker;
  using v1::WorkerToScheduler;
  CHECK_FALSE(FromProto(SchedulerToWorker()).ok());
  CHECK_FALSE(FromProto(WorkerToScheduler()).ok());
  CheckRefused<SchedulerToWorker>(
      ToProto(scheduler::SchedulerToWorker(filler.Make<scheduler::AssignPrefill>())),
      {[](SchedulerToWorker* m) { m->mutable_assign_prefill()->set_prompt_tokens(-1); },
       [](SchedulerToWorker* m) { m->mutable_assign_prefill()->set_item_tokens(0, 0); },
       [](SchedulerToWorker* m) {
         for (int i = 0; i < 5000; ++i) m->mutable_assign_prefill()->add_item_tokens(1);
       },
       [](SchedulerToWorker* m) { m->clear_message(); },
       [](SchedulerToWorker* m) { m->mutable_welcome(); }});
  CheckRefused<WorkerToScheduler>(
      ToProto(scheduler::WorkerToScheduler(filler.Make<scheduler::WorkerReport>())),
      {[](WorkerToScheduler* m) {
         m->mutable_report()->mutable_tasks(0)->set_stage(static_cast<v1::Stage>(3));
       },
       [](WorkerToScheduler* m) {
         m->mutable_report()->mutable_tasks(0)->set_state(static_cast<v1::TaskState>(-1));
       },
       [](WorkerToScheduler* m) { m->mutable_report()->add_load(); },
       [](WorkerToScheduler* m) {
         m->mutable_report()->mutable_load(0)->set_seconds_per_unit(std::nan(""));
       },
       [](WorkerToScheduler* m) { m->mutable_report()->mutable_load(1)->set_queued_cost(-1); },
       [](WorkerToScheduler* m) { m->mutable_report()->mutable_load(2)->set_running_cost(-1); },
       [](WorkerToScheduler* m) {
         m->mutable_first_token()->set_finish(static_cast<v1::Finish>(3));
       }});
  CheckRefused<v1::WorkerHello>(
      ToProto(filler.Make<scheduler::WorkerHello>()),
      {[](v1::WorkerHello* m) { m->mutable_profile()->set_roles(0); },
       [](v1::WorkerHello* m) { m->mutable_profile()->set_roles(8); },
       [](v1::WorkerHello* m) { m->mutable_profile()->set_kv_blocks(-1); },
       [](v1::WorkerHello* m) { m->mutable_profile()->set_kv_block_tokens(0); },
       [](v1::WorkerHello* m) { m->mutable_profile()->set_embedding_page_slots(0); },
       [](v1::WorkerHello* m) { m->mutable_profile()->set_max_encodes(-5); },
       [](v1::WorkerHello* m) { m->clear_profile(); },
       [](v1::WorkerHello* m) { m->mutable_highest_seen()->set_term(~uint64_t{1}); },
       [](v1::WorkerHello* m) { m->mutable_profile()->set_kv_blocks(INT32_MAX); },
       [](v1::WorkerHello* m) { m->mutable_profile()->set_name(std::string(300, 'n')); },
       [](v1::WorkerHello* m) { m->mutable_profile()->set_fingerprint(std::string(129, 'f')); },
       [](v1::WorkerHello* m) { m->mutable_report()->mutable_tasks(0)->set_epoch(UINT32_MAX); }});
}

TEST_CASE("Convert: malformed messages of the handshake are refused", "[services][convert]") {
  using v1::TransferMessage;
  Filler filler(2);
  CHECK_FALSE(FromProto(TransferMessage()).ok());
  CheckRefused<TransferMessage>(
      ToProto(scheduler::TransferMessage(filler.Make<scheduler::Ready>())),
      {[](TransferMessage* m) { m->mutable_ready()->set_bytes(-1); },
       [](TransferMessage* m) { m->mutable_ready()->set_index(-1); },
       [](TransferMessage* m) { m->mutable_ready()->mutable_range()->set_token_begin(-1); },
       [](TransferMessage* m) { m->mutable_ready()->mutable_range()->set_token_end(0); },
       [](TransferMessage* m) { m->mutable_ready()->mutable_range()->set_layer_end(0); },
       [](TransferMessage* m) {
         m->mutable_ready()->mutable_range()->set_kind(static_cast<v1::TransferKind>(2));
       },
       [](TransferMessage* m) { m->mutable_hello(); }});
  CheckRefused<TransferMessage>(
      ToProto(scheduler::TransferMessage(filler.Make<scheduler::Offer>())),
      {[](TransferMessage* m) { m->mutable_offer()->set_num_tokens(0); },
       [](TransferMessage* m) { m->mutable_offer()->set_bytes(-1); },
       [](TransferMessage* m) {
         m->mutable_deny()->set_reason(static_cast<v1::Deny::Reason>(4));
       }});
}

TEST_CASE("Convert: sampling that means nothing is refused; what is unset is off",
          "[services][convert]") {
  const auto unset = FromProto(v1::SamplingParams());
  REQUIRE(unset.ok());
  CHECK(unset->top_p == 1);
  CHECK(unset->top_logprobs == -1);
  CHECK_FALSE(unset->has_penalty());
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  v1::SamplingParams good;
  good.add_biases()->set_bias(-kInfinity);
  CHECK(FromProto(good).ok());
  const auto refused = [&](const std::function<void(v1::SamplingParams*)>& change) {
    v1::SamplingParams params = good;
    change(&params);
    return !FromProto(params).ok();
  };
  CHECK(refused([&](auto* p) { p->set_temperature(kInfinity); }));
  CHECK(refused([&](auto* p) { p->set_min_p(std::nanf("")); }));
  CHECK(refused([&](auto* p) { p->set_repetition_penalty(0); }));
  CHECK(refused([&](auto* p) { p->mutable_biases(0)->set_bias(kInfinity); }));
  CHECK(refused([&](auto* p) { p->mutable_biases(0)->set_bias(std::nanf("")); }));
  CHECK(refused([&](auto* p) { p->mutable_biases(0)->set_token(-1); }));
  CHECK(refused([&](auto* p) { p->add_biases(); }));  // Token 0 twice.
  CHECK(refused([&](auto* p) {
    for (int i = 1; i <= scheduler::kMaxTokenBiases; ++i) p->add_biases()->set_token(i);
  }));
}

TEST_CASE("Convert: malformed messages of gateways are refused", "[services][convert]") {
  using v1::GatewayToScheduler;
  Filler filler(3);
  CHECK_FALSE(FromProto(GatewayToScheduler()).ok());
  CHECK_FALSE(FromProto(v1::SchedulerToGateway()).ok());
  CheckRefused<GatewayToScheduler>(
      ToProto(scheduler::GatewayToScheduler(filler.Make<scheduler::SubmitRequest>())),
      {[](GatewayToScheduler* m) { m->mutable_submit()->set_prompt_tokens(0); },
       [](GatewayToScheduler* m) { m->mutable_submit()->set_max_tokens(-1); },
       [](GatewayToScheduler* m) { m->mutable_submit()->set_tokens_sent(-1); },
       [](GatewayToScheduler* m) { m->mutable_submit()->mutable_items(0)->set_num_tokens(0); },
       [](GatewayToScheduler* m) { m->mutable_submit()->mutable_items(0)->set_media_bytes(-1); },
       [](GatewayToScheduler* m) { m->mutable_submit()->mutable_items(0)->set_pixels(-1); },
       [](GatewayToScheduler* m) { m->mutable_submit()->set_prompt_tokens(INT32_MAX); },
       [](GatewayToScheduler* m) { m->mutable_submit()->set_tokens_sent(INT32_MAX); },
       [](GatewayToScheduler* m) { m->mutable_submit()->set_epoch(UINT32_MAX); },
       [](GatewayToScheduler* m) { m->mutable_submit()->set_time_left_ns(INT64_MAX); },
       [](GatewayToScheduler* m) { m->mutable_submit()->set_time_left_ns(-1); },
       [](GatewayToScheduler* m) { m->mutable_submit()->set_tenant(std::string(300, 't')); }});
  CheckRefused<v1::SchedulerToGateway>(
      ToProto(scheduler::SchedulerToGateway(filler.Make<scheduler::Membership>())),
      {[](v1::SchedulerToGateway* m) { m->mutable_membership()->add_models(); },
       [](v1::SchedulerToGateway* m) { m->mutable_membership()->add_models()->set_roles(8); }});
  CheckRefused<v1::PullRequest>(
      ToProto(filler.Make<scheduler::PullRequest>()),
      {[](v1::PullRequest* m) { m->set_stage(static_cast<v1::Stage>(7)); }});
  CheckRefused<v1::PulledInput>(ToProto(filler.Make<scheduler::PulledInput>()),
                                {[](v1::PulledInput* m) { m->set_max_tokens(-1); },
                                 [](v1::PulledInput* m) { m->add_segments(); }});
  CheckRefused<v1::TokenBatch>(
      ToProto(filler.Make<scheduler::TokenBatch>()),
      {[](v1::TokenBatch* m) { m->set_start_index(-1); },
       [](v1::TokenBatch* m) { m->set_start_index(INT32_MAX); },
       [](v1::TokenBatch* m) { m->set_finish(static_cast<v1::Finish>(9)); }});
  CheckRefused<v1::TokenReply>(
      ToProto(filler.Make<scheduler::TokenReply>()),
      {[](v1::TokenReply* m) { m->set_next_index(-1); },
       [](v1::TokenReply* m) { m->set_kind(static_cast<v1::TokenReply::Kind>(3)); }});
}

// Flips, cuts and repeats a few bytes.
std::string Mutate(std::string bytes, base::SeededRandom* random) {
  for (uint64_t n = 1 + random->Below(4); n > 0 && !bytes.empty(); --n) {
    const size_t at = random->Below(bytes.size());
    switch (random->Below(4)) {
      case 0:
        bytes[at] = static_cast<char>(random->Next());
        break;
      case 1:
        bytes.erase(at, 1 + random->Below(8));
        break;
      case 2:
        bytes.insert(at, bytes.substr(random->Below(bytes.size()), random->Below(16)));
        break;
      default:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random->Below(8)));
    }
  }
  return bytes;
}

// What is accepted can be said again and is then accepted again.
template <typename Proto>
void Fuzz(const Proto& good, base::SeededRandom* random) {
  Proto mutated;
  if (!mutated.ParseFromString(Mutate(good.SerializeAsString(), random))) return;
  const auto read = FromProto(mutated);
  if (!read.ok()) {
    CHECK(read.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  CHECK(FromProto(ToProto(*read)).ok());
}

template <typename Variant>
void FuzzAll(uint64_t seed, base::SeededRandom* random) {
  for (size_t i = 0; i < std::variant_size_v<Variant>; ++i) {
    Fuzz(ToProto(Filler(seed).MakeAlternative<Variant>(i)), random);
  }
}

TEST_CASE("Convert: mutated bytes end in a value or a refusal", "[services][convert][fuzz]") {
  const google::protobuf::LogSilencer silencer;  // broken UTF-8 is what we ask for
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    CAPTURE(seed);
    base::SeededRandom random(seed);
    FuzzAll<scheduler::SchedulerToWorker>(seed, &random);
    FuzzAll<scheduler::WorkerToScheduler>(seed, &random);
    FuzzAll<scheduler::SchedulerToGateway>(seed, &random);
    FuzzAll<scheduler::GatewayToScheduler>(seed, &random);
    FuzzAll<scheduler::TransferMessage>(seed, &random);
    Fuzz(ToProto(Filler(seed).Make<scheduler::WorkerHello>()), &random);
    Fuzz(ToProto(Filler(seed).Make<scheduler::PullRequest>()), &random);
    Fuzz(ToProto(Filler(seed).Make<scheduler::PulledInput>()), &random);
    Fuzz(ToProto(Filler(seed).Make<scheduler::TokenBatch>()), &random);
    Fuzz(ToProto(Filler(seed).Make<scheduler::TokenReply>()), &random);
  }
}

}  // namespace
}  // namespace triptych::services
