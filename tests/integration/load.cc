#include "tests/integration/load.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/rpc.h"
#include "tests/support/eventually.h"

namespace triptych::testing {
namespace {

bool IsIn(Phase phase, int tokens) {
  switch (phase) {
    case Phase::kBeforeFirstToken:
      return tokens == 0;
    case Phase::kAfterFirstToken:
      return tokens > 0 && tokens < kManyTokens;
    case Phase::kAfterManyTokens:
      return tokens >= kManyTokens;
  }
  return false;
}

}  // namespace

Reply Ask(v1::Inference::Stub* stub, const v1::GenerateRequest& request,
          const std::function<void(int)>& on_tokens) {
  grpc::ClientContext context;
  base::SetDeadline(kSlowdown * std::chrono::minutes(2), &context);
  const auto stream = stub->Generate(&context, request);
  Reply reply;
  v1::GenerateResponse response;
  while (stream->Read(&response)) {
    reply.text += response.text();
    for (const v1::SampledToken& token : response.tokens()) reply.tokens.push_back(token.token());
    if (on_tokens && response.tokens_size() > 0) on_tokens(static_cast<int>(reply.tokens.size()));
    if (response.finish() == v1::FINISH_NONE) continue;
    reply.finish = response.finish();
    reply.usage = response.usage();
  }
  const grpc::Status status = stream->Finish();
  reply.ok = status.ok();
  reply.error = absl::StrCat(static_cast<int>(status.error_code()), " ", status.error_message());
  return reply;
}

Load::Load(const std::string& grpc, std::vector<Question> questions, int concurrency)
    : questions_(std::move(questions)),
      stub_(v1::Inference::NewStub(base::ConnectAsClient(grpc))),
      tokens_(static_cast<size_t>(concurrency), -1),
      ended_(tokens_.size(), 0) {
  for (size_t i = 0; i < tokens_.size(); ++i) threads_.emplace_back([this, i] { Run(i); });
}

void Load::Run(size_t asker) {
  while (!stopping_.load()) {
    const Question& question =
        questions_[static_cast<size_t>(next_.fetch_add(1)) % questions_.size()];
    Note(asker, 0);
    const Reply reply =
        Ask(stub_.get(), question.request, [&](int tokens) { Note(asker, tokens); });
    Note(asker, -1);
    Judge(question, reply);
  }
}

void Load::Note(size_t asker, int tokens) {
  base::MutexLock lock(&mutex_);
  tokens_[asker] = tokens;
  if (tokens < 0) ++ended_[asker];
}

void Load::Judge(const Question& question, const Reply& reply) {
  base::MutexLock lock(&mutex_);
  answers_.fetch_add(1);
  std::string expected = question.expected;
  if (expected.empty() && reply.ok) {
    expected = first_text_.emplace(question.name, reply.text).first->second;
  }
  if (!reply.ok) faults_.push_back(absl::StrCat(question.name, ": ", reply.error));
  if (reply.ok && reply.text != expected) {
    faults_.push_back(
        absl::StrCat(question.name, ": got \"", reply.text, "\" not \"", expected, "\""));
  }
}

bool Load::WaitAnswers(int count, base::Duration timeout) const {
  return Eventually(timeout, [&] { return answers_.load() >= count; });
}

bool Load::WaitOneEach(base::Duration timeout) {
  std::vector<int> before;
  {
    base::MutexLock lock(&mutex_);
    before = ended_;
  }
  return Eventually(timeout, [&] {
    base::MutexLock lock(&mutex_);
    return std::equal(ended_.begin(), ended_.end(), before.begin(), std::greater<int>());
  });
}

int Load::CountIn(Phase phase) {
  base::MutexLock lock(&mutex_);
  return static_cast<int>(std::count_if(tokens_.begin(), tokens_.end(),
                                        [phase](int tokens) { return IsIn(phase, tokens); }));
}

std::vector<std::string> Load::Finish() {
  stopping_.store(true);
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  base::MutexLock lock(&mutex_);
  return faults_;
}

}  // namespace triptych::testing
