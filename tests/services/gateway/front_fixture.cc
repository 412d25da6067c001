#include "tests/services/gateway/front_fixture.h"

#include <catch2/catch.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/support/eventually.h"

namespace triptych::services::testing {
namespace {

using triptych::testing::Eventually;

constexpr base::Duration kPatience = std::chrono::seconds(10);

}  // namespace

FrontFixture::FrontFixture(Options options)
    : intake_(*SmallModel(), {.max_output_tokens = options.max_output_tokens}),
      budget_bytes_(options.budget_bytes),
      budget_(options.budget_bytes),
      core_(scheduler::Incarnation(7), clock_,
            std::make_unique<RequestDesk>(
                SmallModel()->tokenizer(), SmallModel()->digest(),
                scheduler::DeliveryLimits{.max_requests = options.max_requests}, &metrics_, &log_),
            [this](absl::Span<const scheduler::GatewayToScheduler> messages) {
              OnMessages(messages);
            }),
      front_{.intake = intake_,
             .core = core_,
             .budget = budget_,
             .keys = keys_,
             .parsers = parsers_,
             .metrics = metrics_,
             .log = &log_,
             .tracer = tracer_,
             .ready = [this] { return ready_.load(); },
             .client_of = [this](const std::string& peer) { return gate_->ClientOf(peer); },
             .unix_seconds = [] { return kUnixSeconds; },
             .serves_since = kUnixSeconds - 1,
             .max_body_bytes = options.max_body_bytes,
             .http_tls = options.http_tls,
             .grpc_tls = options.grpc_tls,
             .write_stall = options.write_stall,
             .allowed_origins = options.allowed_origins} {
  core_.Call([](RequestDesk& desk, base::TimePoint now) {
    desk.OnSchedulerConnected(now);
    desk.OnScheduler(
        scheduler::Membership{.models = {{SmallModel()->digest() + ".weights.format", {7}}}}, now);
  });
  auto http = HttpServer::Start("127.0.0.1:0", front_, options.timeouts);
  REQUIRE(http.ok());
  http_ = *std::move(http);
  auto grpc = RpcServer::StartWithoutPort(base::RpcAudience::kClients, {&inference_});
  REQUIRE(grpc.ok());
  grpc_ = *std::move(grpc);
  auto gate = Http2Gate::Start("127.0.0.1:0", front_, grpc_.get());
  REQUIRE(gate.ok());
  gate_ = *std::move(gate);
}

// In the order of the gateway's own end.
FrontFixture::~FrontFixture() {
  core_.Call([](RequestDesk& desk, base::TimePoint now) { desk.EndAll(now); });
  core_.Stop();
  parsers_.Stop();
  http_.reset();
  gate_->StopAccepting();
  grpc_->Stop(base::Duration(0));  // its calls ask the gate who they are of
  gate_.reset();
  grpc_.reset();
}

void FrontFixture::OnMessages(absl::Span<const scheduler::GatewayToScheduler> messages) {
  for (const scheduler::GatewayToScheduler& message : messages) {
    if (const auto* submit = std::get_if<scheduler::SubmitRequest>(&message)) submits_.Add(*submit);
  }
}

scheduler::SubmitRequest FrontFixture::WaitSubmit() {
  REQUIRE(submits_.WaitForCount(taken_ + 1));
  return submits_.At(taken_++);
}

void FrontFixture::Say(const scheduler::RequestId& id, const std::string& text,
                       scheduler::Finish finish) {
  scheduler::TokenBatch batch{.request = id, .epoch = scheduler::OutputEpoch(1), .finish = finish};
  for (int32_t token : SmallModel()->tokenizer().Encode(text)) {
    batch.tokens.push_back({.token = token, .logprob = -0.5f});
  }
  if (finish == scheduler::Finish::kStop) {
    batch.tokens.push_back({.token = SmallModel()->config().eos_token_ids.front()});
  }
  Send(std::move(batch));
}

void FrontFixture::SayAtLength(const scheduler::RequestId& id, int tokens) {
  const int32_t word = SmallModel()->tokenizer().Encode("word").front();
  const std::vector<scheduler::TokenLogprob> others(20, {.token = word, .logprob = -0.5f});
  scheduler::TokenBatch batch{.request = id, .epoch = scheduler::OutputEpoch(1)};
  batch.tokens.assign(static_cast<size_t>(tokens),
                      {.token = word, .logprob = -0.5f, .top = others});
  Send(std::move(batch));
}

void FrontFixture::Send(scheduler::TokenBatch batch) {
  int32_t& said = said_[batch.request];
  batch.start_index = said;
  said += static_cast<int32_t>(batch.tokens.size());
  core_.Call([&](RequestDesk& desk, base::TimePoint now) {
    desk.Pull({.request = batch.request,
               .stage = scheduler::Stage::kPrefill,
               .epoch = scheduler::OutputEpoch(1)},
              now)
        .IgnoreError();
    desk.Tokens(batch, {}, now);
  });
}

void FrontFixture::Admit(const scheduler::RequestId& id) {
  core_.Call([&](RequestDesk& desk, base::TimePoint now) {
    desk.OnScheduler(scheduler::RequestAdmitted{id}, now);
  });
}

void FrontFixture::Fail(const scheduler::RequestId& id, const absl::Status& status,
                        base::Duration retry_after) {
  core_.Call([&](RequestDesk& desk, base::TimePoint now) {
    desk.OnScheduler(scheduler::RequestFailed{id, status, retry_after}, now);
  });
}

void FrontFixture::FailTask(const scheduler::RequestId& id, const absl::Status& status) {
  core_.Call([&](RequestDesk& desk, base::TimePoint now) {
    desk.Tokens({.request = id,
                 .epoch = scheduler::OutputEpoch(1),
                 .start_index = said_[id],
                 .error = status},
                {}, now);
  });
}

void FrontFixture::AnswerNext(const std::string& text) {
  Say(WaitSubmit().request, text, scheduler::Finish::kStop);
}

void FrontFixture::RequireIdle() {
  REQUIRE(Eventually(kPatience, [this] {
    size_t live = 1;
    core_.Call([&live](RequestDesk& desk, base::TimePoint) { live = desk.live(); });
    return live == 0 && budget_.free_bytes() == budget_bytes_;
  }));
}

void FrontFixture::RequireServes() {
  RawHttpClient client(http_address());
  REQUIRE(client.Send(Post(R"({"messages":[{"role":"user","content":"Hello"}]})")));
  // Requests that were left behind may still be submitted before it.
  REQUIRE(Eventually(kPatience, [&] {
    while (submitted() > taken_) AnswerNext("It serves.");
    return !client.Peek().empty();
  }));
  const HttpReply reply = client.Read();
  REQUIRE(reply.status == 200);
  REQUIRE(reply.body.find("\"content\":\"It serves.\"") != std::string::npos);
  RequireIdle();
}

int FrontFixture::Count(const std::string& what, const std::string& reason) const {
  const std::string text = registry_.Serialize();
  const std::string row = absl::StrCat("triptych_", what, "_total{reason=\"", reason, "\"} ");
  const size_t at = text.find(row);
  if (at == std::string::npos) return 0;
  const size_t begin = at + row.size();
  double value = -1;
  REQUIRE(absl::SimpleAtod(text.substr(begin, text.find('\n', begin) - begin), &value));
  return static_cast<int>(value);
}

}  // namespace triptych::services::testing
