#include "tests/simulation/reference.h"

#include <cstring>
#include <string>

#include "base/check.h"
#include "base/clock.h"

namespace triptych::simulation {

using scheduler::Item;
using scheduler::StepId;
using scheduler::TaskId;

scheduler::LayoutRules SimLayoutRules() {
  return {.image_token_id = 1,
          .video_token_id = 2,
          .vocab_size = kVocabulary,
          .block_tokens = kBlockTokens,
          .max_prompt_tokens = kMaxPosition};
}

engine::ModelledConfig SimDevice(int32_t kv_blocks, int32_t embedding_slots, double slowness) {
  engine::ModelledConfig config;
  config.capacity = {.kv_block_tokens = kBlockTokens,
                     .kv_blocks = kv_blocks,
                     .embedding_slots = embedding_slots,
                     .embedding_page_slots = kPageSlots,
                     .kv_bytes_per_token = kLayers * engine::FakeModel::kBytesPerToken,
                     .embedding_bytes_per_token = engine::FakeModel::kBytesPerToken,
                     .num_layers = kLayers,
                     .max_position = kMaxPosition};
  config.tokens = {.vocab_size = kVocabulary, .stop_token_ids = {kStopToken}, .stop_one_in = 40};
  // Slow enough that faults find requests in every state.
  config.cost = {.step_fixed = 0.03 * slowness,
                 .encode_fixed = 0.02 * slowness,
                 .encode_per_patch = 1e-3 * slowness,
                 .prefill_per_token = 5e-4 * slowness,
                 .decode_per_sequence = 2e-3 * slowness};
  config.payload = engine::FakePayload::kCarried;
  config.staging_bytes = config.landing_bytes = kTransferBytes;
  return config;
}

engine::EncodeInput InputOf(const Item& item) {
  engine::EncodeInput input{.grid = item.grid,
                            .pixels = std::vector<uint8_t>(sizeof(item.content_key))};
  std::memcpy(input.pixels.data(), &item.content_key, sizeof(item.content_key));
  return input;
}

namespace {

// One sequence on one device, its prompt in one chunk.
std::vector<int32_t> Answer(const scheduler::PulledInput& input) {
  const auto layout = scheduler::ResolveLayout(input.segments, {}, SimLayoutRules());
  CHECK_OK(layout);
  const int32_t blocks = (layout->num_tokens() + input.max_tokens) / kBlockTokens + 1;
  base::SimulatedClock clock;
  scheduler::StepResult result;
  engine::SimulatedExecutor device(
      SimDevice(blocks, kMaxPosition), clock,
      {.on_result = [&](scheduler::StepResult r) { result = std::move(r); }});
  scheduler::PlanRow row{.token_ids = layout->token_ids,
                         .positions = layout->Positions(0, layout->num_tokens())};
  for (int32_t block = 0; block < blocks; ++block) row.pages.push_back(block);
  row.sample = scheduler::SampleSpec{input.sampling, 0};
  scheduler::StepPlan encode{.id = StepId(1), .lane = scheduler::Lane::kEncode}, plan;
  size_t items = 0;
  scheduler::BlockId next_page = 0;
  for (const scheduler::Segment& segment : input.segments) {
    const auto* item = std::get_if<Item>(&segment);
    if (item == nullptr) continue;
    const TaskId task{{}, items + 1};
    const scheduler::ItemSlots place = layout->items[items++];
    device.ProvideInput(task, InputOf(*item));
    std::vector<scheduler::BlockId> pages;
    for (int32_t i = 0; i < place.size(); i += kPageSlots) pages.push_back(next_page++);
    encode.encodes.push_back({task, item->grid, place.size(), pages});
    row.embeddings.push_back({place.begin, place.size(), 0, std::move(pages)});
  }
  if (!encode.empty()) device.Submit(std::move(encode));
  device.RunUntil(base::kNever);
  std::vector<int32_t> answer;
  while (true) {
    plan.id = StepId(answer.size() + 1);
    plan.rows = {row};
    device.Submit(std::move(plan));
    device.RunUntil(base::kNever);
    answer.push_back(result.rows[0].tokens[0].token);
    const auto length = static_cast<int32_t>(answer.size());
    if (answer.back() == kStopToken || length == input.max_tokens) return answer;
    plan = {};
    row.token_begin = layout->num_tokens() + length - 1;
    row.token_ids = {answer.back()};
    row.positions = {layout->PositionAt(row.token_begin)};
    row.embeddings.clear();
    row.sample->index = length;
  }
}

}  // namespace

SimRequest MakeRequest(base::SeededRandom& random, scheduler::RequestId id) {
  SimRequest request;
  scheduler::PulledInput& input = request.input;
  scheduler::SubmitRequest& submit = request.submit;
  const auto text = [&] {
    scheduler::TokenRun run;
    for (int64_t i = random.Between(1, 40); i > 0; --i) {
      run.ids.push_back(static_cast<int32_t>(random.Between(10, kVocabulary - 1)));
    }
    input.segments.push_back(run);
  };
  text();
  for (int64_t items = random.Between(-1, 3); items > 0; --items) {
    const auto h = static_cast<int32_t>(2 * random.Between(1, 5));
    const auto w = static_cast<int32_t>(2 * random.Between(1, 5));
    Item item{.grid = {1, h, w}, .content_key = random.Next(), .max_tokens = h * w / 4};
    submit.items.push_back({.media_bytes = 1000,
                            .pixels = item.grid.patches() * 196,
                            .patches = item.grid.patches(),
                            .num_tokens = item.max_tokens,
                            .content_key = item.content_key});
    input.segments.push_back(item);
    text();
  }
  input.max_tokens = static_cast<int32_t>(random.Between(1, 60));
  input.stop_token_ids = {kStopToken};
  input.sampling.seed = random.Next();
  submit.request = id;
  submit.fingerprint = "model";
  submit.tenant = "tenant " + std::to_string(random.Below(3));
  submit.priority = static_cast<int32_t>(random.Below(3));
  submit.max_tokens = input.max_tokens;
  submit.prompt_tokens =
      scheduler::ResolveLayout(input.segments, {}, SimLayoutRules())->num_tokens();
  request.answer = Answer(input);
  return request;
}

}  // namespace triptych::simulation
