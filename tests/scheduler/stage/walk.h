#pragma once

// One request and the workers that it is assigned to.

#include <cstdint>
#include <vector>

#include "tests/scheduler/stage/stage_fixture.h"

namespace triptych::scheduler::testing {

inline std::vector<Segment> TwoPictures() {
  return {Text({1, 2, 3}), Picture(501, 3), LongText(13), Picture(502, 2), Text({9, 8})};
}

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
    PlacePrefill();
    fixture.Send(decode, AssignDecode{.task = decode_task(),
                                      .request = request.id,
                                      .gateway = kGateway,
                                      .epoch = request.epoch,
                                      .prompt_tokens = prompt_tokens(),
                                      .producer = prefill_task(),
                                      .producer_worker = prefill.address});
    fixture.Send(prefill, BindConsumer{prefill_task(), decode_task(), decode.address});
  }
  int32_t prompt_tokens() const {
    const auto layout = *ResolveLayout(request.input.segments, {}, fixture.config.layout);
    return layout.num_tokens() + static_cast<int32_t>(request.tokens.size());
  }
  // With its encodes, and no decode that takes its KV.
  void PlacePrefill() {
    const std::vector<int32_t> items = request.ItemTokenCounts(fixture.config.layout);
    fixture.Send(prefill, AssignPrefill{.task = prefill_task(),
                                        .request = request.id,
                                        .gateway = kGateway,
                                        .epoch = request.epoch,
                                        .prompt_tokens = prompt_tokens(),
                                        .item_tokens = items});
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
  }
  void ReleaseAll() {
    const size_t items = request.ItemTokenCounts(fixture.config.layout).size();
    for (size_t i = 0; i < items; ++i) fixture.Send(encode, ReleaseTask{encode_task(i)});
    fixture.Send(prefill, ReleaseTask{prefill_task()});
    fixture.Send(decode, ReleaseTask{decode_task()});
    fixture.RunAll();
  }
};

}  // namespace triptych::scheduler::testing
