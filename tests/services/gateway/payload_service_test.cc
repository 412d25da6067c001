// Defended: over a real server a worker pulls exactly what the gateway keeps, media cut into chunks
// at any border, and what is wrong with a pull is told in a canonical code.

#include "services/gateway/rpc/payload_service.h"

#include <catch2/catch.hpp>

#include "base/rpc.h"
#include "services/convert/ids.h"
#include "services/runtime/client_stream.h"
#include "services/runtime/rpc_server.h"
#include "tests/models/tokenizer/small_tokenizer.h"
#include "tests/services/runtime/scripted_scheduler.h"
#include "tests/support/plain_channel.h"

namespace triptych::services {
namespace {

using scheduler::Incarnation;
using testing::Inbox;
using Stream = ClientStream<v1::PullRequestBatch, v1::PullAnswerBatch>;

constexpr int64_t kMiB = 1 << 20;

struct Nobody final : ResponseSink {
  void OnPart(AnswerPart) override {}
  void OnEnd(const AnswerEnd&) override {}
};

// A gateway's core with one request, its service, and a worker's stream to it.
class Script {
 public:
  explicit Script(std::vector<std::string> frames) {
    auto parsed = std::make_unique<ParsedRequest>();
    parsed->submit.prompt_tokens = 3;
    parsed->submit.max_tokens = parsed->input.max_tokens = 100;
    parsed->input.segments = {scheduler::TokenRun{{1, 2}},
                              scheduler::Item{.grid = {1, 2, 4}, .max_tokens = 2}};
    parsed->submit.items = {{.media_bytes = 1, .pixels = 1, .patches = 8, .num_tokens = 2}};
    parsed->timeout = std::chrono::seconds(100);
    auto payload = std::make_unique<Payload>();
    payload->items.push_back({.grid = {1, 2, 4}, .frames = std::move(frames)});
    parsed->payload = std::move(payload);
    id_ = core_.NextId();
    REQUIRE(core_
                .Start({.id = id_,
                        .parsed = std::move(parsed),
                        .sink = std::make_shared<Nobody>(),
                        .accepted = clock_.Now()})
                .ok());
    auto server = RpcServer::Start("127.0.0.1:0", base::RpcAudience::kInternal,
                                   grpc::InsecureServerCredentials(), {&service_});
    REQUIRE(server.ok());
    server_ = *std::move(server);
    stub_ = v1::Payload::NewStub(triptych::testing::PlainChannel(server_->address()));
    v1::Envelope envelope;
    envelope.set_sender_incarnation(3);
    envelope.set_receiver_incarnation(7);
    Open(std::move(envelope));
  }
  ~Script() {
    stream_->Close();
    closed.WaitForCount(opened_);
  }

  void Open(v1::Envelope envelope) {
    ++opened_;
    stream_ = Stream::Open([this](grpc::ClientContext* context,
                                  auto* reactor) { stub_->async()->Pull(context, reactor); },
                           std::move(envelope),
                           [this](v1::PullAnswerBatch& batch) {
                             for (const auto& answer : batch.messages()) answers.Add(answer);
                           },
                           [this](const grpc::Status& status) { closed.Add(status.error_code()); });
  }

  v1::PullRequest Request(v1::Stage stage, uint32_t epoch = 1, int64_t offset = 0) const {
    v1::PullRequest request;
    *request.mutable_request() = ToProto(id_);
    request.mutable_task()->set_number(5);
    request.set_stage(stage);
    request.set_epoch(epoch);
    request.set_item(stage == v1::STAGE_ENCODE ? 0 : -1);
    request.set_media_offset(offset);
    return request;
  }
  v1::PullAnswer Ask(v1::PullRequest request) {
    const size_t before = answers.size();
    stream_->Send(std::move(request));
    REQUIRE(answers.WaitForCount(before + 1));
    return answers.last();
  }
  absl::StatusCode CodeOf(v1::PullRequest request) {
    return FromProto(Ask(std::move(request)).error()).code();
  }

  Inbox<v1::PullAnswer> answers;
  Inbox<grpc::StatusCode> closed;

  Stream& stream() { return *stream_; }

 private:
  base::RealClock clock_;
  base::Registry registry_;
  std::unique_ptr<models::Tokenizer> tokenizer_ =
      models::Tokenizer::Parse(triptych::testing::SmallTokenizerJson().dump(),
                               triptych::testing::kSmallVocabulary)
          .value();
  GatewayMetrics metrics_{&registry_};
  base::CapturingLogger log_{clock_};
  GatewayCore core_{
      Incarnation(7), clock_,
      std::make_unique<RequestDesk>(*tokenizer_, "", scheduler::DeliveryLimits(), &metrics_, &log_),
      [](absl::Span<const scheduler::GatewayToScheduler>) {}};
  PayloadService service_{&core_};
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::Payload::Stub> stub_;
  scheduler::RequestId id_;
  size_t opened_ = 0;
  std::shared_ptr<Stream> stream_;
};

TEST_CASE("PayloadService: media come whole from any offset, at most 1 MiB at once",
          "[services][gateway]") {
  // Frames that end before, at and after the borders of chunks.
  const std::vector<std::string> frames = {std::string(kMiB - 1, 'a'), "b", std::string(kMiB, 'c'),
                                           std::string(kMiB / 2, 'd')};
  std::string all;
  for (const std::string& frame : frames) all += frame;
  Script script(frames);
  std::string pulled;
  while (pulled.size() < all.size()) {
    const auto offset = static_cast<int64_t>(pulled.size());
    const v1::PullAnswer answer = script.Ask(script.Request(v1::STAGE_ENCODE, 0, offset));
    REQUIRE_FALSE(answer.has_error());
    REQUIRE(answer.has_input() == (offset == 0));
    REQUIRE(answer.media_offset() == offset);
    REQUIRE(answer.media_chunk().size() <= static_cast<size_t>(kMiB));
    pulled += answer.media_chunk();
  }
  CHECK(pulled == all);
  const v1::PullAnswer first = script.answers.values().front();
  CHECK(first.input().media().size_bytes_size() == 4);
  CHECK(first.input().segments_size() == 1);  // the item, and no text
  const v1::PullAnswer inside = script.Ask(script.Request(v1::STAGE_ENCODE, 0, kMiB - 2));
  CHECK(inside.media_chunk() == all.substr(kMiB - 2, kMiB));
}

TEST_CASE("PayloadService: what cannot be pulled has a canonical code", "[services][gateway]") {
  Script script({"picture"});
  CHECK(script.CodeOf(script.Request(v1::STAGE_PREFILL, 2)) == absl::StatusCode::kOk);
  CHECK(script.CodeOf(script.Request(v1::STAGE_PREFILL, 1)) ==
        absl::StatusCode::kFailedPrecondition);
  CHECK(script.CodeOf(script.Request(v1::STAGE_ENCODE, 0, 7)) ==
        absl::StatusCode::kInvalidArgument);
  v1::PullRequest other_item = script.Request(v1::STAGE_ENCODE);
  other_item.set_item(1);
  CHECK(script.CodeOf(other_item) == absl::StatusCode::kInvalidArgument);
  v1::PullRequest nobody = script.Request(v1::STAGE_PREFILL);
  nobody.mutable_request()->set_number(99);
  CHECK(script.CodeOf(nobody) == absl::StatusCode::kNotFound);
}

TEST_CASE("PayloadService: a malformed pull or another receiver ends the stream",
          "[services][gateway]") {
  Script script({"picture"});
  v1::PullRequest negative = script.Request(v1::STAGE_ENCODE);
  negative.set_media_offset(-1);
  script.stream().Send(negative);
  REQUIRE(script.closed.WaitForCount(1));
  CHECK(script.closed.last() == grpc::StatusCode::INVALID_ARGUMENT);
  v1::Envelope envelope;
  envelope.set_sender_incarnation(3);
  envelope.set_receiver_incarnation(8);
  script.Open(std::move(envelope));
  script.stream().Send(script.Request(v1::STAGE_PREFILL));
  REQUIRE(script.closed.WaitForCount(2));
  CHECK(script.closed.last() == grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace triptych::services
