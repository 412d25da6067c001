#pragma once

// A gateway's two front ends on real ports, over a real core and the shipped model; the scheduler
// and the workers are the test's: it waits for what is submitted and says what they answer.

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "services/gateway/core/front_end.h"
#include "services/gateway/http/http_server.h"
#include "services/gateway/rpc/http2_gate.h"
#include "services/gateway/rpc/inference_service.h"
#include "services/runtime/rpc_server.h"
#include "tests/services/gateway/raw_http_client.h"
#include "tests/services/gateway/small_model.h"
#include "tests/services/runtime/scripted_scheduler.h"

namespace triptych::services::testing {

class FrontFixture {
 public:
  struct Options {
    HttpTimeouts timeouts;
    int64_t max_body_bytes = 1 << 20;
    int64_t budget_bytes = 8 << 20;
    int max_requests = 64;
    int32_t max_output_tokens = 128;
    base::Duration write_stall = std::chrono::seconds(30);
    std::vector<std::string> allowed_origins;
    // Borrowed; null: plain.
    base::TlsServer* http_tls = nullptr;
    base::TlsServer* grpc_tls = nullptr;
  };
  // What a test of time asserts is an order of events, so the wall clock stands still.
  static constexpr int64_t kUnixSeconds = 1'700'000'000;

  explicit FrontFixture(Options options);
  FrontFixture() : FrontFixture(Options()) {}
  ~FrontFixture();

  const std::string& http_address() const { return http_->address(); }
  const std::string& grpc_address() const { return gate_->address(); }
  void SetReady(bool ready) { ready_.store(ready); }
  GatewayCore& core() { return core_; }
  const std::string& model() const { return SmallModel()->name(); }

  // ---- the scheduler and the workers

  // The next request that was submitted; requires that one is.
  scheduler::SubmitRequest WaitSubmit();
  // How many have been.
  size_t submitted() const { return submits_.size(); }
  // The next tokens of a request, those of `text`; and the model's own end with kStop.
  void Say(const scheduler::RequestId& id, const std::string& text,
           scheduler::Finish finish = scheduler::Finish::kNone);
  // Many tokens, each with its likeliest others: over 1 KiB a token as JSON.
  void SayAtLength(const scheduler::RequestId& id, int tokens);
  // The scheduler takes a request in.
  void Admit(const scheduler::RequestId& id);
  void Fail(const scheduler::RequestId& id, const absl::Status& status,
            base::Duration retry_after = base::Duration(0));
  // The worker's own error for a request, after the tokens that were said.
  void FailTask(const scheduler::RequestId& id, const absl::Status& status);
  // Answers the next request with `text`.
  void AnswerNext(const std::string& text);

  // ---- what must hold afterwards

  // Requires that no request is live and no byte of the budget held, or soon will be.
  void RequireIdle();
  int64_t held_bytes() const { return budget_bytes_ - budget_.free_bytes(); }
  // Of triptych_refusals_total and triptych_terminals_total, by reason.
  int Refusals(const std::string& reason) const { return Count("refusals", reason); }
  int Terminals(const std::string& reason) const { return Count("terminals", reason); }
  // Requires that a new client gets a whole answer.
  void RequireServes();

 private:
  void Send(scheduler::TokenBatch batch);
  int Count(const std::string& what, const std::string& reason) const;
  void OnMessages(absl::Span<const scheduler::GatewayToScheduler> messages);

  const base::RealClock clock_;
  base::Registry registry_;
  GatewayMetrics metrics_{&registry_};
  base::CapturingLogger log_{clock_, base::LogLevel::kError};
  const Intake intake_;
  const int64_t budget_bytes_;
  PayloadBudget budget_;
  ApiKeys keys_{clock_};
  ParsePool parsers_{2};
  std::atomic<bool> ready_{true};
  Inbox<scheduler::SubmitRequest> submits_;
  size_t taken_ = 0;
  std::map<scheduler::RequestId, int32_t> said_;
  std::atomic<uint64_t> drawn_{0};
  const Tracer tracer_{0, [this] { return ++drawn_; }};  // follows its callers' traces alone
  GatewayCore core_;
  const FrontEnd front_;
  InferenceService inference_{front_};
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<RpcServer> grpc_;
  std::unique_ptr<Http2Gate> gate_;
};

}  // namespace triptych::services::testing
