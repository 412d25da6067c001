#pragma once

// triptych.v1.Inference: the gRPC front end.

#include "services/gateway/core/front_end.h"
#include "triptych/v1/inference.grpc.pb.h"

namespace triptych::services {

// Borrows everything in `front`. A request is taken as the client's bytes, so that they are counted
// before they become objects, and what cannot be read is the client's error.
class InferenceService final
    : public v1::Inference::WithRawCallbackMethod_Generate<v1::Inference::WithCallbackMethod_Cancel<
          v1::Inference::WithCallbackMethod_GetModel<v1::Inference::Service>>> {
 public:
  explicit InferenceService(const FrontEnd& front) : front_(front) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context,
                                   const v1::CancelRequest* request,
                                   v1::CancelResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

 private:
  const FrontEnd& front_;
};

}  // namespace triptych::services
