// Defended: over a real server a worker pulls exactly what the gateway keeps, media cut into chunks
// at any border, and what is wrong with a pull is told in a canonical code.

#include "services/gateway/rpc/payload_service.h"

#include <catch2/catch.hpp>

#include "base/rpc.h"
#include "scheduler/plan/task_pass.h"
#include "services/convert/ids.h"
#include "services/gateway/rpc/tokens_service.h"
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
constexpr scheduler::PassKey kKey{11, 12};
constexpr uint64_t kWorker = 3;

// As the scheduler would let worker 3 show it.
uint64_t PassOf(const v1::RequestId& request, const v1::TaskId& task, v1::Stage stage,
                uint32_t epoch) {
  return scheduler::PassOf(kKey, {.request = FromProto(request),
                                  .task = FromProto(task),
                                  .worker = Incarnation(kWorker),
                                  .stage = static_cast<scheduler::Stage>(stage),
                                  .epoch = scheduler::OutputEpoch(epoch)});
}

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
                                   grpc::InsecureServerCredentials(), {&service_, &tokens_});
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
    request.set_pass(PassOf(request.request(), request.task(), request.stage(), request.epoch()));
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
  v1::RequestId request() const { return ToProto(id_); }
  // What comes of one batch on a stream of its own.
  grpc::StatusCode CodeOfTokens(v1::TokenBatch batch) {
    const auto stub = v1::Tokens::NewStub(triptych::testing::PlainChannel(server_->address()));
    grpc::ClientContext context;
    base::SetDeadline(std::chrono::seconds(10), &context);
    const auto stream = stub->Stream(&context);
    v1::TokenBatches batches;
    batches.mutable_envelope()->set_sender_incarnation(kWorker);
    batches.mutable_envelope()->set_receiver_incarnation(7);
    *batches.add_messages() = std::move(batch);
    stream->Write(batches);
    v1::TokenReplies replies;
    if (stream->Read(&replies)) stream->WritesDone();
    return stream->Finish().error_code();
  }

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
  PayloadService service_{&core_, kKey};
  TokensService tokens_{&core_, kKey};
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

TEST_CASE("PayloadService: a worker gets what it was told to pull and nothing else",
          "[services][gateway][security]") {
  Script script({"picture"});
  v1::PullRequest good = script.Request(v1::STAGE_ENCODE);
  good.set_pass(PassOf(good.request(), good.task(), v1::STAGE_ENCODE, 1));
  // Another task, another stage (the fence), a higher epoch, another request, no pass at all.
  std::vector<v1::PullRequest> bad(5, good);
  bad[0].mutable_task()->set_number(6);
  bad[1].set_stage(v1::STAGE_PREFILL);
  bad[2].set_epoch(2);
  bad[3].mutable_request()->set_number(99);
  bad[4].clear_pass();
  for (size_t i = 0; i < bad.size(); ++i) {
    INFO(i);
    script.stream().Send(bad[i]);
    REQUIRE(script.closed.WaitForCount(i + 1));
    CHECK(script.closed.last() == grpc::StatusCode::PERMISSION_DENIED);
    v1::Envelope envelope;
    envelope.set_sender_incarnation(kWorker);
    envelope.set_receiver_incarnation(7);
    script.Open(std::move(envelope));
  }
  // Another worker with the right worker's pass.
  v1::Envelope envelope;
  envelope.set_sender_incarnation(kWorker + 1);
  envelope.set_receiver_incarnation(7);
  script.stream().Close();
  REQUIRE(script.closed.WaitForCount(bad.size() + 1));
  script.Open(std::move(envelope));
  script.stream().Send(good);
  REQUIRE(script.closed.WaitForCount(bad.size() + 2));
  CHECK(script.closed.last() == grpc::StatusCode::PERMISSION_DENIED);
  CHECK(script.answers.size() == 0);
}

TEST_CASE("TokensService: tokens are heard of the task that was given, an encoder's never",
          "[services][gateway][security]") {
  Script script({"picture"});
  v1::TokenBatch batch;
  *batch.mutable_request() = script.request();
  batch.mutable_task()->set_number(5);
  batch.set_epoch(1);
  batch.add_tokens()->set_token(1);
  const auto code_with = [&](v1::Stage stage) {
    batch.set_pass(PassOf(batch.request(), batch.task(), stage, batch.epoch()));
    return script.CodeOfTokens(batch);
  };
  CHECK(code_with(v1::STAGE_DECODE) == grpc::StatusCode::OK);
  CHECK(code_with(v1::STAGE_PREFILL) == grpc::StatusCode::OK);
  CHECK(code_with(v1::STAGE_ENCODE) == grpc::StatusCode::PERMISSION_DENIED);
  CHECK(script.CodeOfTokens(batch) == grpc::StatusCode::PERMISSION_DENIED);
  batch.clear_tokens();
  CHECK(code_with(v1::STAGE_ENCODE) == grpc::StatusCode::OK);
  batch.mutable_error()->set_code(13);
  CHECK(code_with(v1::STAGE_ENCODE) == grpc::StatusCode::PERMISSION_DENIED);
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
