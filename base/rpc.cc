#include "base/rpc.h"

#include <grpc/support/log.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/resource_quota.h>

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace triptych::base {
namespace {

grpc::ChannelArguments Arguments(int max_message_bytes) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(max_message_bytes);
  arguments.SetMaxSendMessageSize(max_message_bytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 5000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A peer that comes back at another address keeps its name: gRPC's own pause of 30 s between two
  // look-ups of it would be most of an outage.
  arguments.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 500);
  // The scheduler alone decides what is tried again, and where.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Each channel its own connection: a broken one breaks nobody else's streams.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

// gRPC 1.51 ends its callback threads with the last channel or server that has used them. Where the
// last one goes from a callback, a thread frees the queue that it runs on; and a library that shuts
// down joins a helper thread which may poll for 10 s. So one channel that leads nowhere lives as
// long as the process: it holds both after its first call, which fails at once.
void KeepCallbackThreads() {
  struct Kept {
    grpc::GenericStub stub{grpc::CreateChannel("", nullptr)};
    grpc::ClientContext context;
    const grpc::Slice nothing;
    const grpc::ByteBuffer request{&nothing, 1};
    grpc::ByteBuffer response;
  };
  // "used": or the compiler drops the pointer, and a leak checker finds what nobody points to.
  [[gnu::used]] static Kept* const kept = [] {
    auto* made = new Kept;
    made->stub.UnaryCall(&made->context, "/nowhere", grpc::StubOptions(), &made->request,
                         &made->response, [](const grpc::Status&) {});
    return made;
  }();
}

// gRPC writes a line for each connection whose handshake fails, or that calls us by an address: so
// any stranger could fill a disk. Everything else that it has to say goes to stderr, as before.
void WriteLog(gpr_log_func_args* args) {
  const absl::string_view file(args->file);
  if (absl::StrContains(file, "ssl_transport_security")) return;
  std::fprintf(stderr, "%s grpc %s:%d %s\n", gpr_log_severity_string(args->severity), args->file,
               args->line, args->message);
}

void PrepareOnce() {
  static const bool prepared = [] {
    gpr_set_log_function(WriteLog);
    return true;
  }();
  static_cast<void>(prepared);
  KeepCallbackThreads();
}

}  // namespace

void ConfigureServer(RpcAudience audience, grpc::ServerBuilder* builder) {
  PrepareOnce();
  const bool clients = audience == RpcAudience::kClients;
  const int limit = clients ? kMaxClientMessageBytes : kMaxInternalMessageBytes;
  builder->SetMaxReceiveMessageSize(limit);
  builder->SetMaxSendMessageSize(limit);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 5000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  // One connection of a client has at most so many requests under way.
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, clients ? 1024 : 8192);
  // A socket that says nothing is closed in seconds; gRPC would wait two minutes.
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10'000);
  if (clients) {
    // A compressed message of 60 kB may be 60 MB: clients send plain ones.
    for (const auto algorithm : {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
      builder->SetCompressionAlgorithmSupportStatus(algorithm, false);
    }
    builder->AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
  }
  // Two servers on one port would split their clients by chance.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  grpc::ResourceQuota quota(clients ? "clients" : "internal");
  quota.Resize(size_t{1} << 30);
  builder->SetResourceQuota(quota);
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address, const RpcSecurity& security,
                                       Role peer) {
  PrepareOnce();
  return grpc::CreateCustomChannel(address, security.ChannelTo(peer),
                                   Arguments(kMaxInternalMessageBytes));
}

std::shared_ptr<grpc::Channel> ConnectAsClient(const std::string& address) {
  PrepareOnce();
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   Arguments(kMaxClientMessageBytes));
}

std::chrono::system_clock::time_point RpcDeadline(Duration from_now) {
  return std::chrono::system_clock::now() +
         std::chrono::duration_cast<std::chrono::microseconds>(from_now);
}

void SetDeadline(Duration from_now, grpc::ClientContext* context) {
  context->set_deadline(RpcDeadline(from_now));
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace triptych::base
