#include "services/gateway/rpc/payload_service.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "scheduler/plan/task_pass.h"
#include "services/convert/gateway_messages.h"
#include "services/convert/ids.h"
#include "services/gateway/rpc/worker_stream.h"
#include "services/runtime/server_stream.h"

namespace triptych::services {
namespace {

using PullStream = ServerStream<v1::PullRequestBatch, v1::PullAnswerBatch>;

constexpr int64_t kChunkBytes = 1 << 20;

struct Asked {
  scheduler::PullRequest pull;
  int64_t media_offset = 0;
};

v1::MediaLayout LayoutOf(const PayloadItem& item) {
  v1::MediaLayout layout;
  layout.set_kind(static_cast<v1::ItemKind>(item.kind));
  layout.set_fps(item.fps);
  layout.set_tenant(item.tenant);
  for (const std::string& frame : item.frames) layout.add_size_bytes(frame.size());
  return layout;
}

// Bytes [offset, offset + at most a chunk) of the item's frames, one after the other. False when
// there are none.
bool AppendChunk(const PayloadItem& item, int64_t offset, std::string* chunk) {
  for (const std::string& frame : item.frames) {
    const auto size = static_cast<int64_t>(frame.size());
    if (offset >= size) {
      offset -= size;
      continue;
    }
    const int64_t room = kChunkBytes - static_cast<int64_t>(chunk->size());
    chunk->append(frame, static_cast<size_t>(offset), static_cast<size_t>(room));
    if (static_cast<int64_t>(chunk->size()) == kChunkBytes) return true;
    offset = 0;
  }
  return !chunk->empty();
}

v1::PullAnswer Answer(RequestDesk& desk, const Asked& asked, base::TimePoint now) {
  v1::PullAnswer out;
  *out.mutable_task() = ToProto(asked.pull.task);
  out.set_media_offset(asked.media_offset);
  absl::StatusOr<PullAnswer> answer = desk.Pull(asked.pull, now);
  if (!answer.ok()) {
    *out.mutable_error() = ToProto(answer.status());
    return out;
  }
  if (asked.media_offset == 0) *out.mutable_input() = ToProto(answer->input);
  if (answer->media == nullptr) return out;
  const PayloadItem& item = *answer->media;
  if (asked.media_offset == 0) {
    *out.mutable_input()->mutable_media() = LayoutOf(item);
    *out.mutable_input()->mutable_grid() = ToProto(item.grid);
  }
  if (!AppendChunk(item, asked.media_offset, out.mutable_media_chunk())) {
    out.clear_input();
    *out.mutable_error() = ToProto(absl::InvalidArgumentError("no media there"));
  }
  return out;
}

// What arrived in one read goes to the core as one event.
void OnBatch(GatewayCore* core, const scheduler::PassKey& key, PullStream* stream,
             const v1::PullRequestBatch& batch) {
  if (!MeetWorker(*core, batch.envelope(), stream)) return;
  std::vector<Asked> asked;
  asked.reserve(batch.messages_size());
  for (const v1::PullRequest& message : batch.messages()) {
    absl::StatusOr<scheduler::PullRequest> pull = FromProto(message);
    if (!pull.ok() || message.media_offset() < 0) {
      return stream->Close({grpc::StatusCode::INVALID_ARGUMENT, "malformed"});
    }
    const scheduler::Errand errand{.request = pull->request,
                                   .task = pull->task,
                                   .worker = scheduler::Incarnation(stream->peer()),
                                   .stage = pull->stage,
                                   .epoch = pull->epoch};
    if (pull->pass != scheduler::PassOf(key, errand)) return stream->Close(NoPass());
    asked.push_back({*std::move(pull), message.media_offset()});
  }
  // Keeps the stream alive until the answers are written.
  auto shared = stream->shared();
  const bool posted =
      core->Post([shared, asked = std::move(asked)](RequestDesk& desk, base::TimePoint now) {
        for (const Asked& pull : asked) shared->Enqueue(Answer(desk, pull, now));
        shared->Flush();
      });
  // The worker opens it again and asks again.
  if (!posted) stream->Close({grpc::StatusCode::RESOURCE_EXHAUSTED, "busy"});
}

}  // namespace

grpc::ServerBidiReactor<v1::PullRequestBatch, v1::PullAnswerBatch>* PayloadService::Pull(
    grpc::CallbackServerContext*) {
  return PullStream::Open(
             [this](PullStream* stream, v1::PullRequestBatch& batch) {
               OnBatch(core_, key_, stream, batch);
             },
             [](PullStream*) {})
      .get();
}

}  // namespace triptych::services
