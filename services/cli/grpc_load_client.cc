#include "services/cli/grpc_load_client.h"

#include <grpcpp/support/client_callback.h>

#include "base/rpc.h"

namespace triptych::services {

// One request under way. Frees itself when its stream has ended.
class GrpcLoadClient::Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  explicit Call(LoadListener* listener) : listener_(listener) {}

  // Copies the request: the server is told of the deadline.
  void Start(v1::Inference::Stub* stub, const v1::GenerateRequest& request,
             base::Duration timeout) {
    base::SetDeadline(timeout, &context_);
    request_ = request;
    request_.set_timeout_ms(std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count());
    stub->async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (response_.tokens_size() > 0 || !response_.text().empty()) {
      listener_->OnPart(response_.tokens_size());
    }
    if (response_.finish() != v1::FINISH_NONE) output_tokens_ = response_.usage().output_tokens();
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    LoadListener* const listener = listener_;
    const absl::Status end(static_cast<absl::StatusCode>(status.error_code()),
                           status.error_message());
    const int output_tokens = output_tokens_;
    // Before anyone hears of it: after the last end the process may leave main.
    delete this;
    listener->OnEnd(end, output_tokens);
  }

 private:
  LoadListener* const listener_;
  int output_tokens_ = 0;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse response_;
};

GrpcLoadClient::GrpcLoadClient(const std::string& server, int channels,
                               base::Duration request_timeout)
    : request_timeout_(request_timeout) {
  for (int i = 0; i < channels; ++i) {
    stubs_.push_back(v1::Inference::NewStub(base::ConnectAsClient(server)));
  }
}

void GrpcLoadClient::Send(const v1::GenerateRequest& request, LoadListener* listener) {
  auto* call = new Call(listener);  // frees itself
  call->Start(stubs_[next_++ % stubs_.size()].get(), request, request_timeout_);
}

}  // namespace triptych::services
