#include "services/gateway/rpc/tokens_service.h"

#include <memory>
#include <utility>
#include <vector>

#include "scheduler/plan/task_pass.h"
#include "services/convert/gateway_messages.h"
#include "services/gateway/rpc/worker_stream.h"
#include "services/runtime/server_stream.h"

namespace triptych::services {
namespace {

using TokenStream = ServerStream<v1::TokenBatches, v1::TokenReplies>;

struct Arrival {
  scheduler::TokenBatch batch;
  StageTimes times;
};

StageTimes TimesOf(const v1::StageTimes& times) {
  return {.media_decode_us = times.media_decode_us(),
          .encode_us = times.encode_us(),
          .embedding_transfer_us = times.embedding_transfer_us(),
          .embedding_bytes = times.embedding_bytes(),
          .prefill_us = times.prefill_us(),
          .kv_transfer_us = times.kv_transfer_us(),
          .kv_bytes = times.kv_bytes()};
}

// Tokens and errors are heard of prefill and decode; an encoder tells its times alone.
bool MaySay(const scheduler::PassKey& key, scheduler::Incarnation worker,
            const scheduler::TokenBatch& batch) {
  scheduler::Errand errand{
      .request = batch.request, .task = batch.task, .worker = worker, .epoch = batch.epoch};
  for (const auto stage : {scheduler::Stage::kDecode, scheduler::Stage::kPrefill}) {
    errand.stage = stage;
    if (batch.pass == scheduler::PassOf(key, errand)) return true;
  }
  errand.stage = scheduler::Stage::kEncode;
  return batch.tokens.empty() && batch.error.ok() && batch.pass == scheduler::PassOf(key, errand);
}

// What arrived in one read goes to the core as one event.
void OnBatch(GatewayCore* core, const scheduler::PassKey& key, TokenStream* stream,
             const v1::TokenBatches& batches) {
  if (!MeetWorker(*core, batches.envelope(), stream)) return;
  std::vector<Arrival> arrivals;
  arrivals.reserve(batches.messages_size());
  for (const v1::TokenBatch& message : batches.messages()) {
    absl::StatusOr<scheduler::TokenBatch> batch = FromProto(message);
    if (!batch.ok()) return stream->Close({grpc::StatusCode::INVALID_ARGUMENT, "malformed"});
    if (!MaySay(key, scheduler::Incarnation(stream->peer()), *batch)) {
      return stream->Close(NoPass());
    }
    arrivals.push_back({*std::move(batch), TimesOf(message.times())});
  }
  // Keeps the stream alive until the replies are written.
  auto shared = stream->shared();
  const bool posted = core->PostTokens(
      [shared, arrivals = std::move(arrivals)](RequestDesk& desk, base::TimePoint now) {
        for (const Arrival& arrival : arrivals) {
          shared->Enqueue(ToProto(desk.Tokens(arrival.batch, arrival.times, now)));
        }
        shared->Flush();
      });
  // The worker opens it again and sends what was not acknowledged.
  if (!posted) stream->Close({grpc::StatusCode::RESOURCE_EXHAUSTED, "busy"});
}

}  // namespace

grpc::ServerBidiReactor<v1::TokenBatches, v1::TokenReplies>* TokensService::Stream(
    grpc::CallbackServerContext*) {
  return TokenStream::Open(
             [this](TokenStream* stream, v1::TokenBatches& batches) {
               OnBatch(core_, key_, stream, batches);
             },
             [](TokenStream*) {})
      .get();
}

}  // namespace triptych::services
