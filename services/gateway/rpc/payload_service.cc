#include "services/gateway/rpc/payload_service.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/mutex.h"
#include "base/rpc.h"
#include "services/convert/gateway_messages.h"
#include "services/convert/ids.h"

namespace triptych::services {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

// One pull: the input, then the media in chunks. Lives until gRPC is done with it and the core has
// answered, whichever is later.
class PullReactor final : public grpc::ServerWriteReactor<v1::PullResponse> {
 public:
  static PullReactor* Begin(GatewayCore* core, scheduler::PullRequest pull) {
    auto reactor = std::shared_ptr<PullReactor>(new PullReactor());
    reactor->self_ = reactor;
    const bool posted = core->Post([reactor, pull](RequestDesk& desk, base::TimePoint now) {
      reactor->OnAnswer(desk.Pull(pull, now));
    });
    if (!posted) reactor->End(absl::UnavailableError("busy"));
    return reactor.get();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::CancelledError("the worker left"));
    WriteNext();
  }

  void OnCancel() override { End(absl::CancelledError("the worker left")); }
  void OnDone() override { self_.reset(); }

 private:
  PullReactor() = default;

  void OnAnswer(absl::StatusOr<PullAnswer> answer) {
    if (!answer.ok()) return End(answer.status());
    v1::PulledInput* input = message_.mutable_input();
    *input = ToProto(answer->input);
    media_ = std::move(answer->media);
    if (media_ != nullptr) {
      item_ = &media_->items[answer->item];
      v1::MediaLayout* layout = input->mutable_media();
      layout->set_kind(static_cast<v1::ItemKind>(item_->kind));
      layout->set_fps(item_->fps);
      for (const std::string& frame : item_->frames) layout->add_size_bytes(frame.size());
      *input->mutable_grid() = ToProto(item_->grid);
    }
    Write();
  }

  void Write() {
    base::MutexLock lock(&mutex_);
    if (!ended_) StartWrite(&message_);
  }

  void WriteNext() {
    while (item_ != nullptr && frame_ < item_->frames.size() &&
           offset_ == item_->frames[frame_].size()) {
      ++frame_;
      offset_ = 0;
    }
    if (item_ == nullptr || frame_ == item_->frames.size()) return End(absl::OkStatus());
    const std::string& frame = item_->frames[frame_];
    const size_t size = std::min(kChunkBytes, frame.size() - offset_);
    message_.set_media_chunk(frame.data() + offset_, size);
    offset_ += size;
    Write();
  }

  void End(const absl::Status& status) {
    base::MutexLock lock(&mutex_);
    if (std::exchange(ended_, true)) return;
    Finish(base::ToGrpc(status));
  }

  // Shared with gRPC and with the core's event: see the class.
  std::shared_ptr<PullReactor> self_;
  std::shared_ptr<const Payload> media_;  // shared: see Payload
  const PayloadItem* item_ = nullptr;
  size_t frame_ = 0;
  size_t offset_ = 0;
  v1::PullResponse message_;
  base::Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

class Refused final : public grpc::ServerWriteReactor<v1::PullResponse> {
 public:
  explicit Refused(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerWriteReactor<v1::PullResponse>* PayloadService::Pull(grpc::CallbackServerContext*,
                                                                 const v1::PullRequest* request) {
  const uint64_t receiver = request->envelope().receiver_incarnation();
  if (receiver != 0 && receiver != core_->self().value()) {
    return new Refused({grpc::StatusCode::NOT_FOUND, "another incarnation"});
  }
  absl::StatusOr<scheduler::PullRequest> pull = FromProto(*request);
  if (!pull.ok()) return new Refused({grpc::StatusCode::INVALID_ARGUMENT, "malformed"});
  return PullReactor::Begin(core_, *std::move(pull));
}

}  // namespace triptych::services
