#include "services/gateway/rpc/inference_service.h"

#include <grpcpp/alarm.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/rpc.h"
#include "base/status.h"
#include "services/convert/ids.h"
#include "services/gateway/core/answer_mailbox.h"
#include "services/gateway/core/client.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/grpc_request.h"

namespace triptych::services {
namespace {

// By its key, "authorization" among the metadata, where there are keys.
absl::StatusOr<Client> ClientOf(const FrontEnd& front, const grpc::CallbackServerContext& context) {
  const auto key = context.client_metadata().find("authorization");
  absl::string_view authorization;
  if (key != context.client_metadata().end()) {
    authorization = absl::string_view(key->second.data(), key->second.size());
  }
  const std::string peer = context.peer();
  return front.keys.Identify(authorization,
                             front.client_of ? front.client_of(peer) : ClientOfPeer(peer));
}

v1::Timeline ToProto(const Timeline& from) {
  v1::Timeline to;
  to.set_queue_us(from.queue_us);
  to.set_media_decode_us(from.media_decode_us);
  to.set_encode_us(from.encode_us);
  to.set_embedding_transfer_us(from.embedding_transfer_us);
  to.set_embedding_bytes(from.embedding_bytes);
  to.set_prefill_us(from.prefill_us);
  to.set_kv_transfer_us(from.kv_transfer_us);
  to.set_kv_bytes(from.kv_bytes);
  to.set_first_token_us(from.first_token_us);
  to.set_total_us(from.total_us);
  to.set_tokens_per_second(from.tokens_per_second);
  return to;
}

// One answer. Lives until gRPC is done with it and the core has let go of the mailbox.
class GenerateReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  static GenerateReactor* Begin(const FrontEnd& front, grpc::CallbackServerContext* context,
                                const grpc::ByteBuffer& request) {
    auto reactor = std::shared_ptr<GenerateReactor>(new GenerateReactor(front, context));
    reactor->self_ = reactor;
    if (absl::Status begun = reactor->Receive(request); !begun.ok()) reactor->RefuseCall(begun);
    return reactor.get();
  }

  void OnWriteDone(bool ok) override {
    base::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) return Conclude(services::Refuse("cancelled"), base::Duration(0));
    WriteMail();
  }

  // The client left, or its own deadline passed. The core need not have started it yet: the post
  // that starts it is ahead of this one.
  void OnCancel() override {
    base::MutexLock lock(&mutex_);
    left_ = true;
    if (id_.number != 0) front_.core.Leave(id_);
  }

  void OnDone() override {
    {
      base::MutexLock lock(&mutex_);
      done_ = true;
    }
    self_.reset();
  }

 private:
  GenerateReactor(const FrontEnd& front, grpc::CallbackServerContext* context)
      : front_(front), context_(context) {}

  // A request as it came.
  struct Received {
    grpc::ByteBuffer bytes;
    Client client;
    PayloadBudget::Reservation reservation;
    base::TimePoint accepted;
    TraceContext trace;
  };

  // Starts it here if it is small, else on a thread of the pool.
  absl::Status Receive(const grpc::ByteBuffer& bytes) {
    Received received{.bytes = bytes, .accepted = front_.core.Now()};
    const auto size = static_cast<int64_t>(bytes.Length());
    if (size > front_.max_body_bytes) return services::Refuse("body_too_large");
    ASSIGN_OR_RETURN(received.client, ClientOf(front_, *context_));
    const std::string tenant = received.client.tenant;
    received.reservation = front_.budget.Open(tenant);
    if (!received.reservation.GrowTo(size)) return services::Refuse("overloaded");
    const auto& metadata = context_->client_metadata();
    if (const auto parent = metadata.find("traceparent"); parent != metadata.end()) {
      received.trace = front_.tracer.Join({parent->second.data(), parent->second.size()});
    } else {
      received.trace = front_.tracer.Join("");
    }
    if (size <= ParsePool::kAtOnceBytes) return Start(std::move(received));
    const bool posted = front_.parsers.Post(
        tenant,
        [self = shared_from_this(), received = std::move(received)](ParsePool::Turn turn) mutable {
          const absl::Status started = turn == ParsePool::Turn::kRun
                                           ? self->Start(std::move(received))
                                           : services::Refuse("draining");
          if (!started.ok()) self->RefuseCall(started);
        });
    return posted ? absl::OkStatus() : services::Refuse("overloaded");
  }

  void RefuseCall(const absl::Status& status) {
    front_.metrics.Refused(status);
    base::MutexLock lock(&mutex_);
    Conclude(status, std::chrono::seconds(1));
  }

  absl::Status Start(Received received) {
    const Client& client = received.client;
    ASSIGN_OR_RETURN(v1::GenerateRequest request, ReadGenerateRequest(received.bytes));
    ASSIGN_OR_RETURN(ChatRequest chat, FromProto(std::move(request)));
    ASSIGN_OR_RETURN(
        std::unique_ptr<ParsedRequest> parsed,
        front_.intake.Parse(std::move(chat), std::move(received.reservation), &client));
    RETURN_IF_ERROR(front_.keys.Charge(client, *parsed, front_.intake.model().name()));
    CompleteRequest(parsed.get());
    parsed->trace = received.trace;
    base::MutexLock lock(&mutex_);
    if (left_) return services::Refuse("cancelled");
    id_ = front_.core.NextId();
    request_id_ = parsed->client_id;
    // Weak: the mailbox must not keep a call that is over.
    auto wake = [weak = weak_from_this()] {
      if (auto self = weak.lock()) {
        base::MutexLock lock(&self->mutex_);
        self->WriteMail();
      }
    };
    mailbox_ = std::make_shared<AnswerMailbox>(AnswerMailbox::Wake::kEachPart, std::move(wake));
    return front_.core.Start({.id = id_,
                              .parsed = std::move(parsed),
                              .sink = mailbox_,
                              .owner = client.owner,
                              .accepted = received.accepted});
  }

  void WriteMail() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (ended_) return;
    if (writing_) return WatchWrite();
    AnswerMailbox::Mail mail = mailbox_->Take();
    mail.admitted = false;  // the call says so by being open
    if (mail.empty()) return;
    response_.Clear();
    response_.set_request_id(request_id_);
    // A message costs a write, so what has gathered leaves as one.
    AnswerPart part = mail.Joined();
    response_.set_text(std::move(part.text));
    for (const scheduler::SampledToken& token : part.tokens) {
      *response_.add_tokens() = services::ToProto(token);
    }
    if (mail.end && !mail.end->status.ok()) {
      return Conclude(mail.end->status, mail.end->retry_after);
    }
    if (mail.end) {
      SetEnd(*mail.end);
      ended_ = true;
      ++writes_;
      Serialize();
      return StartWriteAndFinish(&bytes_, grpc::WriteOptions(), grpc::Status::OK);
    }
    writing_ = true;
    ++writes_;
    Serialize();
    StartWrite(&bytes_);
  }

  // Mail waits behind a write: from here on some write must end within each stall limit.
  void WatchWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (stall_alarm_ != nullptr) return;
    watched_write_ = writes_;
    stall_alarm_ = std::make_unique<grpc::Alarm>();
    // Weak: an alarm must not keep a call that is over.
    stall_alarm_->Set(base::RpcDeadline(front_.write_stall), [weak = weak_from_this()](bool due) {
      const auto self = weak.lock();
      if (due && self != nullptr) self->OnStallAlarm();
    });
  }

  void OnStallAlarm() {
    base::MutexLock lock(&mutex_);
    stall_alarm_.reset();
    if (done_ || !(writing_ || ended_)) return;
    if (writes_ != watched_write_) return WatchWrite();
    if (!ended_) front_.core.GiveUp(id_, services::Refuse("client_stalled"));
    // What is written stands in the way of a status.
    context_->TryCancel();
  }

  void Serialize() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    bool own = false;
    bytes_.Clear();
    const grpc::Status status =
        grpc::SerializationTraits<v1::GenerateResponse>::Serialize(response_, &bytes_, &own);
    CHECK_TRUE(status.ok());
  }

  void SetEnd(const AnswerEnd& end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    response_.set_finish(static_cast<v1::Finish>(end.finish));
    v1::Usage* usage = response_.mutable_usage();
    usage->set_prompt_tokens(end.usage.prompt_tokens);
    usage->set_picture_tokens(end.usage.picture_tokens);
    usage->set_cached_tokens(end.usage.cached_tokens);
    usage->set_output_tokens(end.usage.output_tokens);
    *response_.mutable_timeline() = ToProto(end.timeline);
  }

  void Conclude(const absl::Status& status, base::Duration retry_after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(ended_, true)) return;
    if (const int http = ToClientError(status).http_status; http == 429 || http == 503) {
      const base::Duration wait =
          retry_after > base::Duration(0) ? retry_after : base::Duration(std::chrono::seconds(1));
      const auto ms = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
      context_->AddTrailingMetadata("retry-after-ms", absl::StrCat(ms));
    }
    Finish(base::ToGrpc(ToClientStatus(status)));
  }

  const FrontEnd& front_;
  grpc::CallbackServerContext* const context_;
  // Shared with gRPC, and weakly with the mailbox: see the class.
  std::shared_ptr<GenerateReactor> self_;
  base::Mutex mutex_;
  scheduler::RequestId id_ ABSL_GUARDED_BY(mutex_);
  bool left_ ABSL_GUARDED_BY(mutex_) = false;  // the client, before it was started
  std::string request_id_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<AnswerMailbox> mailbox_ ABSL_GUARDED_BY(mutex_);  // shared with the core
  v1::GenerateResponse response_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer bytes_ ABSL_GUARDED_BY(mutex_);  // of the response that is being written
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;  // the context is gone
  uint64_t writes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t watched_write_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<grpc::Alarm> stall_alarm_ ABSL_GUARDED_BY(mutex_);  // null: nothing waits
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return GenerateReactor::Begin(front_, context, *request);
}

grpc::ServerUnaryReactor* InferenceService::Cancel(grpc::CallbackServerContext* context,
                                                   const v1::CancelRequest* request,
                                                   v1::CancelResponse*) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<Client> client = ClientOf(front_, *context);
  if (!client.ok()) {
    reactor->Finish(base::ToGrpc(ToClientStatus(client.status())));
    return reactor;
  }
  const bool posted = front_.core.Post([reactor, id = request->request_id(), owner = client->owner](
                                           RequestDesk& desk, base::TimePoint now) {
    reactor->Finish(base::ToGrpc(ToClientStatus(desk.Cancel(id, owner, now))));
  });
  if (!posted) reactor->Finish(base::ToGrpc(ToClientStatus(services::Refuse("unavailable"))));
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::GetModel(grpc::CallbackServerContext* context,
                                                     const v1::GetModelRequest* request,
                                                     v1::GetModelResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const ServedModel& model = front_.intake.model();
  if (!request->model().empty() && !model.IsNamed(request->model())) {
    reactor->Finish(base::ToGrpc(ToClientStatus(services::Refuse("model_not_found"))));
    return reactor;
  }
  response->set_model(model.name());
  response->set_context_tokens(model.context_tokens());
  response->set_max_output_tokens(front_.intake.max_output_tokens());
  const bool posted = front_.core.Post([reactor, response](RequestDesk& desk, base::TimePoint) {
    response->set_fingerprint(desk.fingerprint());
    reactor->Finish(grpc::Status::OK);
  });
  if (!posted) reactor->Finish(base::ToGrpc(ToClientStatus(services::Refuse("unavailable"))));
  return reactor;
}

}  // namespace triptych::services
