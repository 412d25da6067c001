// Defended: batched streams between real servers keep order and lose nothing, end once on both
// sides whoever ends them, and refuse what passes their bound.

#include <catch2/catch.hpp>
#include <thread>

#include "tests/services/runtime/scripted_scheduler.h"
#include "tests/support/own_address.h"
#include "tests/support/plain_channel.h"

namespace triptych::services {
namespace {

using testing::Accepted;
using testing::ClientEnd;
using testing::Inbox;
using testing::Release;
using testing::SchedulerServer;
using testing::ServerEnd;
using triptych::testing::OwnAddress;

// A client's end and what it hears.
class Client {
 public:
  explicit Client(const std::string& address)
      : stub_(v1::Scheduler::NewStub(triptych::testing::PlainChannel(address))) {
    stream =
        ClientEnd::Open([this](grpc::ClientContext* context,
                               auto* reactor) { stub_->async()->WorkerControl(context, reactor); },
                        v1::Envelope(),
                        [this](v1::SchedulerToWorkerBatch& batch) {
                          for (const auto& message : batch.messages()) {
                            received.Add(message.release_task().task().number());
                          }
                        },
                        [this](const grpc::Status& status) { closed.Add(status.error_code()); });
  }
  ~Client() {
    stream->Close();
    closed.WaitForCount(1);
  }

  Inbox<uint64_t> received;
  Inbox<grpc::StatusCode> closed;
  std::shared_ptr<ClientEnd> stream;

 private:
  const std::unique_ptr<v1::Scheduler::Stub> stub_;
};

std::vector<uint64_t> UpTo(uint64_t count) {
  std::vector<uint64_t> numbers;
  for (uint64_t i = 1; i <= count; ++i) numbers.push_back(i);
  return numbers;
}

TEST_CASE("Streams: batches keep order, lose nothing and count on", "[services][runtime]") {
  constexpr uint64_t kMessages = 20000;
  Inbox<uint64_t> heard;
  uint64_t next_sequence = 1;
  bool counted = true;
  SchedulerServer server([&](ServerEnd* stream, v1::WorkerToSchedulerBatch& batch) {
    counted = counted && batch.envelope().sequence() == next_sequence;
    next_sequence += batch.messages_size();
    for (const auto& message : batch.messages()) {
      heard.Add(message.accepted().task().number());
      stream->Send(Release(message.accepted().task().number()));
    }
  });
  Client client(server.address());
  for (uint64_t i = 1; i <= kMessages; ++i) REQUIRE(client.stream->Send(Accepted(i)));
  REQUIRE(client.received.WaitForCount(kMessages));
  CHECK(heard.values() == UpTo(kMessages));
  CHECK(client.received.values() == UpTo(kMessages));
  CHECK(counted);
}

TEST_CASE("Streams: many threads may send at once", "[services][runtime]") {
  constexpr uint64_t kEach = 2000;
  Inbox<uint64_t> heard;
  SchedulerServer server([&](ServerEnd*, v1::WorkerToSchedulerBatch& batch) {
    for (const auto& message : batch.messages()) heard.Add(message.accepted().task().number());
  });
  Client client(server.address());
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < kEach; ++i) client.stream->Send(Accepted(t * kEach + i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(heard.WaitForCount(4 * kEach));
  std::vector<uint64_t> last(4, 0);
  for (uint64_t number : heard.values()) {
    CHECK(number >= last[number / kEach]);
    last[number / kEach] = number;
  }
}

TEST_CASE("Streams: what gathers while the peer is away comes in batches that it accepts",
          "[services][runtime]") {
  // 12 MiB wait before the server exists; it accepts 4 MiB at once.
  constexpr size_t kMessages = 12 * 1024;
  const std::string address = OwnAddress();
  Client client(address);
  for (size_t i = 0; i < kMessages; ++i) {
    v1::WorkerToScheduler message;
    message.mutable_failed()->mutable_task()->set_number(i);
    message.mutable_failed()->mutable_status()->set_message(std::string(1000, 'x'));
    REQUIRE(client.stream->Send(std::move(message)));
  }
  Inbox<size_t> heard;
  SchedulerServer server(
      [&](ServerEnd*, v1::WorkerToSchedulerBatch& batch) {
        for (const auto& message : batch.messages()) heard.Add(message.failed().task().number());
      },
      address);
  CHECK(heard.WaitForCount(kMessages));
  CHECK(client.closed.size() == 0);
}

TEST_CASE("Streams: the server's status reaches the client, once", "[services][runtime]") {
  Inbox<bool> sent_after_close;
  SchedulerServer server([&](ServerEnd* stream, v1::WorkerToSchedulerBatch&) {
    stream->Close(grpc::Status(grpc::StatusCode::ABORTED, "enough"));
    stream->Close(grpc::Status::OK);
    sent_after_close.Add(stream->Send(Release(1)));
  });
  Client client(server.address());
  client.stream->Send(Accepted(1));
  REQUIRE(client.closed.WaitForCount(1));
  CHECK(client.closed.last() == grpc::StatusCode::ABORTED);
  REQUIRE(sent_after_close.WaitForCount(1));  // the client may hear of the close first
  CHECK(sent_after_close.values() == std::vector<bool>{false});
  CHECK_FALSE(client.stream->Send(Accepted(2)));
  REQUIRE(server.service.closed.WaitForCount(1));
  CHECK(client.closed.size() == 1);
  CHECK(server.service.closed.size() == 1);
}

TEST_CASE("Streams: a client that closes ends both sides", "[services][runtime]") {
  SchedulerServer server([](ServerEnd*, v1::WorkerToSchedulerBatch&) {});
  Client client(server.address());
  client.stream->Send(Accepted(1));
  REQUIRE(server.service.opened.WaitForCount(1));
  client.stream->Close();
  REQUIRE(client.closed.WaitForCount(1));
  CHECK(client.closed.last() == grpc::StatusCode::CANCELLED);
  CHECK(server.service.closed.WaitForCount(1));
}

TEST_CASE("Streams: both sides may close while both send", "[services][runtime]") {
  SchedulerServer server([](ServerEnd* stream, v1::WorkerToSchedulerBatch& batch) {
    for (int i = 0; i < 100; ++i) stream->Send(Release(1));
    if (batch.messages(0).accepted().task().number() > 20) stream->Close(grpc::Status::OK);
  });
  for (int round = 0; round < 20; ++round) {
    Client client(server.address());
    for (int i = 0; i < round * 2; ++i) client.stream->Send(Accepted(static_cast<uint64_t>(i)));
    std::thread closer([&] { client.stream->Close(); });
    for (uint64_t i = 0; i < 200; ++i) client.stream->Send(Accepted(i));
    closer.join();
    REQUIRE(client.closed.WaitForCount(1));
  }
  CHECK(server.service.closed.WaitForCount(server.service.opened.size()));
}

TEST_CASE("Streams: a server that ends, ends its streams", "[services][runtime]") {
  auto server = std::make_unique<SchedulerServer>([](ServerEnd*, v1::WorkerToSchedulerBatch&) {});
  Client client(server->address());
  client.stream->Send(Accepted(1));
  REQUIRE(server->service.opened.WaitForCount(1));
  server.reset();
  CHECK(client.closed.WaitForCount(1));
}

TEST_CASE("Streams: beyond its bound a message is refused and the stream ends",
          "[services][runtime]") {
  Client client(OwnAddress());
  size_t sent = 0;
  while (sent < 200000 && client.stream->Send(Accepted(1))) ++sent;
  CHECK(sent >= 65536);
  CHECK(sent <= 65537);  // one is on its way
  CHECK(client.closed.WaitForCount(1));
}

TEST_CASE("RpcServer: an address that is taken is UNAVAILABLE", "[services][runtime]") {
  SchedulerServer server([](ServerEnd*, v1::WorkerToSchedulerBatch&) {});
  testing::ScriptedScheduler other([](ServerEnd*, v1::WorkerToSchedulerBatch&) {});
  CHECK(RpcServer::Start(server.address(), base::RpcAudience::kInternal,
                         grpc::InsecureServerCredentials(), {&other})
            .status()
            .code() == absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace triptych::services
