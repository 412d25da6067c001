// Defends: single tasks under single misfortunes. Each case drives one worker or a pair by hand.

#include <catch2/catch.hpp>

#include "tests/scheduler/stage/walk.h"

namespace triptych::scheduler::testing {
namespace {

std::vector<int32_t> Reference(const StageFixture& fixture, const FakeRequest& request) {
  return ReferenceAnswer(request.input, fixture.config.layout);
}

TEST_CASE("StageScheduler: a prefill that does not fit is refused with what is free",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill");
  AssignPrefill assign{.task = Task(1), .gateway = kGateway, .prompt_tokens = 64 * 4 + 1};
  fixture.Send(worker, assign);
  REQUIRE(fixture.Last<TaskRefused>(worker) != nullptr);
  CHECK(fixture.Last<TaskRefused>(worker)->free_kv_blocks == 64);
  CHECK(fixture.Last<TaskRefused>(worker)->free_embedding_slots == 64);
  assign = {.task = Task(2), .gateway = kGateway, .prompt_tokens = 70, .item_tokens = {60, 5}};
  fixture.Send(worker, assign);
  CHECK(fixture.Count<TaskRefused>(worker, Task(2)) == 1);
  fixture.RunAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: tasks of another role and tasks while draining are refused",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill");
  fixture.Send(worker, AssignEncode{.task = Task(1), .num_tokens = 4});
  CHECK(fixture.Count<TaskRefused>(worker, Task(1)) == 1);
  fixture.Send(worker, DrainWorker{});
  fixture.Send(worker, AssignPrefill{.task = Task(2), .prompt_tokens = 4});
  CHECK(fixture.Count<TaskRefused>(worker, Task(2)) == 1);
  CHECK(worker.stage->draining());
}

TEST_CASE("StageScheduler: a repeated assignment is accepted again and reserves nothing more",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill");
  FakeRequest& request = fixture.AddRequest(1, {LongText(10)}, 4);
  const AssignPrefill assign{
      .task = Task(1), .request = request.id, .gateway = kGateway, .prompt_tokens = 10};
  fixture.Send(worker, assign);
  fixture.Send(worker, assign);
  CHECK(fixture.Count<TaskAccepted>(worker, Task(1)) == 2);
  CHECK(worker.stage->Stats().kv_blocks == 3);
  fixture.RunAll();
  fixture.Send(worker, assign);
  CHECK(fixture.Count<FirstTokenSampled>(worker, Task(1)) == 2);
  CHECK(request.tokens.size() == 1);
  fixture.Send(worker, ReleaseTask{Task(1)});
  fixture.Send(worker, ReleaseTask{Task(1)});
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: a chunk waits for the items of its own range only",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill");
  FakeRequest& request = fixture.AddRequest(1, {LongText(11), Picture(5, 2), LongText(3)}, 4);
  fixture.Send(worker, AssignPrefill{.task = Task(1),
                                     .request = request.id,
                                     .gateway = kGateway,
                                     .prompt_tokens = 18,
                                     .item_tokens = {4}});
  fixture.RunAll();
  CHECK(worker.engine->chunks_run == 2);  // 8 and 3 tokens before the picture
  CHECK(fixture.Count<FirstTokenSampled>(worker, Task(1)) == 0);
  fixture.Send(worker, ReleaseTask{Task(1)});
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: few tokens before a missing item wait for it, many do not",
          "[scheduler][stage]") {
  StageFixture fixture;
  fixture.config.least_early_tokens = 4;
  FakeWorker& worker = fixture.AddWorker("prefill");
  FakeRequest& request = fixture.AddRequest(1, {LongText(11), Picture(5, 2), LongText(3)}, 4);
  fixture.Send(worker, AssignPrefill{.task = Task(1),
                                     .request = request.id,
                                     .gateway = kGateway,
                                     .prompt_tokens = 18,
                                     .item_tokens = {4}});
  fixture.RunAll();
  CHECK(worker.engine->chunks_run == 1);  // 8 of the 11
  fixture.Send(worker, ReleaseTask{Task(1)});
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: blocks of a released task stay held until the step is over",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill");
  FakeRequest& request = fixture.AddRequest(1, {LongText(20)}, 4);
  fixture.Send(
      worker,
      AssignPrefill{
          .task = Task(1), .request = request.id, .gateway = kGateway, .prompt_tokens = 20});
  fixture.RunEvent(0);  // the pull is answered, two steps are in flight
  REQUIRE(worker.engine->lanes[0].size() == 2);
  fixture.Send(worker, ReleaseTask{Task(1)});
  CHECK(worker.stage->Stats().tasks == 0);
  CHECK(worker.stage->Stats().kv_blocks == 5);
  fixture.FinishStep(worker);
  CHECK(worker.stage->Stats().kv_blocks == 5);
  fixture.FinishStep(worker);
  fixture.RunAll();
  fixture.CheckAtRest();
}

// The failure once named the task by an id that its own end had freed: seen by ASan only.
TEST_CASE("StageScheduler: KV that was taken over cannot be bound elsewhere, and says so",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeWorker& other = fixture.AddWorker("decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(9)}, 4);
  Walk walk{fixture, worker, worker, worker, request, 100};
  walk.Place();
  fixture.RunAll();
  REQUIRE(request.finish == Finish::kLength);
  fixture.Send(worker, BindConsumer{walk.prefill_task(), Task(200), other.address});
  REQUIRE(fixture.Last<TaskFailed>(worker) != nullptr);
  CHECK(fixture.Last<TaskFailed>(worker)->task == walk.prefill_task());
  CHECK(absl::IsUnavailable(fixture.Last<TaskFailed>(worker)->status));
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: a stop token ends the answer and the overrun is discarded",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("encode+prefill+decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(9)}, 30);
  request.input.stop_token_ids = {Reference(fixture, request)[6]};
  Walk walk{fixture, worker, worker, worker, request, 100};
  walk.Place();
  fixture.RunAll();
  CHECK(request.tokens == Reference(fixture, request));
  CHECK(request.finish == Finish::kStop);
  // Prefill's chunks, a row a token after the first, and the overrun.
  CHECK(worker.engine->rows_run == 2 + 6 + 1);
  CHECK(worker.stage->Stats().kv_blocks == 0);
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: an answer of one token needs no decode", "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill");
  FakeRequest& request = fixture.AddRequest(3, {LongText(9)}, 1);
  fixture.Send(
      worker, AssignPrefill{
                  .task = Task(1), .request = request.id, .gateway = kGateway, .prompt_tokens = 9});
  fixture.RunAll();
  REQUIRE(fixture.Last<FirstTokenSampled>(worker) != nullptr);
  CHECK(fixture.Last<FirstTokenSampled>(worker)->finish == Finish::kLength);
  CHECK(worker.stage->Stats().kv_blocks == 0);
  CHECK(request.tokens == Reference(fixture, request));
}

TEST_CASE("StageScheduler: KV is pushed again to the decode worker that replaces a lost one",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& prefill = fixture.AddWorker("prefill");
  FakeWorker& lost = fixture.AddWorker("decode");
  FakeWorker& next = fixture.AddWorker("decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(21)}, 12);
  Walk walk{fixture, prefill, prefill, lost, request, 100};
  walk.Place();
  while (request.tokens.size() < 6) REQUIRE(fixture.RunOne());
  fixture.Kill(lost);
  request.epoch = OutputEpoch(1);
  fixture.Send(next, AssignDecode{.task = Task(500),
                                  .request = request.id,
                                  .gateway = kGateway,
                                  .epoch = request.epoch,
                                  .prompt_tokens = 21,
                                  .producer = Task(101),
                                  .producer_worker = prefill.address});
  fixture.Send(prefill, BindConsumer{Task(101), Task(500), next.address});
  fixture.RunAll();
  CHECK(request.tokens == Reference(fixture, request));
  CHECK(next.engine->chunks_run == 1);  // the sent tokens, teacher-forced in one chunk
  CHECK(fixture.Count<DecodeStarted>(next, Task(500)) == 1);
  CHECK(fixture.Count<TaskDelivered>(next, Task(500)) == 1);
  fixture.Send(prefill, ReleaseTask{Task(101)});
  fixture.Send(next, ReleaseTask{Task(500)});
  fixture.RunAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: a prefill that starts again takes the sent tokens as prompt",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(13)}, 10);
  const std::vector<int32_t> expected = Reference(fixture, request);
  // More is sent than the scheduler knew when it assigned.
  Walk walk{fixture, worker, worker, worker, request, 100};
  walk.Place();
  request.tokens.assign(expected.begin(), expected.begin() + 7);
  fixture.RunAll();
  CHECK(request.tokens == expected);
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: a prefill without room for the sent tokens says how many they are",
          "[scheduler][stage]") {
  StageFixture fixture;
  fixture.config.profile.kv_blocks = 4;
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(13)}, 30);
  Walk walk{fixture, worker, worker, worker, request, 100};
  walk.Place();
  request.tokens.assign(10, 1);
  fixture.RunAll();
  REQUIRE(fixture.Last<TaskFailed>(worker) != nullptr);
  CHECK(fixture.Last<TaskFailed>(worker)->task == walk.prefill_task());
  CHECK(absl::IsAborted(fixture.Last<TaskFailed>(worker)->status));
  CHECK(fixture.Last<TaskFailed>(worker)->tokens_sent == 10);
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: out of blocks, the youngest decode goes and the oldest goes on",
          "[scheduler][stage]") {
  StageFixture fixture;
  fixture.config.profile.kv_blocks = 8;
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeRequest& old = fixture.AddRequest(1, {LongText(12)}, 18);
  FakeRequest& young = fixture.AddRequest(2, {LongText(12)}, 18);
  Walk first{fixture, worker, worker, worker, old, 100};
  Walk second{fixture, worker, worker, worker, young, 200};
  first.Place();
  second.Place();
  fixture.RunAll();
  CHECK(old.tokens == Reference(fixture, old));
  CHECK(fixture.Count<TaskFailed>(worker, first.decode_task()) == 0);
  REQUIRE(fixture.Last<TaskFailed>(worker) != nullptr);
  CHECK(fixture.Last<TaskFailed>(worker)->task == second.decode_task());
  CHECK(absl::IsAborted(fixture.Last<TaskFailed>(worker)->status));
  // What it sent last may not be acknowledged yet.
  CHECK(fixture.Last<TaskFailed>(worker)->tokens_sent > 0);
  CHECK(fixture.Last<TaskFailed>(worker)->tokens_sent <= static_cast<int>(young.tokens.size()));
  first.ReleaseAll();
  second.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: out of blocks, KV that waits for a decode worker goes before the oldest",
          "[scheduler][stage]") {
  StageFixture fixture;
  fixture.config.profile.kv_blocks = 8;
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeRequest& old = fixture.AddRequest(1, {LongText(12)}, 18);
  FakeRequest& kept = fixture.AddRequest(2, {LongText(12)}, 18);
  Walk first{fixture, worker, worker, worker, old, 100};
  Walk second{fixture, worker, worker, worker, kept, 200};
  first.Place();
  second.PlacePrefill();
  fixture.RunAll();
  CHECK(old.tokens == Reference(fixture, old));
  REQUIRE(fixture.Last<TaskFailed>(worker) != nullptr);
  CHECK(fixture.Last<TaskFailed>(worker)->task == second.prefill_task());
  CHECK(absl::IsAborted(fixture.Last<TaskFailed>(worker)->status));
  first.ReleaseAll();
  second.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: an answer that outgrows the memory ends there, as at the context's end",
          "[scheduler][stage]") {
  StageFixture fixture;
  fixture.config.profile.kv_blocks = 4;
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeRequest& request = fixture.AddRequest(1, {LongText(12)}, 18);
  Walk walk{fixture, worker, worker, worker, request, 100};
  walk.Place();
  fixture.RunAll();
  CHECK(fixture.Last<TaskFailed>(worker) == nullptr);
  CHECK(request.finish == Finish::kLength);
  // The last token needs no KV of its own.
  const int32_t room = 4 * fixture.config.profile.kv_block_tokens - 12;
  REQUIRE(room < 17);
  CHECK(request.tokens.size() == static_cast<size_t>(room + 1));
  const std::vector<int32_t> whole = Reference(fixture, request);
  CHECK(std::equal(request.tokens.begin(), request.tokens.end(), whole.begin()));
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: a corrupt piece is sent again and nothing else changes",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& prefill = fixture.AddWorker("prefill");
  FakeWorker& decode = fixture.AddWorker("decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(21)}, 8);
  fixture.corrupt_next = true;
  Walk walk{fixture, prefill, prefill, decode, request, 100};
  walk.Place();
  fixture.RunAll();
  CHECK_FALSE(fixture.corrupt_next);
  CHECK(request.tokens == Reference(fixture, request));
  CHECK(fixture.Last<TaskFailed>(prefill) == nullptr);
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: logits that are not finite end the request with its own error",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(5)}, 8);
  Walk walk{fixture, worker, worker, worker, request, 100};
  SECTION("in prefill") { worker.engine->broken.insert(walk.prefill_task()); }
  SECTION("in decode") { worker.engine->broken.insert(walk.decode_task()); }
  walk.Place();
  fixture.RunAll();
  CHECK(absl::IsInternal(request.error));
  CHECK(request.error.message() == "numerical_error");
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: a token that the model lacks reaches neither a step nor another worker",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& prefill = fixture.AddWorker("prefill");
  FakeWorker& decode = fixture.AddWorker("decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(5)}, 8);
  Walk walk{fixture, prefill, prefill, decode, request, 100};
  SECTION("sampled here: as logits that are not finite") {
    prefill.engine->mad.insert(walk.prefill_task());
    walk.Place();
    fixture.RunAll();
    CHECK(request.error.message() == "numerical_error");
    CHECK(request.tokens.empty());
  }
  SECTION("sent before: the prefill that starts again fails") {
    request.tokens = {7, kVocabulary};
    walk.Place();
    fixture.RunAll();
    REQUIRE(fixture.Last<TaskFailed>(prefill) != nullptr);
    CHECK(absl::IsInternal(fixture.Last<TaskFailed>(prefill)->status));
    CHECK(prefill.engine->rows_run == 0);
  }
  SECTION("with the KV: the decode fails") {
    fixture.bad_first_token = -1;
    walk.Place();
    fixture.RunAll();
    REQUIRE(fixture.Last<TaskFailed>(decode) != nullptr);
    CHECK(absl::IsInternal(fixture.Last<TaskFailed>(decode)->status));
    CHECK(decode.engine->rows_run == 0);
  }
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: media of another grid than their item's fail the encode",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("encode+prefill+decode");
  FakeRequest& request = fixture.AddRequest(3, {Picture(5, 2)}, 8);
  Walk walk{fixture, worker, worker, worker, request, 100};
  fixture.media_grid = Grid{1, 2, 8};  // as many patches and tokens
  walk.Place();
  fixture.RunAll();
  REQUIRE(fixture.Last<TaskFailed>(worker) != nullptr);
  CHECK(fixture.Last<TaskFailed>(worker)->task == walk.encode_task(0));
  CHECK(absl::IsInternal(fixture.Last<TaskFailed>(worker)->status));
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: an import waits for no step, and rows wait for the import",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& prefill = fixture.AddWorker("prefill");
  FakeWorker& decode = fixture.AddWorker("prefill+decode");
  FakeRequest& busy = fixture.AddRequest(1, {LongText(64)}, 4);
  FakeRequest& request = fixture.AddRequest(2, {LongText(7)}, 4);
  Walk first{fixture, decode, decode, decode, busy, 100};
  Walk second{fixture, prefill, prefill, decode, request, 200};
  first.PlacePrefill();
  second.Place();
  // Everything but the decode worker's engine, which keeps two steps in flight.
  while (true) {
    if (!fixture.events.empty()) {
      fixture.RunEvent(0);
    } else if (prefill.engine->num_choices() > 0) {
      fixture.RunEngine(prefill, 0);
    } else {
      break;
    }
  }
  CHECK(decode.engine->lanes[0].size() == 2);
  REQUIRE(decode.engine->imports.size() == 1);
  CHECK(fixture.Count<DecodeStarted>(decode, second.decode_task()) == 0);
  fixture.RunEngine(decode, 0);
  CHECK(decode.engine->imports.empty());
  CHECK(decode.engine->lanes[0].size() == 2);
  fixture.RunAll();
  CHECK(request.tokens == Reference(fixture, request));
  first.ReleaseAll();
  second.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE(
    "StageScheduler: a producer that is replaced while its last piece is imported still counts",
    "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& encode = fixture.AddWorker("encode");
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeRequest& request = fixture.AddRequest(1, {Picture(5, 2), LongText(3)}, 4);
  Walk walk{fixture, encode, worker, worker, request, 100};
  walk.Place();
  while (worker.engine->imports.empty()) {
    if (!fixture.events.empty()) {
      fixture.RunEvent(0);
    } else {
      fixture.RunEngine(encode, 0);
    }
  }
  // Every piece is checked in, so no other producer will be heard.
  fixture.Send(worker, Rebind{walk.prefill_task(), {0, Task(999)}});
  fixture.RunAll();
  REQUIRE(fixture.Count<ItemLanded>(worker, walk.prefill_task()) == 1);
  CHECK(fixture.Last<ItemLanded>(worker)->input.producer == walk.encode_task(0));
  CHECK(request.tokens == Reference(fixture, request));
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: KV leaves by groups of layers, and the last group with the token",
          "[scheduler][stage]") {
  StageFixture fixture;
  fixture.config.num_layers = 5;
  fixture.config.layer_group = 2;
  fixture.config.profile.kv_bytes_per_token = 5 * 8;
  fixture.config.max_piece_bytes = 2 * 8 * 8;  // eight tokens of two layers
  FakeWorker& prefill = fixture.AddWorker("prefill");
  FakeWorker& decode = fixture.AddWorker("decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(13)}, 8);
  Walk walk{fixture, prefill, prefill, decode, request, 100};
  walk.Place();
  fixture.RunAll();
  CHECK(request.tokens == Reference(fixture, request));
  CHECK(fixture.pieces_moved == 2 * 3);
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: encodes hold up no rows of their worker", "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("encode+prefill+decode");
  FakeRequest& pictures = fixture.AddRequest(1, TwoPictures(), 4);
  FakeRequest& text = fixture.AddRequest(2, {LongText(7)}, 4);
  Walk first{fixture, worker, worker, worker, pictures, 100};
  Walk second{fixture, worker, worker, worker, text, 200};
  first.Place();
  second.Place();
  while (text.finish == Finish::kNone) {
    if (!fixture.events.empty()) {
      fixture.RunEvent(0);
    } else {
      fixture.FinishStep(worker);
    }
  }
  CHECK(text.tokens == Reference(fixture, text));
  CHECK(worker.engine->lanes[1].size() > 0);
  fixture.RunAll();
  CHECK(pictures.tokens == Reference(fixture, pictures));
  first.ReleaseAll();
  second.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: unacknowledged tokens are sent again when the stream is rebuilt",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(5)}, 8);
  fixture.gateway_silent = true;
  Walk walk{fixture, worker, worker, worker, request, 100};
  walk.Place();
  fixture.RunAll();
  CHECK(fixture.Count<DecodeStarted>(worker, walk.decode_task()) == 0);
  CHECK(fixture.Count<TaskDelivered>(worker, walk.decode_task()) == 0);
  request.tokens.resize(2);  // as if the rest had been lost with the stream
  fixture.gateway_silent = false;
  fixture.resent_allowed = true;
  worker.stage->OnTokenStreamReset(kGateway.incarnation, fixture.clock.Now());
  fixture.Collect(worker);
  fixture.RunAll();
  CHECK(request.tokens == Reference(fixture, request));
  CHECK(fixture.Count<TaskDelivered>(worker, walk.decode_task()) == 1);
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: a request that the gateway dropped fails with NOT_FOUND",
          "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("prefill+decode");
  FakeRequest& request = fixture.AddRequest(3, {LongText(5)}, 20);
  Walk walk{fixture, worker, worker, worker, request, 100};
  walk.Place();
  while (request.tokens.size() < 3) REQUIRE(fixture.RunOne());
  request.ended = true;
  fixture.RunAll();
  REQUIRE(fixture.Last<TaskFailed>(worker) != nullptr);
  CHECK(absl::IsNotFound(fixture.Last<TaskFailed>(worker)->status));
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

TEST_CASE("StageScheduler: the inventory names every task and its state", "[scheduler][stage]") {
  StageFixture fixture;
  FakeWorker& worker = fixture.AddWorker("encode+prefill+decode");
  FakeRequest& request = fixture.AddRequest(3, TwoPictures(), 20);
  Walk walk{fixture, worker, worker, worker, request, 100};
  walk.Place();
  const WorkerReport before = worker.stage->Report(true);
  REQUIRE(before.tasks.size() == 4);
  CHECK(before.tasks[2].stage == Stage::kPrefill);
  CHECK(before.tasks[2].inputs.size() == 2);
  CHECK(before.tasks[2].state == TaskState::kAccepted);
  CHECK(before.load[static_cast<int>(Stage::kEncode)].queued_cost == 13 * 4);
  fixture.RunAll();
  const WorkerReport after = worker.stage->Report(true);
  CHECK(after.tasks[0].state == TaskState::kDelivered);
  CHECK(after.tasks[2].items_landed == std::vector<int32_t>{0, 1});
  CHECK(after.tasks[3].state == TaskState::kDelivered);
  CHECK_FALSE(worker.stage->Report(false).has_inventory);
  walk.ReleaseAll();
  fixture.CheckAtRest();
}

}  // namespace
}  // namespace triptych::scheduler::testing
