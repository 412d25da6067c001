// Defended: a peer finds its scheduler again, obeys only the highest that it has seen, learns when
// it is held for lost, and ends at any moment.

#include "services/runtime/control_client.h"

#include <atomic>
#include <catch2/catch.hpp>

#include "tests/services/runtime/scripted_scheduler.h"
#include "tests/support/own_address.h"
#include "tests/support/plain_channel.h"

namespace triptych::services {
namespace {

using scheduler::Incarnation;
using scheduler::SchedulerId;
using testing::Accepted;
using testing::Inbox;
using testing::Release;
using testing::SchedulerServer;
using testing::ServerEnd;
using triptych::testing::OwnAddress;

constexpr Incarnation kSelf{42};

using Control = ControlClient<v1::WorkerToSchedulerBatch, v1::SchedulerToWorkerBatch>;

// A scheduler of this id that welcomes whoever says hello, then releases task 7.
testing::ScriptedScheduler::OnBatch Welcomes(SchedulerId id, uint64_t receiver = kSelf.value()) {
  return [=](ServerEnd* stream, v1::WorkerToSchedulerBatch& batch) {
    if (!batch.messages(0).has_hello()) return;
    v1::Envelope envelope;
    envelope.mutable_scheduler()->set_term(id.term);
    envelope.mutable_scheduler()->set_incarnation(id.incarnation.value());
    envelope.set_sender_incarnation(id.incarnation.value());
    envelope.set_receiver_incarnation(receiver);
    stream->set_envelope(envelope);
    v1::SchedulerToWorker welcome;
    welcome.mutable_welcome();
    stream->Send(std::move(welcome));
    stream->Send(Release(7));
  };
}

class Peer {
 public:
  explicit Peer(const std::string& address)
      : stub_(v1::Scheduler::NewStub(triptych::testing::PlainChannel(address))) {
    Control::Callbacks callbacks;
    callbacks.start = [this](grpc::ClientContext* context, auto* reactor) {
      stub_->async()->WorkerControl(context, reactor);
    };
    callbacks.hello = [this](SchedulerId highest) -> std::optional<v1::WorkerToScheduler> {
      hellos.Add(highest.term);
      if (refuse_hellos-- > 0) return std::nullopt;
      v1::WorkerToScheduler message;
      message.mutable_hello()->set_draining(false);
      return message;
    };
    callbacks.on_welcome = [this](SchedulerId id) { welcomes.Add(id.term); };
    callbacks.on_batch = [this](v1::SchedulerToWorkerBatch& batch) {
      for (const auto& message : batch.messages()) {
        if (message.has_release_task()) releases.Add(message.release_task().task().number());
      }
    };
    callbacks.on_lost = [this] { losses.Add(1); };
    callbacks.on_rejected = [this] { rejections.Add(1); };
    control = std::make_unique<Control>(kSelf, clock_, std::move(callbacks));
  }

  Inbox<uint64_t> hellos, welcomes, releases;
  Inbox<int> losses, rejections;
  std::atomic<int> refuse_hellos{0};

 private:
  base::RealClock clock_;
  const std::unique_ptr<v1::Scheduler::Stub> stub_;

 public:
  std::unique_ptr<Control> control;  // last: it uses everything above
};

TEST_CASE("ControlClient: is welcomed, then sends and hears", "[services][runtime]") {
  Inbox<uint64_t> accepted;
  const auto welcome = Welcomes({3, Incarnation(9)});
  SchedulerServer server([&](ServerEnd* stream, v1::WorkerToSchedulerBatch& batch) {
    welcome(stream, batch);
    for (const auto& message : batch.messages()) {
      // From the welcome on, the envelope says whom the sender obeys.
      if (message.has_accepted()) accepted.Add(batch.envelope().scheduler().term());
    }
  });
  Peer peer(server.address());
  REQUIRE(peer.releases.WaitForCount(1));
  CHECK(peer.welcomes.values() == std::vector<uint64_t>{3});
  CHECK(peer.control->connected());
  CHECK(peer.control->highest_seen() == SchedulerId{3, Incarnation(9)});
  CHECK(peer.control->Send(Accepted(1)));
  REQUIRE(accepted.WaitForCount(1));
  CHECK(accepted.last() == 3);
}

TEST_CASE("ControlClient: comes back when its scheduler does, and says whom it has seen",
          "[services][runtime]") {
  const std::string address = OwnAddress();
  auto server = std::make_unique<SchedulerServer>(Welcomes({3, Incarnation(9)}), address);
  Peer peer(address);
  REQUIRE(peer.welcomes.WaitForCount(1));
  server.reset();
  REQUIRE(peer.losses.WaitForCount(1));
  CHECK_FALSE(peer.control->Send(Accepted(1)));
  server = std::make_unique<SchedulerServer>(Welcomes({4, Incarnation(1)}), address);
  REQUIRE(peer.welcomes.WaitForCount(2));
  CHECK(peer.welcomes.last() == 4);
  CHECK(peer.hellos.last() == 3);
}

TEST_CASE("ControlClient: a lower scheduler is not obeyed, a higher one is",
          "[services][runtime]") {
  const std::string address = OwnAddress();
  auto server = std::make_unique<SchedulerServer>(Welcomes({5, Incarnation(9)}), address);
  Peer peer(address);
  REQUIRE(peer.releases.WaitForCount(1));
  SECTION("an older term") {
    server.reset();
    server = std::make_unique<SchedulerServer>(Welcomes({4, Incarnation(99)}), address);
  }
  SECTION("the same term, a lower incarnation") {
    server.reset();
    server = std::make_unique<SchedulerServer>(Welcomes({5, Incarnation(8)}), address);
  }
  SECTION("words meant for another receiver") {
    server.reset();
    server = std::make_unique<SchedulerServer>(Welcomes({6, Incarnation(9)}, 43), address);
  }
  // It tries again and again, and hears nothing.
  REQUIRE(server->service.closed.WaitForCount(2));
  CHECK_FALSE(peer.control->connected());
  CHECK(peer.releases.size() == 1);
  server.reset();
  server = std::make_unique<SchedulerServer>(Welcomes({7, Incarnation(1)}), address);
  CHECK(peer.releases.WaitForCount(2));
  CHECK(peer.welcomes.last() == 7);
}

TEST_CASE("ControlClient: learns that it is held for lost", "[services][runtime]") {
  SchedulerServer server([](ServerEnd* stream, v1::WorkerToSchedulerBatch&) {
    stream->Close({grpc::StatusCode::FAILED_PRECONDITION, "this incarnation was lost"});
  });
  Peer peer(server.address());
  CHECK(peer.rejections.WaitForCount(1));
  CHECK(peer.losses.size() == 0);
}

TEST_CASE("ControlClient: other refusals are only tried again", "[services][runtime]") {
  SchedulerServer server([](ServerEnd* stream, v1::WorkerToSchedulerBatch&) {
    stream->Close({grpc::StatusCode::UNAVAILABLE, "try again"});
  });
  Peer peer(server.address());
  CHECK(peer.hellos.WaitForCount(3));
  CHECK(peer.rejections.size() == 0);
}

TEST_CASE("ControlClient: without a hello to say it waits and asks again", "[services][runtime]") {
  const std::string address = OwnAddress();
  SchedulerServer server(Welcomes({3, Incarnation(9)}), address);
  Peer peer(address);
  REQUIRE(peer.welcomes.WaitForCount(1));
  peer.refuse_hellos = 2;
  server.server.reset();
  SchedulerServer again(Welcomes({4, Incarnation(9)}), address);
  REQUIRE(peer.welcomes.WaitForCount(2));
  CHECK(peer.hellos.size() >= 4);
}

TEST_CASE("ControlClient: ends whether anybody is there or not", "[services][runtime]") {
  SECTION("nobody") {
    Peer peer(OwnAddress());
    peer.hellos.WaitForCount(1);
  }
  SECTION("welcomed") {
    SchedulerServer server(Welcomes({1, Incarnation(1)}));
    Peer peer(server.address());
    peer.welcomes.WaitForCount(1);
  }
  SECTION("at once") {
    SchedulerServer server(Welcomes({1, Incarnation(1)}));
    for (int i = 0; i < 20; ++i) Peer peer(server.address());
  }
}

}  // namespace
}  // namespace triptych::services
