// Defended: the planned path, message by message. A request is placed, encoded, prefilled, handed
// over and decoded with the fewest messages, and nothing is held once it has ended.

#include "tests/scheduler/cluster/cluster_fixture.h"

namespace triptych::scheduler {
namespace {

struct Apart : ClusterFixture {
  Apart() {
    Worker(1, "E");
    Worker(2, "P");
    Worker(3, "D");
    Gateway(kGateway);
  }
  TaskId Prefill() { return workers[2].Last<AssignPrefill>().task; }
  TaskId Decode() { return workers[3].Last<AssignDecode>().task; }
  TaskId Encode() { return workers[1].Last<AssignEncode>().task; }
};

}  // namespace

TEST_CASE("ClusterScheduler: a text request is prefilled, handed over, decoded and released",
          "[scheduler][cluster]") {
  Apart cluster;
  cluster.Submit(cluster.Text(7));
  CHECK(cluster.admissions[7] == 1);
  const auto prefill = cluster.workers[2].Last<AssignPrefill>();
  CHECK(prefill.request == RequestId{Incarnation(500), 7});
  CHECK(prefill.gateway == PeerAddress{Incarnation(500), "gateway:1"});
  CHECK(prefill.prompt_tokens == 100);
  CHECK(prefill.item_tokens.empty());
  // Text is bound to its decode at once: the push overlaps the prefill.
  const auto decode = cluster.workers[3].Last<AssignDecode>();
  CHECK(decode.producer == prefill.task);
  CHECK(decode.producer_worker == PeerAddress{Incarnation(2), "host:2"});
  CHECK(decode.epoch == prefill.epoch);
  const auto bind = cluster.workers[2].Last<BindConsumer>();
  CHECK(bind.producer == prefill.task);
  CHECK(bind.consumer == decode.task);
  CHECK(bind.consumer_worker == PeerAddress{Incarnation(3), "host:3"});

  cluster.Say(2, TaskAccepted{prefill.task});
  cluster.Say(2, FirstTokenSampled{prefill.task});
  CHECK(cluster.Counts().handing_over == 1);
  CHECK(cluster.Tasks(2) == 1);
  cluster.Say(3, DecodeStarted{decode.task});
  CHECK(cluster.Counts().decoding == 1);
  CHECK(cluster.Tasks(2) == 0);
  cluster.Say(3, TaskDelivered{decode.task});
  CHECK(cluster.Counts().finishing == 1);
  cluster.End(7);
  CHECK(cluster.Tasks(3) == 0);
  CHECK(cluster.scheduler.Snapshot(cluster.now).workers[1].tasks[1] == 0);
  CHECK(cluster.failures.empty());
}

TEST_CASE("ClusterScheduler: a picture is encoded first, decode is bound when it has landed",
          "[scheduler][cluster]") {
  Apart cluster;
  cluster.Submit(cluster.Pictures(7, 1));
  const auto prefill = cluster.workers[2].Last<AssignPrefill>();
  CHECK(prefill.item_tokens == std::vector<int32_t>{64});
  const auto encode = cluster.workers[1].Last<AssignEncode>();
  CHECK(encode.consumer == prefill.task);
  CHECK(encode.consumer_worker == PeerAddress{Incarnation(2), "host:2"});
  CHECK(encode.patches == 256);
  CHECK(encode.num_tokens == 64);
  const auto rebind = cluster.workers[2].Last<Rebind>();
  CHECK(rebind.consumer == prefill.task);
  CHECK(rebind.input.producer == encode.task);
  CHECK(cluster.workers[3].inbox.empty());

  cluster.Say(2, ItemLanded{prefill.task, {0, encode.task}});
  CHECK(cluster.workers[3].All<AssignDecode>().size() == 1);
  cluster.Say(1, TaskDelivered{encode.task});
  cluster.Say(2, FirstTokenSampled{prefill.task});
  cluster.Say(3, DecodeStarted{cluster.Decode()});
  cluster.End(7);
  CHECK(cluster.Tasks(2) == 0);
  CHECK(cluster.Tasks(3) == 0);
}

TEST_CASE("ClusterScheduler: a first token that ends the request needs no decode",
          "[scheduler][cluster]") {
  Apart cluster;
  cluster.Submit(cluster.Text(7));
  cluster.Say(2, FirstTokenSampled{cluster.Prefill(), Finish::kStop});
  CHECK(cluster.Tasks(3) == 0);
  CHECK(cluster.Tasks(2) == 1);  // the gateway may not have it yet
  CHECK(cluster.Counts().finishing == 1);
  cluster.End(7);
  CHECK(cluster.Tasks(2) == 0);
}

TEST_CASE("ClusterScheduler: a decode that waits for room holds up none that needs none",
          "[scheduler][cluster]") {
  ClusterFixture cluster;
  cluster.Gateway(ClusterFixture::kGateway);
  WorkerProfile both = ProfileOf(4, "PD");
  both.kv_blocks = 12;
  cluster.Worker(both);
  cluster.Submit(cluster.Text(1));
  const FakeWorker& narrow = cluster.workers[4];
  cluster.Say(4, FirstTokenSampled{narrow.Last<AssignPrefill>().task});
  cluster.Worker(3, "P");
  cluster.Submit(cluster.Text(2));  // has its prefill at 3, and no room at 4
  REQUIRE(cluster.workers[3].All<AssignPrefill>().size() == 1);
  CHECK(narrow.All<AssignDecode>().size() == 1);
  cluster.Submit(cluster.Text(3, 20));
  REQUIRE(narrow.All<AssignPrefill>().size() == 2);
  CHECK(narrow.All<AssignDecode>().size() == 2);
  CHECK(narrow.Last<AssignDecode>().producer == narrow.Last<AssignPrefill>().task);
}

TEST_CASE("ClusterScheduler: no decode is bound for an answer of one token",
          "[scheduler][cluster]") {
  Apart cluster;
  SubmitRequest submit = cluster.Text(7);
  submit.max_tokens = 1;
  cluster.Submit(submit);
  CHECK(cluster.workers[3].inbox.empty());
  cluster.Say(2, FirstTokenSampled{cluster.Prefill(), Finish::kLength});
  cluster.End(7);
  CHECK(cluster.Tasks(2) == 0);
}

TEST_CASE("ClusterScheduler: one worker with all roles hands over in memory",
          "[scheduler][cluster]") {
  ClusterFixture cluster;
  cluster.Worker(1, "EPD");
  cluster.Gateway(ClusterFixture::kGateway);
  cluster.Submit(ClusterFixture::Pictures(7, 2));
  FakeWorker& worker = cluster.workers[1];
  REQUIRE(worker.All<AssignEncode>().size() == 2);
  const TaskId prefill = worker.Last<AssignPrefill>().task;
  for (const AssignEncode& encode : worker.All<AssignEncode>()) {
    CHECK(encode.consumer_worker.incarnation == Incarnation(1));
    cluster.Say(1, TaskDelivered{encode.task});
  }
  const auto decode = worker.Last<AssignDecode>();
  CHECK(decode.producer_worker.incarnation == Incarnation(1));
  cluster.Say(1, FirstTokenSampled{prefill});
  cluster.Say(1, DecodeStarted{decode.task});
  cluster.End(7);
  CHECK(cluster.Counts().decoding == 0);
}

TEST_CASE("ClusterScheduler: items of one request spread over encoders", "[scheduler][cluster]") {
  Apart cluster;
  cluster.Worker(4, "E");
  cluster.Submit(cluster.Pictures(7, 4));
  CHECK(cluster.workers[1].All<AssignEncode>().size() == 2);
  CHECK(cluster.workers[4].All<AssignEncode>().size() == 2);
}

TEST_CASE("ClusterScheduler: late, repeated and unknown messages change nothing",
          "[scheduler][cluster]") {
  Apart cluster;
  cluster.Submit(cluster.Text(7));
  cluster.Submit(cluster.Text(7));
  CHECK(cluster.admissions[7] == 2);
  CHECK(cluster.workers[2].All<AssignPrefill>().size() == 1);
  const TaskId prefill = cluster.Prefill(), decode = cluster.Decode();
  for (int i = 0; i < 2; ++i) cluster.Say(2, FirstTokenSampled{prefill});
  for (int i = 0; i < 2; ++i) cluster.Say(3, DecodeStarted{decode});
  cluster.Say(2, TaskFailed{prefill, absl::AbortedError("released")});
  cluster.Say(3, TaskDelivered{prefill});  // not its task
  CHECK(cluster.Counts().decoding == 1);
  cluster.End(7);
  cluster.End(7);
  const size_t told = cluster.workers[3].inbox.size();
  cluster.Say(3, DecodeStarted{decode});
  cluster.Say(3, TaskFailed{decode, absl::InternalError("late")});
  cluster.Say(9, TaskAccepted{decode});
  cluster.Lose(77);
  CHECK(cluster.workers[3].inbox.size() == told);
  CHECK(cluster.failures.empty());
}

}  // namespace triptych::scheduler
