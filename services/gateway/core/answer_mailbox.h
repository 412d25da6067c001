#pragma once

// Between the core's thread and a front end's: parts of an answer gather here until the front end
// can write them, so a slow reader costs nobody but itself. Holds at most one answer, which
// --max-output-tokens bounds.

#include <functional>
#include <optional>
#include <utility>

#include "base/mutex.h"
#include "services/gateway/core/response_sink.h"

namespace triptych::services {

// Thread-safe.
class AnswerMailbox final : public ResponseSink {
 public:
  enum class Wake { kEachPart, kAtEnd };
  struct Mail {
    AnswerPart part;  // everything since the last one, joined
    std::optional<AnswerEnd> end;
    bool empty() const { return part.text.empty() && part.tokens.empty() && !end; }
  };

  // `wake` is called without a lock, on the core's thread, when mail has come into an empty box
  // (or, with kAtEnd, when the answer is over); it must not block.
  AnswerMailbox(Wake when, std::function<void()> wake) : when_(when), wake_(std::move(wake)) {}

  void OnPart(AnswerPart part) override {
    {
      base::MutexLock lock(&mutex_);
      const bool first = mail_.empty();
      Join(std::move(part));
      if (!first || when_ == Wake::kAtEnd) return;
    }
    wake_();
  }

  void OnEnd(const AnswerEnd& end) override {
    {
      base::MutexLock lock(&mutex_);
      mail_.end = end;
    }
    wake_();
  }

  // What has come since the last call.
  Mail Take() {
    base::MutexLock lock(&mutex_);
    return std::exchange(mail_, {});
  }

 private:
  void Join(AnswerPart&& part) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (mail_.part.text.empty() && mail_.part.tokens.empty()) {
      mail_.part = std::move(part);
      return;
    }
    mail_.part.text += part.text;
    for (scheduler::SampledToken& token : part.tokens) {
      mail_.part.tokens.push_back(std::move(token));
    }
  }

  const Wake when_;
  const std::function<void()> wake_;
  base::Mutex mutex_;
  Mail mail_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::services
