#include "services/cli/load_generator.h"

#include <grpcpp/support/client_callback.h>

#include <utility>

#include "base/rpc.h"

namespace triptych::services {

// One request under way. Frees itself when its stream has ended.
class LoadGenerator::Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(LoadGenerator* owner, size_t index, base::TimePoint scheduled, RequestOutcome outcome)
      : owner_(owner), index_(index), scheduled_(scheduled), outcome_(std::move(outcome)) {}

  void Start(v1::Inference::Stub* stub, const v1::GenerateRequest& request) {
    outcome_.sent = Elapsed();
    base::SetDeadline(owner_->options_.request_timeout, &context_);
    stub->async()->Generate(&context_, &request, this);
    StartRead(&response_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (response_.tokens_size() > 0 || !response_.text().empty()) NoteTokens();
    if (response_.finish() != v1::FINISH_NONE && response_.usage().output_tokens() > 0) {
      outcome_.tokens = response_.usage().output_tokens();
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    outcome_.end = Elapsed();
    outcome_.code = static_cast<absl::StatusCode>(status.error_code());
    owner_->OnEnded(index_, std::move(outcome_));
    delete this;
  }

 private:
  double Elapsed() const { return base::ToSeconds(owner_->clock_.Now() - scheduled_); }

  void NoteTokens() {
    const double now = Elapsed();
    if (outcome_.first_token == 0) {
      outcome_.first_token = now;
    } else {
      outcome_.gaps.push_back(static_cast<float>(now - outcome_.last_token));
    }
    outcome_.last_token = now;
    outcome_.tokens += response_.tokens_size();
  }

  LoadGenerator* const owner_;
  const size_t index_;
  const base::TimePoint scheduled_;
  RequestOutcome outcome_;
  grpc::ClientContext context_;
  v1::GenerateResponse response_;
};

LoadGenerator::LoadGenerator(LoadOptions options, const base::Clock& clock)
    : options_(std::move(options)), clock_(clock) {
  for (int i = 0; i < options_.channels; ++i) {
    stubs_.push_back(v1::Inference::NewStub(base::ConnectAsClient(options_.server)));
  }
}

LoadGenerator::~LoadGenerator() = default;

std::vector<RequestOutcome> LoadGenerator::Run(const std::vector<Arrival>& arrivals,
                                               const RequestMix& mix) {
  base::SeededRandom random(options_.seed);
  {
    base::MutexLock lock(&mutex_);
    outcomes_.assign(arrivals.size(), {});
  }
  const base::TimePoint start = clock_.Now();
  for (size_t i = 0; i < arrivals.size(); ++i) {
    const Arrival& arrival = arrivals[i];
    const MixEntry& entry = Draw(mix, &random);
    RequestOutcome outcome{.scheduled = arrival.at, .with_picture = !entry.images.empty()};
    const v1::GenerateRequest request = MakeRequest(
        entry, static_cast<int64_t>(i), arrival.context_tokens, arrival.generated_tokens);
    if (!WaitUntil(start + arrival.at)) {
      outcome.code = absl::StatusCode::kResourceExhausted;
      base::MutexLock lock(&mutex_);
      outcomes_[i] = std::move(outcome);
      continue;
    }
    // Deletes itself in OnDone.
    auto* call = new Call(this, i, start + arrival.at, std::move(outcome));
    call->Start(stubs_[i % stubs_.size()].get(), request);
  }
  base::MutexLock lock(&mutex_);
  while (in_flight_ > 0) changed_.Wait(&mutex_);
  return std::move(outcomes_);
}

// True when a request may leave then; it counts as under way.
bool LoadGenerator::WaitUntil(base::TimePoint when) {
  base::MutexLock lock(&mutex_);
  // Nobody notifies while requests leave, but for ends that nobody waits for.
  while (clock_.Now() < when) changed_.WaitUntil(&mutex_, when);
  if (in_flight_ >= options_.max_in_flight) return false;
  ++in_flight_;
  return true;
}

void LoadGenerator::OnEnded(size_t index, RequestOutcome outcome) {
  base::MutexLock lock(&mutex_);
  outcomes_[index] = std::move(outcome);
  // Under the lock: the destructor may run as soon as the waiter sees it.
  if (--in_flight_ == 0) changed_.NotifyAll();
}

}  // namespace triptych::services
