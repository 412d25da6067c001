// Defends: a request walks through encode, prefill and decode, on one worker and on separate ones,
// and gets exactly the answer that a computation without blocks, chunks or workers gives.

#include <catch2/catch.hpp>

#include "tests/scheduler/stage/walk.h"

namespace triptych::scheduler::testing {
namespace {

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

TEST_CASE("StageScheduler: one worker of all roles hands over in memory", "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("encode+prefill+decode");
  FakeRequest& request = fixture.AddRequest(5, TwoPictures(), 9);
  CheckWalk({fixture, worker, worker, worker, request, 100});
  CHECK(fixture.pieces_moved == 0);
  CHECK(worker.engine->overlapped_steps > 0);
}

TEST_CASE("StageScheduler: a prompt whose text waits for its pictures walks as well",
          "[scheduler][stage]") {
  StageFixture fixture;
  fixture.config.least_early_tokens = 64;
  FakeWorker& worker = fixture.AddWorker("encode+prefill+decode");
  FakeRequest& request = fixture.AddRequest(5, TwoPictures(), 9);
  CheckWalk({fixture, worker, worker, worker, request, 100});
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
