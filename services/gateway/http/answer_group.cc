#include "services/gateway/http/answer_group.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace triptych::services {

void AnswerGroup::Add(scheduler::RequestId id, std::shared_ptr<AnswerMailbox> mailbox,
                      const Usage& usage, Prompt prompt) {
  members_.push_back({.id = id, .mailbox = std::move(mailbox), .usage = usage, .prompt = prompt});
}

void AnswerGroup::Gather() {
  for (Member& member : members_) {
    AnswerMailbox::Mail mail = member.mailbox->Take();
    member.admitted |= mail.admitted || mail.end || !mail.parts.empty();
    std::move(mail.parts.begin(), mail.parts.end(), std::back_inserter(member.parts));
    if (!mail.end) continue;
    member.end = std::move(mail.end);
    if (!member.end->status.ok() && !failure_) failure_ = member.end;
  }
}

AnswerGroup::News AnswerGroup::Take(std::string* out) {
  Gather();
  const size_t before = out->size();
  const bool over = std::all_of(members_.begin(), members_.end(),
                                [](const Member& m) { return m.end.has_value(); });
  if (!streams()) {
    if (failure_) return News::kFailed;
    if (!over) return News::kNothing;
    std::vector<WholeAnswer> answers;
    for (Member& m : members_) {
      m.usage = m.end->usage;
      const AnswerMailbox::Mail all{.parts = std::move(m.parts)};
      answers.push_back({all.Joined(), m.end->finish});
    }
    *out += CompletionJson(tokenizer_, form_, answers, AllUsage());
    return News::kDone;
  }
  const bool spoken = std::any_of(members_.begin(), members_.end(),
                                  [](const Member& m) { return !m.parts.empty(); });
  if (failure_ && !opened_ && !spoken) return News::kFailed;
  if (!opened_) Open(out);
  if (!opened_) return News::kNothing;
  AppendNews(out);
  if (failure_) {
    events_.AppendError(failure_->status, out);
    return News::kDone;
  }
  if (over) {
    events_.AppendDone(AllUsage(), out);
    return News::kDone;
  }
  return out->size() > before ? News::kWrite : News::kNothing;
}

// All of them are admitted, or one speaks already.
void AnswerGroup::Open(std::string* out) {
  const bool admitted =
      std::all_of(members_.begin(), members_.end(), [](const Member& m) { return m.admitted; });
  const bool spoken = std::any_of(members_.begin(), members_.end(),
                                  [](const Member& m) { return !m.parts.empty(); });
  if (!admitted && !spoken) return;
  opened_ = true;
  events_.AppendOpening(static_cast<int>(members_.size()), out);
}

void AnswerGroup::AppendNews(std::string* out) {
  for (size_t i = 0; i < members_.size(); ++i) {
    Member& member = members_[i];
    const int index = static_cast<int>(i);
    for (const AnswerPart& part : std::exchange(member.parts, {})) {
      member.usage.output_tokens += static_cast<int32_t>(part.tokens.size());
      events_.AppendPart(index, part, member.usage, out);
    }
    if (!member.end || !member.end->status.ok() || std::exchange(member.finished, true)) continue;
    member.usage = member.end->usage;
    events_.AppendFinish(index, member.end->finish, member.usage, out);
  }
}

std::vector<scheduler::RequestId> AnswerGroup::Live() const {
  std::vector<scheduler::RequestId> live;
  for (const Member& member : members_) {
    if (!member.end) live.push_back(member.id);
  }
  return live;
}

int64_t AnswerGroup::output_tokens() const {
  int64_t tokens = 0;
  for (const Member& member : members_) tokens += member.usage.output_tokens;
  return tokens;
}

Usage AnswerGroup::AllUsage() const {
  Usage all;
  for (const Member& member : members_) {
    all.output_tokens += member.usage.output_tokens;
    if (member.prompt == Prompt::kAgain) continue;
    all.prompt_tokens += member.usage.prompt_tokens;
    all.picture_tokens += member.usage.picture_tokens;
    all.cached_tokens += member.usage.cached_tokens;
  }
  return all;
}

}  // namespace triptych::services
