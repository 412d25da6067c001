// Defended, over a real server: the gRPC front end refuses what HTTP refuses, by canonical codes
// with fixed texts, before any work begins; and a client that leaves leaves nothing behind.

#include <google/protobuf/stubs/logging.h>
#include <grpcpp/generic/generic_stub.h>

#include <catch2/catch.hpp>
#include <future>
#include <limits>

#include "absl/strings/match.h"
#include "base/rpc.h"
#include "services/gateway/request/grpc_request.h"
#include "tests/services/gateway/front_fixture.h"
#include "tests/services/gateway/hostile_requests.h"
#include "tests/support/eventually.h"
#include "tests/support/skip.h"
#include "triptych/v1/inference.grpc.pb.h"

namespace triptych::services {
namespace {

using grpc::StatusCode;
using scheduler::Finish;
using scheduler::RequestId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FrontFixture;
using testing::SmallModel;

bool ModelMissing() {
  if (SmallModel() == nullptr) triptych::testing::SkipTest("the shipped model is not here");
  return SmallModel() == nullptr;
}

v1::GenerateRequest Hello() {
  v1::GenerateRequest request;
  v1::Message* message = request.add_messages();
  message->set_role("user");
  message->add_content()->set_text("Hello");
  return request;
}

v1::GenerateRequest Picture(const std::string& bytes) {
  v1::GenerateRequest request = Hello();
  request.mutable_messages(0)->add_content()->mutable_image()->set_data(bytes);
  return request;
}

// One call, read to its end.
class Call {
 public:
  Call(v1::Inference::Stub& stub, const v1::GenerateRequest& request,
       base::Duration deadline = seconds(20)) {
    base::SetDeadline(deadline, &context);
    reader_ = stub.Generate(&context, request);
  }
  // The next response; requires that one comes.
  v1::GenerateResponse Next() {
    v1::GenerateResponse response;
    REQUIRE(reader_->Read(&response));
    return response;
  }
  grpc::Status End() {
    v1::GenerateResponse response;
    while (reader_->Read(&response)) text += response.text(), last = response;
    return reader_->Finish();
  }
  std::string Trailer(const char* name) const {
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto found = trailers.find(name);
    return found == trailers.end() ? std::string()
                                   : std::string(found->second.data(), found->second.size());
  }

  grpc::ClientContext context;
  std::string text;
  v1::GenerateResponse last;

 private:
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
};

class GrpcFront {
 public:
  explicit GrpcFront(FrontFixture::Options options = {})
      : front(options),
        channel(base::ConnectAsClient(front.grpc_address())),
        stub(v1::Inference::NewStub(channel)) {}
  ~GrpcFront() { front.RequireServes(); }

  void CheckRefused(const std::string& what, const v1::GenerateRequest& request, StatusCode code,
                    const std::string& reason) {
    INFO(what);
    const int before = front.Refusals(reason);
    Call call(*stub, request);
    const grpc::Status status = call.End();
    CHECK(status.error_code() == code);
    CHECK(absl::StartsWith(status.error_message(), reason + ": "));
    CHECK(call.Trailer("retry-after-ms").empty());
    CHECK(front.Refusals(reason) == before + 1);
    CHECK(front.submitted() == 0);
    front.RequireIdle();
  }
  void CheckInvalid(const std::string& what, const v1::GenerateRequest& request,
                    const std::string& reason = "invalid_request") {
    CheckRefused(what, request, StatusCode::INVALID_ARGUMENT, reason);
  }
  // The status of a call whose message is made of these bytes.
  grpc::Status Send(const std::string& bytes) {
    grpc::GenericStub generic(channel);
    grpc::ClientContext context;
    base::SetDeadline(seconds(20), &context);
    grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    std::promise<grpc::Status> done;
    generic.UnaryCall(&context, "/triptych.v1.Inference/Generate", {}, &request, &response,
                      [&](const grpc::Status& status) { done.set_value(status); });
    return done.get_future().get();
  }

  FrontFixture front;
  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::Inference::Stub> stub;
};

TEST_CASE("Inference: an answer comes token by token, and ends with what it used",
          "[gateway][grpc]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  v1::GenerateRequest request = Picture(testing::GoodPicture());
  request.set_request_id("mine");
  Call call(*grpc.stub, request);
  const scheduler::SubmitRequest submit = grpc.front.WaitSubmit();
  grpc.front.Say(submit.request, "One");
  const v1::GenerateResponse first = call.Next();
  CHECK(first.request_id() == "mine");
  CHECK(first.text() == "One");
  CHECK(first.finish() == v1::FINISH_NONE);
  grpc.front.Say(submit.request, " two", Finish::kStop);
  CHECK(call.End().ok());
  CHECK(call.text == " two");
  CHECK(call.last.finish() == v1::FINISH_STOP);
  CHECK(call.last.usage().prompt_tokens() == submit.prompt_tokens);
  CHECK(call.last.usage().picture_tokens() == submit.items.at(0).num_tokens);
  CHECK(call.last.timeline().total_us() > 0);
}

TEST_CASE("Inference: what cannot be read is the client's error", "[gateway][grpc][hostile]") {
  if (ModelMissing()) return;
  // Protobuf writes a line for each text that is not UTF-8.
  const google::protobuf::LogSilencer silence;
  GrpcFront grpc;
  const auto code = [&](const std::string& bytes) { return grpc.Send(bytes).error_code(); };
  const std::string good = Hello().SerializeAsString();
  for (size_t cut = 1; cut < good.size(); ++cut) {
    INFO("cut at " << cut);
    // A message ends where a field ends: what is cut there is whole, and lacks something.
    CHECK(code(good.substr(0, cut)) == StatusCode::INVALID_ARGUMENT);
  }
  CHECK(code("\x0a\x02\xff\xff") == StatusCode::INVALID_ARGUMENT);          // not UTF-8
  CHECK(code(std::string(1000, '\x0b')) == StatusCode::INVALID_ARGUMENT);   // groups
  CHECK(code(std::string(1000, '\xff')) == StatusCode::INVALID_ARGUMENT);   // an endless number
  CHECK(code("\x1a\xff\xff\xff\xff\x07") == StatusCode::INVALID_ARGUMENT);  // a length of 2^31
  CHECK(grpc.front.submitted() == 0);
}

TEST_CASE("Inference: very many fields are refused before they become objects",
          "[gateway][grpc][hostile]") {
  if (ModelMissing()) return;
  GrpcFront grpc({.max_body_bytes = 64 << 20, .budget_bytes = 64 << 20});
  // A million of each, two to four bytes on the wire: parts without content, empty pictures, empty
  // stop strings, empty messages, fields that nobody knows.
  const auto many = [](const std::string& field) {
    std::string all;
    for (int i = 0; i < 1'000'000; ++i) all += field;
    return all;
  };
  const auto wrapped = [](char tag, const std::string& inside) {
    std::string out(1, tag);
    for (size_t left = inside.size(); true; left >>= 7) {
      out += static_cast<char>((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
      if (left <= 0x7f) return out + inside;
    }
  };
  const std::string floods[] = {
      wrapped('\x1a', many(std::string("\x12\0", 2))),
      wrapped('\x1a', many(std::string("\x12\x02\x12\0", 4))),
      wrapped('\x1a', wrapped('\x12', wrapped('\x1a', many(std::string("\x0a\0", 2))))),
      wrapped('\x1a', wrapped('\x12', wrapped('\x12', many(std::string("\x18\0", 2))))),
      many(std::string("\x32\0", 2)),
      many(std::string("\x1a\0", 2)),
      many(std::string("\x78\0", 2)),
  };
  for (const std::string& flood : floods) {
    const grpc::Status status = grpc.Send(flood);
    CHECK(status.error_code() == StatusCode::INVALID_ARGUMENT);
    CHECK(status.error_message() == "invalid_request: the message cannot be read");
  }
  v1::GenerateRequest pictures = Hello();
  for (int i = 0; i < 65; ++i) {
    pictures.mutable_messages(0)->add_content()->mutable_image()->set_data("?");
  }
  grpc.CheckInvalid("65 pictures", pictures, "too_many_images");
}

TEST_CASE("Inference: a message over the limit is refused", "[gateway][grpc][hostile]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  const v1::GenerateRequest large = Picture(std::string(2 << 20, 'x'));
  grpc.CheckRefused("2 MiB", large, StatusCode::RESOURCE_EXHAUSTED, "body_too_large");
  // Beyond gRPC's own bound.
  Call call(*grpc.stub, Picture(std::string(73 << 20, 'x')));
  CHECK(call.End().error_code() == StatusCode::RESOURCE_EXHAUSTED);
  grpc.front.RequireIdle();
}

TEST_CASE("Inference: numbers outside of their range are refused", "[gateway][grpc][hostile]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  using Break = void (*)(v1::GenerateRequest*);
  const std::pair<const char*, Break> breaks[] = {
      {"max_tokens 0", [](auto* r) { r->set_max_tokens(0); }},
      {"max_tokens -1", [](auto* r) { r->set_max_tokens(-1); }},
      {"temperature NaN", [](auto* r) { r->mutable_sampling()->set_temperature(kNan); }},
      {"temperature infinite", [](auto* r) { r->mutable_sampling()->set_temperature(kInfinity); }},
      {"temperature -1", [](auto* r) { r->mutable_sampling()->set_temperature(-1); }},
      {"top_p 0", [](auto* r) { r->mutable_sampling()->set_top_p(0); }},
      {"top_p NaN", [](auto* r) { r->mutable_sampling()->set_top_p(kNan); }},
      {"top_p 2", [](auto* r) { r->mutable_sampling()->set_top_p(2); }},
      {"top_k -1", [](auto* r) { r->mutable_sampling()->set_top_k(-1); }},
      {"top_logprobs 21", [](auto* r) { r->mutable_sampling()->set_top_logprobs(21); }},
      {"top_logprobs -2", [](auto* r) { r->mutable_sampling()->set_top_logprobs(-2); }},
      {"timeout -1", [](auto* r) { r->set_timeout_ms(-1); }},
      {"priority 101", [](auto* r) { r->set_priority(101); }},
      {"an empty stop", [](auto* r) { r->add_stop(""); }},
      {"a long stop", [](auto* r) { r->add_stop(std::string(257, 'a')); }},
      {"1,000 stops",
       [](auto* r) {
         for (int i = 0; i < 1000; ++i) r->add_stop("a");
       }},
      {"an id with a space", [](auto* r) { r->set_request_id("a b"); }},
      {"a long id", [](auto* r) { r->set_request_id(std::string(129, 'a')); }},
      {"a tenant with a line", [](auto* r) { r->set_tenant("a\nb"); }},
  };
  for (const auto& [what, change] : breaks) {
    v1::GenerateRequest request = Hello();
    change(&request);
    grpc.CheckInvalid(what, request);
  }
  v1::GenerateRequest video = Hello();
  v1::Video* frames = video.mutable_messages(0)->add_content()->mutable_video();
  frames->add_frames()->set_data(testing::GoodPicture());
  for (const double fps : {kNan, kInfinity, -1.0, 1e9}) {
    frames->set_fps(fps);
    grpc.CheckInvalid("fps " + std::to_string(fps), video);
  }
}

TEST_CASE("Inference: unknown models, roles and empty conversations are refused",
          "[gateway][grpc][hostile]") {
  if (ModelMissing()) return;
  GrpcFront grpc({.max_body_bytes = 16 << 20, .budget_bytes = 32 << 20});
  v1::GenerateRequest request = Hello();
  request.set_model("another");
  grpc.CheckRefused("a model", request, StatusCode::NOT_FOUND, "model_not_found");
  grpc.CheckInvalid("nothing", {});
  request = Hello();
  request.mutable_messages(0)->set_role("wizard");
  grpc.CheckInvalid("a role", request);
  request = Hello();
  request.mutable_messages(0)->add_content();
  grpc.CheckInvalid("an empty part", request);
  request = Hello();
  request.mutable_messages(0)->add_content()->mutable_video();
  grpc.CheckInvalid("a video without frames", request);
  request = Hello();
  std::string words;
  for (int i = 0; i < SmallModel()->context_tokens() * 10; ++i) words += "word ";
  request.mutable_messages(0)->mutable_content(0)->set_text(words);
  grpc.CheckInvalid("10 times the context", request, "prompt_too_long");
}

TEST_CASE("Inference: a picture is judged by its headers", "[gateway][grpc][hostile]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  for (const testing::HostilePicture& picture : testing::HostilePictures()) {
    grpc.CheckInvalid(picture.what, Picture(picture.bytes), picture.code);
  }
}

TEST_CASE("Inference: an active id is refused, and free again after its end", "[gateway][grpc]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  v1::GenerateRequest request = Hello();
  request.set_request_id("same");
  Call first(*grpc.stub, request);
  const RequestId id = grpc.front.WaitSubmit().request;
  Call second(*grpc.stub, request);
  const grpc::Status refused = second.End();
  CHECK(refused.error_code() == StatusCode::ALREADY_EXISTS);
  CHECK(second.Trailer("retry-after-ms").empty());
  grpc.front.Say(id, "Hi.", Finish::kStop);
  CHECK(first.End().ok());
  Call third(*grpc.stub, request);
  grpc.front.AnswerNext("Hi.");
  CHECK(third.End().ok());
}

TEST_CASE("Inference: errors have canonical codes, fixed texts, and a time to come back",
          "[gateway][grpc]") {
  if (ModelMissing()) return;
  struct Row {
    absl::Status status;
    base::Duration retry_after;
    StatusCode code;
    const char* reason;
    const char* retry;
  };
  const Row rows[] = {
      {absl::ResourceExhaustedError("queue"), milliseconds(1500), StatusCode::RESOURCE_EXHAUSTED,
       "overloaded", "1500"},
      {absl::UnavailableError("10.0.0.1:4"), seconds(0), StatusCode::UNAVAILABLE, "unavailable",
       "1000"},
      {absl::InternalError("/secret/path"), seconds(0), StatusCode::INTERNAL, "internal", ""},
      {absl::DeadlineExceededError("late"), seconds(0), StatusCode::DEADLINE_EXCEEDED,
       "deadline_exceeded", ""},
      {absl::InvalidArgumentError("image_malformed"), seconds(0), StatusCode::INVALID_ARGUMENT,
       "image_malformed", ""},
  };
  GrpcFront grpc;
  for (const Row& row : rows) {
    for (const bool streaming : {false, true}) {
      INFO(row.status.ToString() << (streaming ? ", in the stream" : ""));
      Call call(*grpc.stub, Hello());
      const RequestId id = grpc.front.WaitSubmit().request;
      if (streaming) {
        grpc.front.Say(id, "One");
        CHECK(call.Next().text() == "One");
      }
      grpc.front.Fail(id, row.status, row.retry_after);
      const grpc::Status status = call.End();
      CHECK(status.error_code() == row.code);
      CHECK(absl::StartsWith(status.error_message(), std::string(row.reason) + ": "));
      CHECK_FALSE(absl::StrContains(status.error_message(), "secret"));
      CHECK_FALSE(absl::StrContains(status.error_message(), "10.0.0.1"));
      CHECK(call.Trailer("retry-after-ms") == row.retry);
    }
  }
  grpc.front.RequireIdle();
}

TEST_CASE("Inference: a deadline that passes ends the request, the client's own too",
          "[gateway][grpc]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  v1::GenerateRequest request = Hello();
  request.set_timeout_ms(1);
  Call ours(*grpc.stub, request);
  const grpc::Status status = ours.End();
  CHECK(status.error_code() == StatusCode::DEADLINE_EXCEEDED);
  CHECK(absl::StartsWith(status.error_message(), "deadline_exceeded: "));
  grpc.front.RequireIdle();
  Call theirs(*grpc.stub, Hello(), milliseconds(200));
  CHECK(theirs.End().error_code() == StatusCode::DEADLINE_EXCEEDED);
  grpc.front.RequireIdle();
  Call past(*grpc.stub, Hello(), milliseconds(-1));
  CHECK(past.End().error_code() == StatusCode::DEADLINE_EXCEEDED);
  grpc.front.RequireIdle();
}

TEST_CASE("Inference: a client that leaves, whenever it does, leaves nothing",
          "[gateway][grpc][hostile]") {
  if (ModelMissing()) return;
  GrpcFront grpc({.max_requests = 2000});
  for (const int tokens_before : {0, 1, 5}) {
    Call call(*grpc.stub, Picture(testing::GoodPicture()));
    const RequestId id = grpc.front.WaitSubmit().request;
    CHECK(grpc.front.held_bytes() > 0);
    for (int i = 0; i < tokens_before; ++i) grpc.front.Say(id, "word ");
    if (tokens_before > 0) call.Next();
    call.context.TryCancel();
    CHECK(call.End().error_code() == StatusCode::CANCELLED);
    grpc.front.RequireIdle();
  }
  CHECK(grpc.front.Terminals("cancelled") == 3);
  // Streams that are reset as soon as they are open.
  for (int i = 0; i < 1000; ++i) {
    Call call(*grpc.stub, Hello());
    call.context.TryCancel();
    CHECK(call.End().error_code() == StatusCode::CANCELLED);
  }
  grpc.front.RequireIdle();
}

// A frame of HTTP/2, RFC 9113, section 4.1.
std::string Frame(char type, char flags, int stream, const std::string& payload) {
  const auto size = static_cast<uint32_t>(payload.size());
  const std::string head = {static_cast<char>(size >> 16),
                            static_cast<char>(size >> 8),
                            static_cast<char>(size),
                            type,
                            flags,
                            static_cast<char>(stream >> 24),
                            static_cast<char>(stream >> 16),
                            static_cast<char>(stream >> 8),
                            static_cast<char>(stream)};
  return head + payload;
}

// A header field without compression, RFC 7541, section 6.2.2.
std::string Field(const std::string& name, const std::string& value) {
  return std::string(1, '\0') + static_cast<char>(name.size()) + name +
         static_cast<char>(value.size()) + value;
}

TEST_CASE("Inference: an upload that breaks off half way holds nothing and leaves nothing",
          "[gateway][grpc][hostile]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  constexpr char kSettings = 4, kHeaders = 1, kEndHeaders = 4;
  const std::string header = Field(":method", "POST") + Field(":scheme", "http") +
                             Field(":path", "/triptych.v1.Inference/Generate") +
                             Field(":authority", "localhost") + Field("te", "trailers") +
                             Field("content-type", "application/grpc");
  // A message that announces 1 MiB and has 15 KiB.
  const std::string half = std::string("\0\0\x10\0\0", 5) + std::string(15 << 10, 'x');
  const std::string upload = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0, "") +
                             Frame(kHeaders, kEndHeaders, 1, header) + Frame(0, 0, 1, half);
  for (const size_t sent : {size_t{10}, size_t{40}, upload.size() / 2, upload.size()}) {
    testing::RawHttpClient client(grpc.front.grpc_address());
    CHECK(client.Send(upload.substr(0, sent)));
    // What has come is counted, so that many of them find a bound.
    if (sent == upload.size()) {
      REQUIRE(triptych::testing::Eventually(std::chrono::seconds(10),
                                            [&] { return grpc.front.held_bytes() > 15 << 10; }));
    }
    client.Leave();
    grpc.front.RequireServes();
  }
  grpc.front.RequireIdle();
}

// gRPC 1.51 alone takes all of them, and gigabytes of memory with them.
TEST_CASE("Inference: floods of HTTP/2 frames are cut off, and others are served",
          "[gateway][grpc][hostile][security]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  constexpr char kReset = 3, kSettings = 4, kPing = 6, kHeaders = 1, kContinuation = 9;
  const std::string header = Field(":method", "POST") + Field(":scheme", "http") +
                             Field(":path", "/triptych.v1.Inference/Generate") +
                             Field("content-type", "application/grpc");
  const std::string hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0, "");
  const auto flood = [&](const std::string& name, const std::function<std::string(int)>& frames) {
    INFO(name);
    testing::RawHttpClient client(grpc.front.grpc_address());
    REQUIRE(client.Send(hello));
    int sent = 0;
    while (sent < 100'000 && client.Send(frames(sent))) ++sent;
    // What the sockets hold may have gone out before the end was seen.
    CHECK(sent < 50'000);
    grpc.front.RequireServes();
  };
  flood("rapid reset", [&](int i) {
    return Frame(kHeaders, 4, 2 * i + 1, header) +
           Frame(kReset, 0, 2 * i + 1, std::string("\0\0\0\x08", 4));
  });
  flood("continuation", [&](int i) {
    return i == 0 ? Frame(kHeaders, 0, 1, header) : Frame(kContinuation, 0, 1, Field("a", "b"));
  });
  flood("ping", [&](int) { return Frame(kPing, 0, 0, "12345678"); });
  flood("settings", [&](int) { return Frame(kSettings, 0, 0, ""); });
  grpc.front.RequireIdle();
}

TEST_CASE("Inference: a client that does not read is cut off, and slows nobody",
          "[gateway][grpc][hostile]") {
  if (ModelMissing()) return;
  GrpcFront grpc({.write_stall = seconds(1)});
  Call stalled(*grpc.stub, Hello());
  const RequestId id = grpc.front.WaitSubmit().request;
  // gRPC takes one message whatever its size, and then no more than its window.
  grpc.front.SayAtLength(id, 20'000);
  grpc.front.SayAtLength(id, 20'000);
  for (int i = 0; i < 5; ++i) {
    Call other(*grpc.stub, Hello());
    grpc.front.AnswerNext("Hi.");
    CHECK(other.End().ok());
    grpc.front.Say(id, "more");
  }
  grpc.front.RequireIdle();
  CHECK(grpc.front.Terminals("client_stalled") == 1);
  CHECK_FALSE(stalled.End().ok());
}

TEST_CASE("Inference: a request can be cancelled by its name, once", "[gateway][grpc]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  v1::GenerateRequest request = Hello();
  request.set_request_id("named");
  Call call(*grpc.stub, request);
  grpc.front.WaitSubmit();
  v1::CancelRequest cancel;
  cancel.set_request_id("named");
  v1::CancelResponse cancelled;
  {
    // Who knows the name and has another connection is nobody.
    const auto stranger = v1::Inference::NewStub(base::ConnectAsClient(grpc.front.grpc_address()));
    grpc::ClientContext context;
    CHECK(stranger->Cancel(&context, cancel, &cancelled).error_code() == StatusCode::NOT_FOUND);
  }
  {
    grpc::ClientContext context;
    CHECK(grpc.stub->Cancel(&context, cancel, &cancelled).ok());
  }
  CHECK(call.End().error_code() == StatusCode::CANCELLED);
  grpc::ClientContext context;
  CHECK(grpc.stub->Cancel(&context, cancel, &cancelled).error_code() == StatusCode::NOT_FOUND);
  grpc.front.RequireIdle();
}

TEST_CASE("Inference: compressed messages are refused, whatever they would become",
          "[gateway][grpc][security]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  v1::GenerateRequest request = Hello();
  request.mutable_messages(0)->mutable_content(0)->set_text(std::string(1 << 20, 'a'));
  for (const auto algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    grpc::ClientContext context;
    context.set_compression_algorithm(algorithm);
    base::SetDeadline(std::chrono::seconds(20), &context);
    const auto reader = grpc.stub->Generate(&context, request);
    v1::GenerateResponse response;
    CHECK_FALSE(reader->Read(&response));
    CHECK(reader->Finish().error_code() == StatusCode::UNIMPLEMENTED);
  }
  grpc.front.RequireIdle();
}

TEST_CASE("Inference: the model tells its limits", "[gateway][grpc]") {
  if (ModelMissing()) return;
  GrpcFront grpc;
  v1::GetModelRequest request;
  v1::GetModelResponse model;
  {
    grpc::ClientContext context;
    REQUIRE(grpc.stub->GetModel(&context, request, &model).ok());
  }
  CHECK(model.model() == grpc.front.model());
  CHECK(model.fingerprint() == SmallModel()->digest() + ".weights.format");
  CHECK(model.context_tokens() == SmallModel()->context_tokens());
  CHECK(model.max_output_tokens() == 128);
  request.set_model("another");
  grpc::ClientContext context;
  CHECK(grpc.stub->GetModel(&context, request, &model).error_code() == StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace triptych::services
