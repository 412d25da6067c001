// Defended: words about producers and consumers that come late or twice change nothing: task ids
// rise, so the newest word is known.

#include <catch2/catch.hpp>

#include "tests/scheduler/stage/walk.h"

namespace triptych::scheduler {
namespace {

using namespace testing;

// Two encoders, a prefill worker and two decode workers.
struct Apart : StageFixture {
  FakeWorker& first = AddWorker("encode");
  FakeWorker& second = AddWorker("encode");
  FakeWorker& prefill = AddWorker("prefill");
  FakeWorker& lost = AddWorker("decode");
  FakeWorker& next = AddWorker("decode");

  void Decode(FakeWorker& worker, const FakeRequest& request, TaskId task, TaskId producer) {
    Send(worker, AssignDecode{.task = task,
                              .request = request.id,
                              .gateway = kGateway,
                              .prompt_tokens = 21,
                              .producer = producer,
                              .producer_worker = prefill.address});
  }
};

}  // namespace

TEST_CASE("StageScheduler: a consumer bound late or twice takes nothing from the newest",
          "[scheduler][stage]") {
  Apart fixture;
  FakeRequest& request = fixture.AddRequest(1, {LongText(21)}, 12);
  Walk walk{fixture, fixture.prefill, fixture.prefill, fixture.lost, request, 100};
  walk.Place();
  fixture.Decode(fixture.next, request, Task(500), walk.prefill_task());
  const BindConsumer newest{walk.prefill_task(), Task(500), fixture.next.address};
  fixture.Send(fixture.prefill, newest);
  fixture.Send(fixture.prefill,
               BindConsumer{walk.prefill_task(), walk.decode_task(), fixture.lost.address});
  fixture.RunAll();
  const int64_t moved = fixture.pieces_moved;
  fixture.Send(fixture.prefill, newest);
  fixture.RunAll();
  CHECK(fixture.pieces_moved == moved);
  CHECK(fixture.Count<DecodeStarted>(fixture.next, Task(500)) == 1);
  CHECK(fixture.Count<DecodeStarted>(fixture.lost, walk.decode_task()) == 0);
}

TEST_CASE("StageScheduler: an assignment that comes again after its task is over is not obeyed",
          "[scheduler][stage]") {
  Apart fixture;
  FakeRequest& request = fixture.AddRequest(1, {Picture(5, 2), LongText(3)}, 4);
  Walk walk{fixture, fixture.first, fixture.prefill, fixture.next, request, 100};
  walk.Place();
  fixture.RunAll();
  walk.ReleaseAll();
  walk.Place();
  fixture.RunAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: a consumer out of reach is nobody's until it is bound again",
          "[scheduler][stage]") {
  // The scheduler may not hear that it is out of reach; it compares inventories.
  Apart fixture;
  FakeRequest& request = fixture.AddRequest(1, {LongText(21)}, 12);
  Walk walk{fixture, fixture.prefill, fixture.prefill, fixture.next, request, 100};
  walk.PlacePrefill();
  const BindConsumer bind{walk.prefill_task(), walk.decode_task(), fixture.next.address};
  fixture.Send(fixture.prefill, bind);
  fixture.RunAll();
  const auto told = [&] { return fixture.prefill.stage->Report(true).tasks.at(0).consumer; };
  CHECK(told() == walk.decode_task());
  fixture.prefill.stage->OnPeerLost(fixture.next.address.incarnation, fixture.clock.Now());
  fixture.Collect(fixture.prefill);
  REQUIRE(fixture.Count<ConsumerUnreachable>(fixture.prefill, walk.prefill_task()) == 1);
  CHECK(told() == TaskId());
  fixture.Send(fixture.prefill, bind);
  CHECK(fixture.Count<ConsumerUnreachable>(fixture.prefill, walk.prefill_task()) == 2);
}

TEST_CASE("StageScheduler: of two decodes that wait for one prompt here the newest takes it",
          "[scheduler][stage]") {
  // An earlier scheduler's decode, not released yet, took the KV along; the next one's waited for
  // ever.
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeRequest& request = fixture.AddRequest(1, {LongText(21)}, 12);
  Walk walk{fixture, worker, worker, worker, request, 100};
  walk.PlacePrefill();
  for (uint64_t task : {200, 300}) {
    fixture.Send(worker, AssignDecode{.task = Task(task),
                                      .request = request.id,
                                      .gateway = kGateway,
                                      .prompt_tokens = 21,
                                      .producer = walk.prefill_task(),
                                      .producer_worker = worker.address});
  }
  fixture.RunAll();
  CHECK(fixture.Count<DecodeStarted>(worker, Task(300)) == 1);
  fixture.Send(worker, ReleaseTask{Task(200)});
  CHECK(request.tokens.size() == 12);
}

TEST_CASE("StageScheduler: an item's producer named late or twice is not heard",
          "[scheduler][stage]") {
  Apart fixture;
  FakeRequest& request = fixture.AddRequest(1, {Picture(5, 2), LongText(3)}, 4);
  Walk walk{fixture, fixture.first, fixture.prefill, fixture.next, request, 100};
  walk.PlacePrefill();
  fixture.Send(fixture.second,
               AssignEncode{.task = Task(700),
                            .request = request.id,
                            .gateway = kGateway,
                            .num_tokens = request.ItemTokenCounts(fixture.config.layout)[0],
                            .patches = 16,
                            .consumer = walk.prefill_task(),
                            .consumer_worker = fixture.prefill.address});
  fixture.Send(fixture.prefill, Rebind{walk.prefill_task(), {0, Task(700)}});
  fixture.Send(fixture.prefill, Rebind{walk.prefill_task(), {0, walk.encode_task(0)}});
  fixture.Send(fixture.prefill, Rebind{walk.prefill_task(), {0, Task(700)}});
  fixture.RunAll();
  REQUIRE(fixture.Count<ItemLanded>(fixture.prefill, walk.prefill_task()) == 1);
  CHECK(fixture.Last<ItemLanded>(fixture.prefill)->input.producer == Task(700));
}

}  // namespace triptych::scheduler
