#pragma once

// Between the core's thread and a front end's: parts of an answer gather here until the front end
// can write them, so a slow reader costs nobody but itself. They stay apart while they are few, so
// that a front end that comes a moment late still gives its client token by token. Holds at most
// one answer, which --max-output-tokens and the context bound.

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "services/gateway/core/response_sink.h"

namespace triptych::services {

// Thread-safe.
class AnswerMailbox final : public ResponseSink {
 public:
  enum class Wake { kEachPart, kAtEnd };
  struct Mail {
    std::vector<AnswerPart> parts;  // everything since the last one, in order
    std::optional<AnswerEnd> end;
    bool admitted = false;  // has been, since the last one
    bool empty() const { return parts.empty() && !end && !admitted; }
    // All parts as one.
    AnswerPart Joined() const {
      AnswerPart all;
      for (const AnswerPart& part : parts) Append(part, &all);
      return all;
    }
  };

  // `wake` is called without a lock, on the core's thread, when mail has come into an empty box
  // (or, with kAtEnd, when the answer is over); it must not block.
  AnswerMailbox(Wake when, std::function<void()> wake) : when_(when), wake_(std::move(wake)) {}

  void OnAdmitted() override {
    if (when_ == Wake::kAtEnd) return;
    {
      base::MutexLock lock(&mutex_);
      if (std::exchange(mail_.admitted, true)) return;
    }
    wake_();
  }

  void OnPart(AnswerPart part) override {
    {
      base::MutexLock lock(&mutex_);
      const bool first = mail_.empty();
      if (mail_.parts.size() < kMaxApart) {
        mail_.parts.push_back(std::move(part));
      } else {
        Append(part, &mail_.parts.back());
      }
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
  // Beyond so many the reader is slow, and parts are joined.
  static constexpr size_t kMaxApart = 16;

  static void Append(const AnswerPart& part, AnswerPart* all) {
    all->text += part.text;
    all->tokens.insert(all->tokens.end(), part.tokens.begin(), part.tokens.end());
  }

  const Wake when_;
  const std::function<void()> wake_;
  base::Mutex mutex_;
  Mail mail_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace triptych::services
