#include "services/worker/input_puller.h"

#include <algorithm>
#include <utility>

#include "base/rpc.h"
#include "base/status.h"
#include "media/limits.h"
#include "services/convert/gateway_messages.h"
#include "services/convert/ids.h"

namespace triptych::services {
namespace {

using scheduler::Incarnation;
using scheduler::TaskId;

constexpr int kMaxPictures = 4096;
// Above the gateway's own limit on a request's body; guards against a gateway gone mad.
constexpr int64_t kMaxMediaBytes = int64_t{128} << 20;

}  // namespace

InputPuller::InputPuller(Incarnation self, base::RpcSecurity security, Listener listener)
    : security_(std::move(security)),
      listener_(std::move(listener)),
      streams_(self, MakeWiring()) {}

InputPuller::Streams::Wiring InputPuller::MakeWiring() {
  return {.connect =
              [this](const std::string& address) {
                std::shared_ptr<v1::Payload::Stub> stub =
                    v1::Payload::NewStub(base::Connect(address, security_, base::Role::kGateway));
                return [stub](grpc::ClientContext* context, auto* reactor) {
                  stub->async()->Pull(context, reactor);
                };
              },
          .on_batch = [this](Incarnation gateway,
                             v1::PullAnswerBatch& batch) { OnAnswers(gateway, batch); },
          .on_lost = [this](const scheduler::PeerAddress& gateway) { OnLost(gateway); }};
}

void InputPuller::Pull(const scheduler::PullRequest& request,
                       const scheduler::PeerAddress& gateway) {
  base::MutexLock lock(&mutex_);
  Wanted& wanted = wanted_[request.task];
  NoteHeard(wanted);
  wanted = Wanted{.request = request, .gateway = gateway};
  if (!wanted.media_too()) return Ask(wanted);
  Queue(wanted);
  AskNextMedia(gateway.incarnation);
}

void InputPuller::Drop(TaskId task) {
  if (listener_.on_drop) listener_.on_drop(task);
  base::MutexLock lock(&mutex_);
  auto it = wanted_.find(task);
  if (it == wanted_.end()) return;
  NoteHeard(it->second);
  const Incarnation gateway = it->second.gateway.incarnation;
  wanted_.erase(it);
  AskNextMedia(gateway);
}

void InputPuller::ForgetGateway(Incarnation gateway) {
  streams_.Forget(gateway);
  std::vector<Ended> ended;
  {
    base::MutexLock lock(&mutex_);
    lines_.erase(gateway);
    for (auto it = wanted_.begin(); it != wanted_.end();) {
      auto next = std::next(it);
      if (it->second.gateway.incarnation == gateway) {
        ended.push_back({absl::UnavailableError("gateway lost"), std::move(it->second)});
        wanted_.erase(it);
      }
      it = next;
    }
  }
  for (Ended& pull : ended) Finish(std::move(pull));
}

// ---- asking -------------------------------------------------------------------------------------

void InputPuller::Ask(Wanted& wanted) {
  v1::PullRequest message = ToProto(wanted.request);
  message.set_media_offset(static_cast<int64_t>(wanted.bytes.size()));
  wanted.asked = true;
  // Null while everything ends; and a stream that takes nothing more is about to be lost.
  if (auto stream = streams_.To(wanted.gateway)) stream->Enqueue(std::move(message));
}

void InputPuller::Queue(const Wanted& wanted) {
  lines_[wanted.gateway.incarnation].waiting.push_back(wanted.request.task);
}

void InputPuller::AskNextMedia(Incarnation gateway) {
  auto line = lines_.find(gateway);
  if (line == lines_.end()) return;
  auto& [asked, waiting] = line->second;
  while (asked < kMaxMediaAsked && !waiting.empty()) {
    auto it = wanted_.find(waiting.front());
    waiting.pop_front();
    if (it == wanted_.end() || it->second.asked) continue;
    Ask(it->second);
    ++asked;
  }
}

void InputPuller::NoteHeard(Wanted& wanted) {
  if (!std::exchange(wanted.asked, false) || !wanted.media_too()) return;
  auto line = lines_.find(wanted.gateway.incarnation);
  if (line != lines_.end()) --line->second.asked;
}

// ---- answers ------------------------------------------------------------------------------------

void InputPuller::OnAnswers(Incarnation gateway, v1::PullAnswerBatch& batch) {
  std::vector<Ended> ended;
  {
    base::MutexLock lock(&mutex_);
    for (v1::PullAnswer& answer : *batch.mutable_messages()) {
      auto it = wanted_.find(FromProto(answer.task()));
      if (it == wanted_.end()) continue;
      Wanted& wanted = it->second;
      // An answer to an earlier life of the task, or one that was asked for twice.
      if (!wanted.asked || wanted.gateway.incarnation != gateway ||
          answer.media_offset() != static_cast<int64_t>(wanted.bytes.size())) {
        continue;
      }
      NoteHeard(wanted);
      const absl::Status status = Take(answer, &wanted);
      if (status.ok() && !wanted.complete()) {
        Queue(wanted);
        continue;
      }
      ended.push_back({status, std::move(wanted)});
      wanted_.erase(it);
    }
    AskNextMedia(gateway);
  }
  for (Ended& pull : ended) Finish(std::move(pull));
  // The loop flushes what it asks for; this is the only other place that asks.
  streams_.Flush();
}

absl::Status InputPuller::Take(v1::PullAnswer& answer, Wanted* wanted) {
  if (answer.has_error()) {
    const absl::Status error = FromProto(answer.error());
    return error.ok() ? absl::InternalError("an error that is none") : error;
  }
  if (answer.has_input()) RETURN_IF_ERROR(TakeInput(answer.input(), wanted));
  if (!wanted->input.has_value()) return absl::UnavailableError("empty pull");
  const auto before = static_cast<int64_t>(wanted->bytes.size());
  const auto size = static_cast<int64_t>(answer.media_chunk().size());
  if (size > wanted->media_bytes - before || (size == 0 && before < wanted->media_bytes)) {
    return absl::UnavailableError("media were cut");
  }
  if (before == 0) {
    wanted->bytes = std::move(*answer.mutable_media_chunk());
    if (size < wanted->media_bytes) wanted->bytes.reserve(wanted->media_bytes);
  } else {
    wanted->bytes += answer.media_chunk();
  }
  return absl::OkStatus();
}

absl::Status InputPuller::TakeInput(const v1::PulledInput& input, Wanted* wanted) {
  ASSIGN_OR_RETURN(wanted->input, FromProto(input));
  if (!wanted->media_too()) return absl::OkStatus();
  const v1::MediaLayout& layout = input.media();
  if (layout.size_bytes_size() > kMaxPictures || layout.kind() < 0 ||
      layout.kind() > v1::ITEM_KIND_VIDEO) {
    return media::ImageMalformed();
  }
  int64_t total = 0;
  for (int64_t size : layout.size_bytes()) {
    if (size <= 0) return absl::UnavailableError("media were cut");
    if (size > kMaxMediaBytes - total) return media::ImageTooLarge();
    total += size;
  }
  wanted->media_bytes = total;
  wanted->layout = layout;
  wanted->media.kind = static_cast<scheduler::ItemKind>(layout.kind());
  wanted->media.grid = FromProto(input.grid());
  return absl::OkStatus();
}

// Cuts the concatenated bytes into pictures.
void InputPuller::CutMedia(Wanted* wanted) {
  if (wanted->layout.size_bytes_size() == 1) {
    wanted->media.pictures.push_back(std::move(wanted->bytes));
    return;
  }
  size_t begin = 0;
  for (int64_t size : wanted->layout.size_bytes()) {
    wanted->media.pictures.push_back(wanted->bytes.substr(begin, static_cast<size_t>(size)));
    begin += static_cast<size_t>(size);
  }
}

void InputPuller::OnLost(const scheduler::PeerAddress& gateway) {
  std::vector<Ended> ended;
  {
    base::MutexLock lock(&mutex_);
    lines_.erase(gateway.incarnation);
    std::vector<TaskId> again;
    for (auto& [task, wanted] : wanted_) {
      if (wanted.gateway.incarnation == gateway.incarnation) again.push_back(task);
    }
    std::sort(again.begin(), again.end());
    for (const TaskId& task : again) {
      Wanted& wanted = wanted_.at(task);
      wanted.asked = false;
      if (++wanted.breaks > kMaxBreaks) {
        ended.push_back({absl::UnavailableError("gateway unreachable"), std::move(wanted)});
        wanted_.erase(task);
      } else if (wanted.media_too()) {
        Queue(wanted);
      } else {
        Ask(wanted);
      }
    }
    AskNextMedia(gateway.incarnation);
  }
  for (Ended& pull : ended) Finish(std::move(pull));
  streams_.Flush();
}

void InputPuller::Finish(Ended ended) {
  Wanted& wanted = ended.wanted;
  const TaskId task = wanted.request.task;
  if (!ended.status.ok()) return listener_.on_input(task, ended.status);
  listener_.on_input(task, *std::move(wanted.input));
  if (!wanted.media_too()) return;
  CutMedia(&wanted);
  wanted.media.tenant = wanted.layout.tenant();
  wanted.media.request = wanted.request.request;
  wanted.media.task = task;
  listener_.on_media(task, std::move(wanted.media));
}

}  // namespace triptych::services
