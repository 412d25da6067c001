#include "services/worker/transfer_service.h"

#include <utility>
#include <vector>

#include "base/rpc.h"
#include "services/convert/transfer_messages.h"

namespace triptych::services {

class TransferService::HandshakeStream final
    : public grpc::ServerBidiReactor<v1::TransferMessageBatch, v1::HandshakeClosed> {
 public:
  explicit HandshakeStream(TransferService* service) : service_(service) { StartRead(&batch_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
      return;
    }
    const absl::Status status = service_->Take(batch_);
    if (status.ok()) {
      StartRead(&batch_);
    } else {
      Finish(base::ToGrpc(status));
    }
  }
  void OnDone() override { delete this; }

 private:
  TransferService* const service_;
  v1::TransferMessageBatch batch_;
};

grpc::ServerBidiReactor<v1::TransferMessageBatch, v1::HandshakeClosed>* TransferService::Handshake(
    grpc::CallbackServerContext*) {
  return new HandshakeStream(this);  // deletes itself in OnDone
}

absl::Status TransferService::Take(const v1::TransferMessageBatch& batch) {
  if (batch.envelope().receiver_incarnation() != self_.value()) {
    return absl::FailedPreconditionError("not the receiver meant");
  }
  const scheduler::Incarnation peer(batch.envelope().sender_incarnation());
  std::vector<scheduler::TransferMessage> messages;
  const v1::TransferHello* hello = nullptr;
  for (const v1::TransferMessage& message : batch.messages()) {
    if (message.has_hello()) {
      hello = &message.hello();
      continue;
    }
    absl::StatusOr<scheduler::TransferMessage> plain = FromProto(message);
    if (!plain.ok()) return plain.status();
    messages.push_back(*std::move(plain));
  }
  // Only now: a batch that is refused changes nothing.
  if (hello != nullptr && !hello->address().empty()) links_->OnHello(peer, *hello);
  if (!messages.empty()) loop_->PostTransfer(peer, std::move(messages));
  return absl::OkStatus();
}

}  // namespace triptych::services
