#include "services/cli/load_generator.h"

#include <utility>

namespace triptych::services {

// One request under way. Frees itself at its end.
class LoadGenerator::Call final : public LoadListener {
 public:
  Call(LoadGenerator* owner, size_t index, base::TimePoint scheduled, RequestOutcome outcome)
      : owner_(owner), index_(index), scheduled_(scheduled), outcome_(std::move(outcome)) {
    outcome_.sent = Elapsed();
  }

  void OnPart(int tokens) override {
    const double now = Elapsed();
    if (outcome_.first_token == 0) {
      outcome_.first_token = now;
    } else {
      outcome_.gaps.push_back(static_cast<float>(now - outcome_.last_token));
    }
    outcome_.last_token = now;
    outcome_.tokens += tokens;
  }

  void OnEnd(const absl::Status& status, int output_tokens) override {
    outcome_.end = Elapsed();
    outcome_.status = status;
    if (output_tokens > 0) outcome_.tokens = output_tokens;
    owner_->OnEnded(index_, std::move(outcome_));
    delete this;
  }

 private:
  double Elapsed() const { return base::ToSeconds(owner_->clock_.Now() - scheduled_); }

  LoadGenerator* const owner_;
  const size_t index_;
  const base::TimePoint scheduled_;
  RequestOutcome outcome_;
};

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
      outcome.status = absl::ResourceExhaustedError("--max-in-flight is reached");
      base::MutexLock lock(&mutex_);
      outcomes_[i] = std::move(outcome);
      continue;
    }
    auto* call = new Call(this, i, start + arrival.at, std::move(outcome));  // frees itself
    client_.Send(request, call);
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
