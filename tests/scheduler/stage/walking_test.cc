// Defends: a request walks through encode, prefill and decode, on one worker and on separate ones,
// and gets exactly the answer that a computation without blocks, chunks or workers gives.

#include <catch2/catch.hpp>

#include "tests/scheduler/stage/stage_fixture.h"

namespace triptych::scheduler::testing {
namespace {

// Assigns one request to three workers (which may be the same) and follows it to its end.
struct Walk {
  StageFixture& fixture;
  FakeWorker& encode;
  FakeWorker& prefill;
  FakeWorker& decode;
  FakeRequest& request;
  uint64_t base;  // task numbers: base + 1 prefill, + 2 decode, + 10 + item encode

  TaskId prefill_task() const { return Task(base + 1); }
  TaskId decode_task() const { return Task(base + 2); }
  TaskId encode_task(size_t item) const { return Task(base + 10 + item); }

  void Place() {
    const std::vector<int32_t> items = request.ItemTokenCounts(fixture.config.layout);
    const auto layout = *ResolveLayout(request.input.segments, {}, fixture.config.layout);
    AssignPrefill assign{
        .task = prefill_task(),
        .request = request.id,
        .gateway = kGateway,
        .epoch = request.epoch,
        .prompt_tokens = layout.num_tokens() + static_cast<int32_t>(request.tokens.size()),
        .item_tokens = items};
    fixture.Send(prefill, assign);
    for (size_t i = 0; i < items.size(); ++i) {
      const auto item = static_cast<int32_t>(i);
      fixture.Send(encode, AssignEncode{.task = encode_task(i),
                                        .request = request.id,
                                        .gateway = kGateway,
                                        .item = item,
                                        .num_tokens = items[i],
                                        .patches = items[i] * 4,
                                        .consumer = prefill_task(),
                                        .consumer_worker = prefill.address});
      fixture.Send(prefill, Rebind{prefill_task(), {item, encode_task(i)}});
    }
    fixture.Send(decode, AssignDecode{.task = decode_task(),
                                      .request = request.id,
                                      .gateway = kGateway,
                                      .epoch = request.epoch,
                                      .prompt_tokens = assign.prompt_tokens,
                                      .producer = prefill_task(),
                                      .producer_worker = prefill.address});
    fixture.Send(prefill, BindConsumer{prefill_task(), decode_task(), decode.address});
  }
  void ReleaseAll() {
    const size_t items = request.ItemTokenCounts(fixture.config.layout).size();
    for (size_t i = 0; i < items; ++i) fixture.Send(encode, ReleaseTask{encode_task(i)});
    fixture.Send(prefill, ReleaseTask{prefill_task()});
    fixture.Send(decode, ReleaseTask{decode_task()});
    fixture.RunAll();
  }
};

void CheckWalk(Walk walk) {
  StageFixture& fixture = walk.fixture;
  const auto expected = ReferenceAnswer(walk.request.input, fixture.config.layout);
  walk.Place();
  fixture.RunAll();
  CHECK(walk.request.tokens == expected);
  CHECK(walk.request.finish == Finish::kLength);
  CHECK(fixture.Count<FirstTokenSampled>(walk.prefill, walk.prefill_task()) == 1);
  CHECK(fixture.Count<ItemLanded>(walk.prefill, walk.prefill_task()) == 2);
  CHECK(fixture.Count<DecodeStarted>(walk.decode, walk.decode_task()) == 1);
  CHECK(fixture.Count<TaskDelivered>(walk.decode, walk.decode_task()) == 1);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(fixture.Count<TaskDelivered>(walk.encode, walk.encode_task(i)) == 1);
  }
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

std::vector<Segment> TwoPictures() {
  return {Text({1, 2, 3}), Picture(501, 3), LongText(13), Picture(502, 2), Text({9, 8})};
}

TEST_CASE("StageScheduler: one worker of all roles hands over in memory", "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("encode+prefill+decode");
  FakeRequest& request = fixture.AddRequest(5, TwoPictures(), 9);
  CheckWalk({fixture, worker, worker, worker, request, 100});
  CHECK(fixture.pieces_moved == 0);
  CHECK(worker.engine->overlapped_steps > 0);
}

TEST_CASE("StageScheduler: three workers of one role each hand over by transfer",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& encode = fixture.AddWorker("encode");
  FakeWorker& prefill = fixture.AddWorker("prefill");
  FakeWorker& decode = fixture.AddWorker("decode");
  FakeRequest& request = fixture.AddRequest(6, TwoPictures(), 9);
  CheckWalk({fixture, encode, prefill, decode, request, 100});
  CHECK(fixture.pieces_moved > 4);  // two pictures, and KV in pieces of two blocks
}

TEST_CASE("StageScheduler: encode and prefill on one worker, decode on another",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& first = fixture.AddWorker("encode+prefill");
  FakeWorker& second = fixture.AddWorker("decode");
  FakeRequest& request = fixture.AddRequest(7, TwoPictures(), 5);
  CheckWalk({fixture, first, first, second, request, 100});
}

TEST_CASE("StageScheduler: encode on one worker, prefill and decode on another",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& first = fixture.AddWorker("encode");
  FakeWorker& second = fixture.AddWorker("prefill+decode");
  FakeRequest& request = fixture.AddRequest(8, TwoPictures(), 5);
  CheckWalk({fixture, first, second, second, request, 100});
}

}  // namespace
}  // namespace triptych::scheduler::testing
