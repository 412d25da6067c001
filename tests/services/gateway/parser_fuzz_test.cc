// Defended: whatever a client sends, the parsers of the gateway end in a value that keeps its
// promises or in a refusal of the table, and take memory in proportion to what was sent. How: good
// inputs, harmed at random from a seed; the same runs under the sanitizers.

#include <google/protobuf/stubs/logging.h>

#include <catch2/catch.hpp>
#include <iterator>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/grpc_request.h"
#include "services/gateway/request/inline_media.h"
#include "services/gateway/request/intake.h"
#include "services/gateway/request/json.h"
#include "services/gateway/request/openai_request.h"
#include "tests/media/picture_writer.h"
#include "tests/services/gateway/small_model.h"
#include "tests/support/heap_peak.h"
#include "tests/support/mutate.h"
#include "tests/support/skip.h"

namespace triptych::services {
namespace {

using testing::SmallModel;
using triptych::testing::Gradient;
using triptych::testing::HeapPeak;
using triptych::testing::Mutate;

// Objects are larger than their text: a digit and its comma become a value of 48 bytes in a vector
// that doubles, a key also an entry of a set.
constexpr int64_t kBytesPerByte = 96;
constexpr int64_t kBytesBeside = 16 << 10;

const std::vector<std::string> kFragments = {"\"",
                                             "\\",
                                             "{",
                                             "[",
                                             "}",
                                             "]",
                                             ",",
                                             ":",
                                             "null",
                                             "true",
                                             "-0",
                                             "1e308",
                                             "1e999",
                                             "NaN",
                                             "\\u0000",
                                             "\\ud800",
                                             "\xff",
                                             "\xed\xa0\x80",
                                             "\xc3\xa9",
                                             "=",
                                             "====",
                                             "data:",
                                             ";base64,",
                                             "image/png",
                                             "<|image_pad|>",
                                             "9223372036854775808",
                                             "-1",
                                             "[[[[[[[[[[",
                                             "{\"a\":",
                                             "\"messages\":[]",
                                             std::string(1, '\0'),
                                             "\r\n",
                                             std::string(300, 'a'),
                                             "{\"role\":\"user\"}"};

std::string Picture() {
  return triptych::testing::WritePng(Gradient(64, 64), triptych::testing::PngKind());
}

std::string PictureUrl() { return "data:image/png;base64," + absl::Base64Escape(Picture()); }

std::string GoodBody() {
  return absl::StrCat(
      R"({"model":"triptych-16m","messages":[{"role":"system","content":"Be brief."},)",
      R"({"role":"user","content":[{"type":"text","text":"What is h\u00e9re?"},)",
      R"({"type":"image_url","image_url":{"url":")", PictureUrl(), R"("}}]},)",
      R"({"role":"assistant","content":"A picture."},{"role":"user","content":"And now?"}],)",
      R"("temperature":0.5,"top_p":0.9,"top_k":40,"seed":7,"max_tokens":5,"stop":["\n","x"],)",
      R"("n":1,"stream":true,"stream_options":{"include_usage":true},)",
      R"("logprobs":true,"top_logprobs":2,)",
      R"("timeout_ms":1000,"priority":-3,"user":"me","metadata":{"a":[1,2,{"b":null}]}})");
}

v1::GenerateRequest GoodMessage() {
  v1::GenerateRequest request;
  v1::Message* message = request.add_messages();
  message->set_role("user");
  message->add_content()->set_text("What is here?");
  message->add_content()->mutable_image()->set_data(Picture());
  v1::Video* video = message->add_content()->mutable_video();
  video->add_frames()->set_data(Picture());
  video->add_frames()->set_data(Picture());
  request.mutable_sampling()->set_temperature(0.5);
  request.mutable_sampling()->set_seed(3);
  request.set_max_tokens(5);
  request.add_stop("x");
  request.set_tenant("me");
  return request;
}

// A refusal that a client may see: a code of the table by its own name, not by its canonical code.
void CheckRefusal(const absl::Status& status) {
  REQUIRE((absl::IsInvalidArgument(status) || absl::IsNotFound(status)));
  const std::string code = ToClientError(status).code;
  REQUIRE(status.message().substr(0, code.size()) == code);
}

// Through the rest of a front end; whatever comes out is within its bounds.
void TakeIn(const Intake& intake, ChatRequest chat) {
  PayloadBudget budget(1 << 20);
  PayloadBudget::Reservation reservation = budget.Open();
  REQUIRE(reservation.GrowTo(1 << 20));
  {
    const auto parsed = intake.Parse(std::move(chat), std::move(reservation));
    if (!parsed.ok()) return CheckRefusal(parsed.status());
    const scheduler::SubmitRequest& submit = (*parsed)->submit;
    REQUIRE(submit.prompt_tokens > 0);
    REQUIRE(submit.max_tokens > 0);
    REQUIRE(submit.prompt_tokens + submit.max_tokens <= intake.model().context_tokens());
    REQUIRE((*parsed)->picture_tokens < submit.prompt_tokens);
    for (const scheduler::ItemCost& item : submit.items) REQUIRE(item.num_tokens > 0);
  }
  REQUIRE(budget.free_bytes() == 1 << 20);
}

TEST_CASE("Parsers: harmed JSON ends in a request or a refusal", "[gateway][fuzz]") {
  if (SmallModel() == nullptr) {
    return triptych::testing::SkipTest("the shipped model is not here");
  }
  constexpr uint64_t kSeed = 20261126;
  INFO("seed " << kSeed);
  base::SeededRandom random(kSeed);
  const Intake intake(*SmallModel(), {});
  const std::string good = GoodBody();
  REQUIRE(ParseOpenAiRequest(good, Endpoint::kChat).ok());
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    const std::string body = Mutate(good, kFragments, &random);
    CAPTURE(round);
    const HeapPeak peak;
    absl::StatusOr<OpenAiRequest> request = ParseOpenAiRequest(body, Endpoint::kChat);
    const int64_t bound = kBytesBeside + kBytesPerByte * static_cast<int64_t>(body.size());
    REQUIRE(peak.bytes() <= bound);
    if (!request.ok()) {
      CheckRefusal(request.status());
      continue;
    }
    ++accepted;
    TakeIn(intake, std::move(request->prompts[0]));
  }
  CHECK(accepted > 1000);
}

TEST_CASE("Parsers: JSON of nothing but structure takes memory in proportion", "[gateway][fuzz]") {
  constexpr uint64_t kSeed = 7;
  INFO("seed " << kSeed);
  base::SeededRandom random(kSeed);
  const char* const words[] = {"[",      "]",    "{",    "}",  ",",       ":",      "1",
                               "\"a\":", "\"\"", "null", "[[", "1,1,1,1", "\"b\":{"};
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (uint64_t left = random.Below(60); left > 0; --left) {
      text += words[random.Below(std::size(words))];
    }
    const HeapPeak peak;
    const absl::StatusOr<JsonValue> value = ParseJson(text);
    REQUIRE(peak.bytes() <= kBytesBeside + kBytesPerByte * static_cast<int64_t>(text.size()));
    if (!value.ok()) {
      REQUIRE(ToClientError(value.status()).code == std::string("invalid_json"));
    }
  }
  // The worst that a megabyte can hold.
  for (const char* unit : {"1,", "[],", "{},", "\"\","}) {
    std::string text = "[";
    while (text.size() < 1 << 20) text += unit;
    text.back() = ']';
    const HeapPeak peak;
    ParseJson(text).status().IgnoreError();
    REQUIRE(peak.bytes() <= kBytesBeside + kBytesPerByte * static_cast<int64_t>(text.size()));
  }
}

TEST_CASE("Parsers: harmed protobuf ends in a request or a refusal", "[gateway][fuzz]") {
  if (SmallModel() == nullptr) {
    return triptych::testing::SkipTest("the shipped model is not here");
  }
  // Protobuf writes a line for each text that is not UTF-8.
  const google::protobuf::LogSilencer silence;
  constexpr uint64_t kSeed = 20261127;
  INFO("seed " << kSeed);
  base::SeededRandom random(kSeed);
  const Intake intake(*SmallModel(), {});
  const std::string good = GoodMessage().SerializeAsString();
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    const std::string bytes = Mutate(good, kFragments, &random);
    CAPTURE(round);
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer buffer(&slice, 1);
    const HeapPeak peak;
    absl::StatusOr<v1::GenerateRequest> message = ReadGenerateRequest(buffer);
    REQUIRE(peak.bytes() <= kBytesBeside + kBytesPerByte * static_cast<int64_t>(bytes.size()));
    if (!message.ok()) {
      CheckRefusal(message.status());
      continue;
    }
    absl::StatusOr<ChatRequest> chat = FromProto(*std::move(message));
    if (!chat.ok()) {
      CheckRefusal(chat.status());
      continue;
    }
    ++accepted;
    TakeIn(intake, *std::move(chat));
  }
  CHECK(accepted > 1000);
}

TEST_CASE("Parsers: harmed data: URLs end in media or a refusal", "[gateway][fuzz]") {
  constexpr uint64_t kSeed = 13;
  INFO("seed " << kSeed);
  base::SeededRandom random(kSeed);
  const std::string image = "data:image/png;base64,AAECAwQFBgcICQ==";
  const std::string video = "data:video/jpeg;base64,AAEC,AwQF,Bg==,AAAA";
  int accepted = 0;
  for (int round = 0; round < 50'000; ++round) {
    const std::string url = Mutate(round % 2 == 0 ? image : video, kFragments, &random);
    const HeapPeak peak;
    const absl::StatusOr<ChatMedia> media =
        round % 2 == 0 ? ParseImageUrl(url) : ParseVideoUrl(url, 2);
    // A comma makes a frame: an empty string in a vector that doubles.
    REQUIRE(peak.bytes() <= 4096 + kBytesPerByte * static_cast<int64_t>(url.size()));
    if (!media.ok()) {
      CheckRefusal(media.status());
      continue;
    }
    ++accepted;
    REQUIRE_FALSE(media->frames.empty());
    REQUIRE(media->frames.size() <= static_cast<size_t>(kMaxVideoFrames));
  }
  CHECK(accepted > 1000);
}

}  // namespace
}  // namespace triptych::services
