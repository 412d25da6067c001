// Defends the ports between processes. A stranger is refused before any effect, whatever method it
// calls. And whatever one of the cluster's own sends to any of them, valid or broken, no process
// dies, nothing stays held, and the next question gets its answer: it has the certificate of the
// role that may call, and knows all that can be known: it says hello as a gateway and hears who is
// there.

#include <google/protobuf/stubs/logging.h>
#include <grpcpp/generic/generic_stub.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/random.h"
#include "base/rpc.h"
#include "services/cli/cluster_client.h"
#include "services/runtime/method_callers.h"
#include "tests/integration/cluster_fixture.h"
#include "tests/integration/load.h"
#include "tests/support/mutate.h"
#include "triptych/v1/payload.grpc.pb.h"
#include "triptych/v1/scheduler.grpc.pb.h"
#include "triptych/v1/tokens.grpc.pb.h"
#include "triptych/v1/transfer.grpc.pb.h"

namespace triptych::testing {
namespace {

constexpr uint64_t kStranger = 77;
constexpr int kStreams = 2, kBatches = 40;

// Where a process listens on loopback: /proc/net/tcp names the sockets, /proc/PID/fd whose they
// are.
std::vector<std::string> ListeningAddresses(int64_t pid) {
  std::set<std::string> sockets;
  for (const auto& entry :
       std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/fd"))) {
    std::error_code gone;
    sockets.insert(std::filesystem::read_symlink(entry.path(), gone).string());
  }
  std::vector<std::string> addresses;
  // What was bound by an IPv6 socket can be reached by IPv4 too.
  for (const char* path : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream table(path);
    std::string line;
    while (std::getline(table, line)) {
      const std::vector<std::string> columns = absl::StrSplit(line, ' ', absl::SkipEmpty());
      uint32_t port = 0;
      if (columns.size() < 10 || columns[3] != "0A") continue;
      if (!sockets.contains(absl::StrCat("socket:[", columns[9], "]"))) continue;
      if (!absl::SimpleHexAtoi(columns[1].substr(columns[1].find(':') + 1), &port)) continue;
      addresses.push_back(absl::StrCat("127.0.0.1:", port));
    }
  }
  return addresses;
}

// What comes of an empty call.
grpc::StatusCode CodeOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  base::SetDeadline(kSlowdown * std::chrono::seconds(20), &context);
  const grpc::Slice nothing;
  const grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer response;
  std::promise<grpc::StatusCode> code;
  stub.UnaryCall(&context, method, {}, &request, &response,
                 [&](const grpc::Status& status) { code.set_value(status.error_code()); });
  return code.get_future().get();
}

base::Role RoleOf(const services::ProcessRecord& process) {
  if (process.roles == "gateway") return base::Role::kGateway;
  return process.roles == "scheduler" ? base::Role::kScheduler : base::Role::kWorker;
}

// Where a process listens for its like: there it is said that nobody may call such a method.
std::vector<std::string> InternalAddresses(const services::ProcessRecord& process,
                                           const base::RpcSecurity& security) {
  std::vector<std::string> addresses = ListeningAddresses(process.pid);
  std::erase_if(addresses, [&](const std::string& address) {
    return CodeOf(base::Connect(address, security, RoleOf(process)), "/nobody/Knows") !=
           grpc::StatusCode::PERMISSION_DENIED;
  });
  return addresses;
}

v1::Envelope EnvelopeTo(uint64_t receiver) {
  v1::Envelope envelope;
  envelope.set_sender_incarnation(kStranger);
  envelope.set_receiver_incarnation(receiver);
  envelope.set_sequence(1);
  return envelope;
}

// Says `good`, then harmed copies of it, on several streams in turn.
template <typename Batch, typename Open>
void SendHarmed(const Batch& good, base::SeededRandom* random, const Open& open) {
  const std::string bytes = good.SerializeAsString();
  const std::vector<std::string> fragments = {std::string(10, '\xff'), std::string("\x08\0", 2),
                                              "\x12\x04"
                                              "abcd",
                                              bytes.substr(0, bytes.size() / 2)};
  for (int i = 0; i < kStreams; ++i) {
    grpc::ClientContext context;
    base::SetDeadline(kSlowdown * std::chrono::seconds(20), &context);
    const auto stream = open(&context);
    bool writes = stream->Write(good);
    for (int k = 0; k < kBatches && writes; ++k) {
      Batch harmed;
      if (!harmed.ParseFromString(Mutate(bytes, fragments, random))) continue;
      if constexpr (requires { harmed.mutable_envelope(); })
        *harmed.mutable_envelope() = good.envelope();
      writes = stream->Write(harmed);
    }
    // Half of them break off, half end well.
    if (random->Chance(0.5)) context.TryCancel();
    stream->WritesDone();
    stream->Finish();
  }
}

v1::GatewayToSchedulerBatch GatewayWords() {
  v1::GatewayToSchedulerBatch batch;
  *batch.mutable_envelope() = EnvelopeTo(0);
  v1::GatewayHello* hello = batch.add_messages()->mutable_hello();
  hello->set_name("stranger");
  hello->set_address("127.0.0.1:1");
  batch.add_messages()->mutable_report()->set_live_requests(1);
  v1::SubmitRequest* submit = batch.add_messages()->mutable_submit();
  submit->mutable_request()->set_gateway(kStranger);
  submit->mutable_request()->set_number(1);
  submit->set_fingerprint("none");
  submit->set_prompt_tokens(10);
  submit->set_max_tokens(10);
  v1::ItemCost* item = submit->add_items();
  item->set_media_bytes(1000);
  item->set_pixels(1000);
  item->set_patches(16);
  item->set_num_tokens(4);
  *batch.add_messages()->mutable_ended()->mutable_request() = submit->request();
  return batch;
}

v1::WorkerToSchedulerBatch WorkerWords() {
  v1::WorkerToSchedulerBatch batch;
  *batch.mutable_envelope() = EnvelopeTo(0);
  v1::WorkerHello* hello = batch.add_messages()->mutable_hello();
  v1::WorkerProfile* profile = hello->mutable_profile();
  profile->set_name("stranger");
  profile->set_roles(7);
  profile->set_fingerprint("none");
  profile->set_address("127.0.0.1:1");
  profile->set_kv_block_tokens(16);
  profile->set_kv_blocks(64);
  profile->set_embedding_slots(64);
  profile->set_embedding_page_slots(64);
  profile->set_max_sequences(8);
  profile->set_max_encodes(8);
  v1::WorkerReport* report = batch.add_messages()->mutable_report();
  report->set_has_inventory(true);
  v1::TaskReport* task = report->add_tasks();
  task->mutable_task()->set_number(1);
  task->mutable_request()->set_gateway(kStranger);
  task->set_stage(v1::STAGE_PREFILL);
  task->add_items_landed(0);
  *report->add_tasks() = *task;
  for (int i = 0; i < v1::Stage_ARRAYSIZE; ++i) report->add_load()->set_seconds_per_unit(1);
  *batch.add_messages()->mutable_accepted()->mutable_task() = task->task();
  *batch.add_messages()->mutable_refused()->mutable_task() = task->task();
  *batch.add_messages()->mutable_delivered()->mutable_task() = task->task();
  *batch.add_messages()->mutable_item_landed()->mutable_task() = task->task();
  *batch.add_messages()->mutable_first_token()->mutable_task() = task->task();
  *batch.add_messages()->mutable_decode_started()->mutable_task() = task->task();
  *batch.add_messages()->mutable_failed()->mutable_task() = task->task();
  return batch;
}

v1::PullRequestBatch PullWords(uint64_t receiver) {
  v1::PullRequestBatch batch;
  *batch.mutable_envelope() = EnvelopeTo(receiver);
  for (int stage = 0; stage < v1::Stage_ARRAYSIZE; ++stage) {
    v1::PullRequest* pull = batch.add_messages();
    pull->mutable_request()->set_gateway(receiver);
    pull->mutable_request()->set_number(1);
    pull->mutable_task()->set_number(1);
    pull->set_stage(static_cast<v1::Stage>(stage));
    pull->set_epoch(1);
    pull->set_media_offset(1);
  }
  return batch;
}

v1::TokenBatches TokenWords(uint64_t receiver) {
  v1::TokenBatches batch;
  *batch.mutable_envelope() = EnvelopeTo(receiver);
  v1::TokenBatch* tokens = batch.add_messages();
  tokens->mutable_request()->set_gateway(receiver);
  tokens->mutable_request()->set_number(1);
  tokens->mutable_task()->set_number(1);
  tokens->set_epoch(1);
  for (int i = 0; i < 3; ++i) {
    tokens->add_tokens()->set_token(i);
    tokens->mutable_tokens(i)->add_top()->set_token(i);
  }
  *batch.add_messages() = *tokens;
  batch.mutable_messages(1)->mutable_error()->set_code(13);
  return batch;
}

v1::TransferMessageBatch TransferWords(uint64_t receiver) {
  v1::TransferMessageBatch batch;
  *batch.mutable_envelope() = EnvelopeTo(receiver);
  batch.add_messages()->mutable_hello()->set_address("127.0.0.1:1");
  const auto next = [&batch] {
    v1::TransferMessage* message = batch.add_messages();
    message->mutable_key()->mutable_producer()->set_number(1);
    message->mutable_key()->mutable_consumer()->set_number(2);
    message->mutable_key()->set_attempt(1);
    return message;
  };
  v1::Offer* offer = next()->mutable_offer();
  offer->set_num_tokens(4);
  offer->set_bytes(1024);
  next()->mutable_grant();
  next()->mutable_deny();
  v1::Ready* ready = next()->mutable_ready();
  ready->mutable_range()->set_token_end(4);
  ready->mutable_range()->set_layer_end(1);
  ready->set_bytes(1024);
  next()->mutable_go()->set_sequence(1);
  next()->mutable_acknowledged();
  next()->mutable_abort();
  return batch;
}

v1::MoveChunk MoveWords(uint64_t receiver) {
  v1::MoveChunk chunk;
  chunk.set_sender_incarnation(kStranger);
  chunk.set_receiver_incarnation(receiver);
  chunk.set_sequence(1);
  chunk.set_total_bytes(64);
  chunk.set_payload(std::string(64, 'x'));
  return chunk;
}

// Who is there, as a gateway is told.
std::vector<uint64_t> Peers(const Cluster& cluster) {
  const auto stub = v1::Scheduler::NewStub(base::Connect(
      cluster.scheduler(), cluster.SecurityAs(base::Role::kGateway), base::Role::kScheduler));
  grpc::ClientContext context;
  base::SetDeadline(kSlowdown * std::chrono::seconds(20), &context);
  const auto stream = stub->GatewayControl(&context);
  v1::GatewayToSchedulerBatch hello = GatewayWords();
  hello.mutable_messages()->DeleteSubrange(1, hello.messages_size() - 1);
  REQUIRE(stream->Write(hello));
  std::vector<uint64_t> peers;
  v1::SchedulerToGatewayBatch batch;
  while (peers.empty() && stream->Read(&batch)) {
    for (const v1::SchedulerToGateway& message : batch.messages()) {
      for (const uint64_t peer : message.membership().peers()) peers.push_back(peer);
    }
  }
  context.TryCancel();
  stream->Finish();
  return peers;
}

void HarmScheduler(const Cluster& cluster, base::SeededRandom* random) {
  const auto stub_as = [&cluster](base::Role role) {
    return v1::Scheduler::NewStub(
        base::Connect(cluster.scheduler(), cluster.SecurityAs(role), base::Role::kScheduler));
  };
  const auto worker = stub_as(base::Role::kWorker), gateway = stub_as(base::Role::kGateway);
  SendHarmed(WorkerWords(), random, [&](auto* context) { return worker->WorkerControl(context); });
  SendHarmed(GatewayWords(), random,
             [&](auto* context) { return gateway->GatewayControl(context); });
}

void HarmPeer(const std::shared_ptr<grpc::Channel>& channel, uint64_t receiver,
              base::SeededRandom* random) {
  const auto payload = v1::Payload::NewStub(channel);
  SendHarmed(PullWords(receiver), random, [&](auto* context) { return payload->Pull(context); });
  const auto tokens = v1::Tokens::NewStub(channel);
  SendHarmed(TokenWords(receiver), random, [&](auto* context) { return tokens->Stream(context); });
  const auto transfer = v1::Transfer::NewStub(channel);
  SendHarmed(TransferWords(receiver), random,
             [&](auto* context) { return transfer->Handshake(context); });
  SendHarmed(MoveWords(receiver), random, [&](auto* context) { return transfer->Move(context); });
}

// Every method that some process serves to its like, at every process.
TEST_CASE("Wire: a stranger at any port between processes is refused before any effect",
          "[integration][serial][hostile][security]") {
  constexpr const char* kMethods[] = {
      "/triptych.v1.Scheduler/WorkerControl", "/triptych.v1.Scheduler/GatewayControl",
      "/triptych.v1.Cluster/GetSnapshot",     "/triptych.v1.Cluster/Watch",
      "/triptych.v1.Cluster/Drain",           "/triptych.v1.Payload/Pull",
      "/triptych.v1.Tokens/Stream",           "/triptych.v1.Transfer/Handshake",
      "/triptych.v1.Transfer/Move",           "/grpc.health.v1.Health/Check"};
  Cluster cluster("encode=1,prefill=1,decode=1");
  const services::ClusterRecord record = cluster.Record();
  for (const services::ProcessRecord& process : record.processes) {
    const std::vector<std::string> addresses =
        InternalAddresses(process, cluster.SecurityAs(base::Role::kOperator));
    INFO(process.name);
    CHECK(addresses.size() == 1);
    for (const std::string& address : addresses) {
      for (const char* method : kMethods) {
        INFO(method);
        CHECK(CodeOf(base::Connect(address, base::RpcSecurity::None(), base::Role::kWorker),
                     method) == grpc::StatusCode::UNAVAILABLE);
        for (const base::Role role : base::kRoles) {
          if (services::CallersOfMethod(method).has(role)) continue;
          INFO(base::ToString(role));
          CHECK(CodeOf(base::Connect(address, cluster.SecurityAs(role), RoleOf(process)), method) ==
                grpc::StatusCode::PERMISSION_DENIED);
        }
      }
    }
  }
  // Nobody drained, nobody lost, nobody there who was not there before.
  const auto snapshot = services::FetchSnapshot(
      cluster.scheduler(), cluster.SecurityAs(base::Role::kOperator), std::chrono::seconds(5));
  REQUIRE(snapshot.ok());
  CHECK(snapshot->processes_size() == 5);
  for (const v1::ProcessState& process : snapshot->processes()) CHECK(process.state() == "ready");
}

TEST_CASE("Wire: broken messages of the cluster's own harm nobody",
          "[integration][serial][hostile]") {
  constexpr uint64_t kSeed = 18;
  INFO("seed " << kSeed);
  base::SeededRandom random(kSeed);
  // Each harmed message that is not even protobuf would be a line.
  const google::protobuf::LogSilencer silencer;
  Cluster cluster("encode=1,prefill=1,decode=1");
  const std::vector<uint64_t> peers = Peers(cluster);
  REQUIRE(peers.size() >= 4);  // the gateway and three workers
  HarmScheduler(cluster, &random);
  for (const services::ProcessRecord& process : cluster.Record().processes) {
    INFO(process.name);
    const base::RpcSecurity worker = cluster.SecurityAs(base::Role::kWorker);
    const std::vector<std::string> addresses = InternalAddresses(process, worker);
    CHECK(addresses.size() == 1);
    // A service that it has not is refused.
    for (const std::string& address : addresses) {
      const auto channel = base::Connect(address, worker, RoleOf(process));
      for (const uint64_t peer : peers) HarmPeer(channel, peer, &random);
    }
  }
  const auto stub = v1::Inference::NewStub(base::ConnectAsClient(cluster.grpc()));
  for (const Question& question : ExampleQuestions()) {
    INFO(question.name);
    const Reply reply = Ask(stub.get(), question.request);
    INFO(reply.error);
    CHECK(reply.text == question.expected);
  }
  for (const services::ProcessRecord& process : cluster.Record().processes) {
    INFO(process.name);
    CHECK(process.restarts == 0);
  }
  const bool at_rest = cluster.WaitFreed(kSlowdown * std::chrono::seconds(5));
  INFO(cluster.HeldResourcesByName());
  CHECK(at_rest);
}

}  // namespace
}  // namespace triptych::testing
