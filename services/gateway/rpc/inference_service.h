#pragma once

// triptych.v1.Inference: the gRPC front end.

#include "services/gateway/core/front_end.h"
#include "triptych/v1/inference.grpc.pb.h"

namespace triptych::services {

// Borrows everything in `front`.
class InferenceService final : public v1::Inference::CallbackService {
 public:
  explicit InferenceService(const FrontEnd& front) : front_(front) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
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
