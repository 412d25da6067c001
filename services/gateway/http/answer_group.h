#pragma once

// The answers to one body, prompts times n, as one document or one stream. Knows no socket: the
// session asks what there is to write whenever a mailbox has woken it.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/gateway/core/answer_mailbox.h"
#include "services/gateway/http/answer_json.h"

namespace triptych::services {

// One thread; borrows the tokenizer.
class AnswerGroup {
 public:
  enum class Form { kDocument, kStream };

  AnswerGroup(const models::Tokenizer& tokenizer, AnswerForm form, Form kind)
      : tokenizer_(tokenizer), form_(std::move(form)), kind_(kind), events_(tokenizer, form_) {}

  // Adds an answer; `first` says that its prompt has not been counted. Prompt tokens of `usage`
  // are known by now.
  enum class Prompt { kFirst, kAgain };
  void Add(scheduler::RequestId id, std::shared_ptr<AnswerMailbox> mailbox, const Usage& usage,
           Prompt prompt);

  // Takes what has come. kNothing: no need to write. kWrite: `*out` grew (events), more follow.
  // kDone: `*out` grew, and nothing follows. kFailed: nothing has been written, `failure()` is the
  // whole answer.
  enum class News { kNothing, kWrite, kDone, kFailed };
  News Take(std::string* out);

  bool failed() const { return failure_.has_value(); }
  const AnswerEnd& failure() const { return *failure_; }
  // Those whose end has not come.
  std::vector<scheduler::RequestId> Live() const;
  bool streams() const { return kind_ == Form::kStream; }
  // A stream whose first events were taken.
  bool opened() const { return opened_; }
  int64_t output_tokens() const;

 private:
  struct Member {
    scheduler::RequestId id;
    std::shared_ptr<AnswerMailbox> mailbox;  // shared with the core
    Usage usage;
    Prompt prompt = Prompt::kFirst;
    bool admitted = false;
    std::vector<AnswerPart> parts;  // not yet written
    std::optional<AnswerEnd> end;
    bool finished = false;  // its end is written
  };

  void Gather();
  void Open(std::string* out);
  void AppendNews(std::string* out);
  Usage AllUsage() const;

  const models::Tokenizer& tokenizer_;
  const AnswerForm form_;
  const Form kind_;
  EventWriter events_;
  std::vector<Member> members_;
  std::optional<AnswerEnd> failure_;
  bool opened_ = false;
};

}  // namespace triptych::services
