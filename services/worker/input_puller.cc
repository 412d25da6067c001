#include "services/worker/input_puller.h"

#include <utility>

#include "base/rpc.h"
#include "base/status.h"
#include "media/limits.h"
#include "services/convert/gateway_messages.h"
#include "services/convert/ids.h"

namespace triptych::services {
namespace {

constexpr base::Duration kPullDeadline = std::chrono::seconds(30);
constexpr int kMaxPictures = 4096;
// Above the gateway's own limit on a request's body; guards against a gateway gone mad.
constexpr int64_t kMaxMediaBytes = int64_t{128} << 20;

}  // namespace

// One Pull. Frees itself after OnDone.
class InputPuller::Call final : public grpc::ClientReadReactor<v1::PullResponse> {
 public:
  Call(InputPuller* owner, scheduler::TaskId task, scheduler::Stage stage,
       std::shared_ptr<v1::Payload::Stub> stub)
      : owner_(owner), task_(task), stage_(stage), stub_(std::move(stub)) {}

  void Start(const scheduler::PullRequest& request) {
    request_ = ToProto(request);
    request_.mutable_envelope()->set_sender_incarnation(owner_->self_.value());
    request_.mutable_envelope()->set_receiver_incarnation(request.request.gateway.value());
    base::SetDeadline(kPullDeadline, &context_);
    stub_->async()->Pull(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    const absl::Status status = Take();
    if (!status.ok()) {
      failure_ = status;
      context_.TryCancel();
      return;
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    if (failure_.ok()) failure_ = base::FromGrpc(status);
    if (failure_.ok() && !input_.has_value()) failure_ = absl::UnavailableError("empty pull");
    if (failure_.ok() && stage_ == scheduler::Stage::kEncode) failure_ = CutMedia();
    owner_->OnDone(task_, this);
    delete this;
  }

  // After OnDone has begun.
  absl::StatusOr<scheduler::PulledInput> TakeInput() {
    if (!failure_.ok()) return failure_;
    return *std::move(input_);
  }
  bool has_media() const { return failure_.ok() && stage_ == scheduler::Stage::kEncode; }
  ItemMedia TakeMedia() { return std::move(media_); }

 private:
  absl::Status Take() {
    if (response_.has_input()) {
      ASSIGN_OR_RETURN(input_, FromProto(response_.input()));
      layout_ = response_.input().media();
      media_.grid = FromProto(response_.input().grid());
      if (layout_.size_bytes_size() > kMaxPictures || layout_.kind() < 0 ||
          layout_.kind() > v1::ITEM_KIND_VIDEO) {
        return absl::InvalidArgumentError(media::kImageMalformed);
      }
      media_.kind = static_cast<scheduler::ItemKind>(layout_.kind());
      return absl::OkStatus();
    }
    bytes_ += response_.media_chunk();
    if (static_cast<int64_t>(bytes_.size()) > kMaxMediaBytes) {
      return absl::InvalidArgumentError(media::kImageTooLarge);
    }
    return absl::OkStatus();
  }

  // Cuts the concatenated bytes into pictures.
  absl::Status CutMedia() {
    size_t begin = 0;
    for (int64_t size : layout_.size_bytes()) {
      if (size <= 0 || static_cast<uint64_t>(size) > bytes_.size() - begin) {
        return absl::UnavailableError("media were cut");
      }
      media_.pictures.push_back(bytes_.substr(begin, size));
      begin += size;
    }
    return absl::OkStatus();
  }

  InputPuller* const owner_;
  const scheduler::TaskId task_;
  const scheduler::Stage stage_;
  const std::shared_ptr<v1::Payload::Stub> stub_;
  grpc::ClientContext context_;
  v1::PullRequest request_;
  v1::PullResponse response_;
  std::optional<scheduler::PulledInput> input_;
  v1::MediaLayout layout_;
  std::string bytes_;
  ItemMedia media_;
  absl::Status failure_;
};

InputPuller::InputPuller(scheduler::Incarnation self, MediaPreparer* preparer)
    : self_(self), preparer_(preparer) {}

InputPuller::~InputPuller() {
  base::MutexLock lock(&mutex_);
  for (auto& [task, call] : calls_) call->Cancel();
  while (live_calls_ > 0) idle_.Wait(&mutex_);
}

void InputPuller::Pull(const scheduler::PullRequest& request,
                       const scheduler::PeerAddress& gateway) {
  base::MutexLock lock(&mutex_);
  std::shared_ptr<v1::Payload::Stub>& stub = stubs_[gateway.incarnation];
  if (stub == nullptr) stub = v1::Payload::NewStub(base::Connect(gateway.address));
  auto* call = new Call(this, request.task, request.stage, stub);  // frees itself
  calls_[request.task] = call;
  ++live_calls_;
  call->Start(request);
}

void InputPuller::Drop(scheduler::TaskId task) {
  base::MutexLock lock(&mutex_);
  auto it = calls_.find(task);
  if (it != calls_.end()) it->second->Cancel();
}

void InputPuller::ForgetGateway(scheduler::Incarnation gateway) {
  base::MutexLock lock(&mutex_);
  stubs_.erase(gateway);
}

void InputPuller::OnDone(scheduler::TaskId task, Call* call) {
  const bool has_media = call->has_media();
  loop_->PostPulled(task, call->TakeInput());
  if (has_media) Prepare(task, call->TakeMedia());
  base::MutexLock lock(&mutex_);
  auto it = calls_.find(task);
  if (it != calls_.end() && it->second == call) calls_.erase(it);
  // Under the lock: the destructor may run as soon as the waiter sees it.
  if (--live_calls_ == 0) idle_.NotifyAll();
}

void InputPuller::Prepare(scheduler::TaskId task, ItemMedia media) {
  const bool queued = preparer_->Prepare(
      std::move(media),
      [this, task](absl::StatusOr<engine::EncodeInput> input, base::Duration decode) {
        loop_->PostMedia(task, std::move(input), decode);
      });
  if (!queued) {
    loop_->PostMedia(task, absl::UnavailableError("too much media queued"), base::Duration(0));
  }
}

}  // namespace triptych::services
