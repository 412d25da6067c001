#include "services/runtime/self_probe.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <future>
#include <utility>

namespace triptych::services {
namespace {

// Any answer counts: what is asked is whether somebody is there.
bool Answers(const SelfProbe::Port& port, base::Duration timeout) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  grpc::GenericStub stub(grpc::CreateCustomChannel(port.address, port.credentials, arguments));
  grpc::ClientContext context;
  base::SetDeadline(timeout, &context);
  const grpc::Slice nothing;
  const grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer response;
  std::promise<grpc::StatusCode> done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &response,
                 [&done](const grpc::Status& status) { done.set_value(status.error_code()); });
  const grpc::StatusCode code = done.get_future().get();
  return code != grpc::StatusCode::UNAVAILABLE && code != grpc::StatusCode::DEADLINE_EXCEEDED;
}

}  // namespace

std::shared_ptr<grpc::ChannelCredentials> BelieveAnybody() {
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_verify_server_certs(false);
  options.set_check_call_host(false);
  options.set_certificate_verifier(std::make_shared<grpc::experimental::NoOpCertificateVerifier>());
  return grpc::experimental::TlsCredentials(options);
}

void SelfProbe::Start(std::vector<Port> ports) {
  ports_ = std::move(ports);
  thread_ = std::thread([this] { Run(); });
}

SelfProbe::~SelfProbe() {
  {
    base::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void SelfProbe::Run() {
  int failures = 0;
  while (true) {
    {
      base::MutexLock lock(&mutex_);
      const base::TimePoint next = clock_.Now() + kEvery;
      while (!stopping_ && changed_.WaitUntil(&mutex_, next)) {
      }
      if (stopping_) return;
    }
    const bool good = std::all_of(ports_.begin(), ports_.end(),
                                  [](const Port& port) { return Answers(port, kTimeout); });
    failures = good ? 0 : failures + 1;
    answers_.store(failures < kFailures);
  }
}

}  // namespace triptych::services
