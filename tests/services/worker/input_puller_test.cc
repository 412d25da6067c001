// Defended: a worker gets what it pulls, whole and once, from a real server: over chunk borders,
// over broken streams, and not when a gateway sends nonsense or is gone; media under way stay
// bounded.

#include "services/worker/input_puller.h"

#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "base/rpc.h"
#include "services/convert/ids.h"
#include "services/runtime/rpc_server.h"
#include "services/runtime/server_stream.h"
#include "tests/services/runtime/scripted_scheduler.h"

namespace triptych::services {
namespace {

using scheduler::Incarnation;
using scheduler::Stage;
using scheduler::TaskId;
using testing::Inbox;

using Stream = ServerStream<v1::PullRequestBatch, v1::PullAnswerBatch>;

constexpr Incarnation kWorker(3);
constexpr Incarnation kGateway(7);

TaskId Task(uint64_t number) { return {{1, Incarnation(9)}, number}; }

// A gateway whose answers a test writes.
class ScriptedGateway final : public v1::Payload::CallbackService {
 public:
  using Answer = std::function<void(Stream*, const v1::PullRequest&)>;
  explicit ScriptedGateway(Answer answer) : answer_(std::move(answer)) {
    auto server = RpcServer::Start("127.0.0.1:0", base::RpcAudience::kInternal,
                                   grpc::InsecureServerCredentials(), {this});
    REQUIRE(server.ok());
    server_ = *std::move(server);
  }

  grpc::ServerBidiReactor<v1::PullRequestBatch, v1::PullAnswerBatch>* Pull(
      grpc::CallbackServerContext*) override {
    opened.Add(0);
    return Stream::Open(
               [this](Stream* stream, v1::PullRequestBatch& batch) {
                 for (const v1::PullRequest& request : batch.messages()) {
                   asked.Add(request);
                   answer_(stream, request);
                 }
               },
               [](Stream*) {})
        .get();
  }
  scheduler::PeerAddress address() const { return {kGateway, server_->address()}; }

  Inbox<v1::PullRequest> asked;
  Inbox<int> opened;

 private:
  const Answer answer_;
  std::unique_ptr<RpcServer> server_;
};

// Frames of one item, served in chunks of `chunk` bytes.
struct Media {
  std::vector<std::string> frames;
  size_t chunk = 0;

  std::string bytes() const {
    std::string all;
    for (const std::string& frame : frames) all += frame;
    return all;
  }
  v1::PullAnswer Answer(const v1::PullRequest& request) const {
    v1::PullAnswer answer;
    *answer.mutable_task() = request.task();
    answer.set_media_offset(request.media_offset());
    if (request.media_offset() == 0) {
      answer.mutable_input()->set_max_tokens(5);
      answer.mutable_input()->mutable_grid()->set_t(2);
      answer.mutable_input()->mutable_media()->set_kind(v1::ITEM_KIND_VIDEO);
      for (const auto& frame : frames) {
        answer.mutable_input()->mutable_media()->add_size_bytes(frame.size());
      }
    }
    if (request.stage() == v1::STAGE_ENCODE) {
      answer.set_media_chunk(bytes().substr(request.media_offset(), chunk));
    }
    return answer;
  }
};

// The puller and what it tells.
struct Worker {
  void Pull(uint64_t number, Stage stage, const scheduler::PeerAddress& gateway) {
    puller.Pull({.request = {kGateway, number}, .task = Task(number), .stage = stage}, gateway);
    puller.Flush();
  }
  Inbox<std::pair<uint64_t, absl::StatusCode>> inputs;
  Inbox<std::pair<uint64_t, ItemMedia>> media;
  InputPuller puller{
      kWorker,
      base::RpcSecurity::None(),
      {.on_input =
           [this](TaskId task, absl::StatusOr<scheduler::PulledInput> input) {
             // The scripts answer with 5; Catch2's assertions are for one thread.
             const bool right = !input.ok() || input->max_tokens == 5;
             inputs.Add({task.number, right ? input.status().code() : absl::StatusCode::kDataLoss});
           },
       .on_media =
           [this](TaskId task, ItemMedia item) {
             media.Add({task.number, std::move(item)});
           }}};
};

TEST_CASE("InputPuller: a prompt takes one pull, on one stream for all", "[services][worker]") {
  const Media nothing;
  ScriptedGateway gateway(
      [&](Stream* stream, const v1::PullRequest& r) { stream->Send(nothing.Answer(r)); });
  Worker worker;
  for (uint64_t i = 1; i <= 100; ++i) worker.Pull(i, Stage::kPrefill, gateway.address());
  REQUIRE(worker.inputs.WaitForCount(100));
  for (const auto& [task, code] : worker.inputs.values()) CHECK(code == absl::StatusCode::kOk);
  CHECK(gateway.asked.size() == 100);
  CHECK(gateway.opened.size() == 1);
  CHECK(worker.media.size() == 0);
}

TEST_CASE("InputPuller: media come chunk by chunk and are cut into their frames",
          "[services][worker]") {
  const Media item{.frames = {"one", "twotwo", "x"}, .chunk = 4};
  ScriptedGateway gateway(
      [&](Stream* stream, const v1::PullRequest& r) { stream->Send(item.Answer(r)); });
  Worker worker;
  worker.Pull(1, Stage::kEncode, gateway.address());
  REQUIRE(worker.media.WaitForCount(1));
  CHECK(worker.media.last().second.pictures == item.frames);
  CHECK(worker.media.last().second.kind == scheduler::ItemKind::kVideo);
  CHECK(worker.media.last().second.grid.t == 2);
  std::vector<int64_t> offsets;
  for (const auto& request : gateway.asked.values()) offsets.push_back(request.media_offset());
  CHECK(offsets == std::vector<int64_t>{0, 4, 8});
}

TEST_CASE("InputPuller: a broken stream is opened again and pulls go on where they were",
          "[services][worker]") {
  const Media item{.frames = {"0123456789"}, .chunk = 4};
  int answers = 0;
  ScriptedGateway gateway([&](Stream* stream, const v1::PullRequest& r) {
    if (++answers == 2) return stream->Close({grpc::StatusCode::UNAVAILABLE, "broken"});
    stream->Send(item.Answer(r));
  });
  Worker worker;
  worker.Pull(1, Stage::kEncode, gateway.address());
  REQUIRE(worker.media.WaitForCount(1));
  CHECK(worker.media.last().second.pictures == item.frames);
  CHECK(worker.inputs.size() == 1);
  CHECK(gateway.opened.size() == 2);
  std::vector<int64_t> offsets;
  for (const auto& request : gateway.asked.values()) offsets.push_back(request.media_offset());
  CHECK(offsets == std::vector<int64_t>{0, 4, 4, 8});
}

TEST_CASE("InputPuller: a gateway that always breaks off is UNAVAILABLE in the end",
          "[services][worker]") {
  ScriptedGateway gateway([&](Stream* stream, const v1::PullRequest&) {
    stream->Close({grpc::StatusCode::RESOURCE_EXHAUSTED, "busy"});
  });
  Worker worker;
  const Stage stage = GENERATE(Stage::kEncode, Stage::kDecode);
  worker.Pull(1, stage, gateway.address());
  REQUIRE(worker.inputs.WaitForCount(1));
  CHECK(worker.inputs.last().second == absl::StatusCode::kUnavailable);
  CHECK(gateway.asked.size() == 4);
}

TEST_CASE("InputPuller: at most 16 pulls of media are under way, and each end lets one follow",
          "[services][worker]") {
  const Media item{.frames = {"x"}, .chunk = 1};
  Inbox<std::pair<Stream*, v1::PullRequest>> held;
  ScriptedGateway gateway([&](Stream* stream, const v1::PullRequest& r) { held.Add({stream, r}); });
  size_t answered = 0;
  const auto answer_one = [&] {
    REQUIRE(held.WaitForCount(answered + 1));
    const auto [stream, request] = held.values()[answered++];
    stream->Send(item.Answer(request));
  };
  Worker worker;
  for (uint64_t i = 1; i <= 40; ++i) worker.Pull(i, Stage::kEncode, gateway.address());
  // Text does not wait behind pictures, and it comes after all that could have been asked.
  worker.Pull(99, Stage::kPrefill, gateway.address());
  REQUIRE(gateway.asked.WaitForCount(17));
  CHECK(gateway.asked.last().task().number() == 99);
  answer_one();
  REQUIRE(gateway.asked.WaitForCount(18));
  // What is dropped gives up its turn.
  worker.puller.Drop(Task(2));
  worker.puller.Flush();
  REQUIRE(gateway.asked.WaitForCount(19));
  while (answered < 41) answer_one();
  REQUIRE(worker.media.WaitForCount(39));
  std::set<uint64_t> tasks;
  for (const auto& [task, media] : worker.media.values()) tasks.insert(task);
  CHECK(tasks.size() == 39);
  CHECK_FALSE(tasks.contains(2));
}

TEST_CASE("InputPuller: what was asked of a gateway that is gone fails with UNAVAILABLE",
          "[services][worker]") {
  ScriptedGateway gateway([](Stream*, const v1::PullRequest&) {});
  Worker worker;
  worker.Pull(1, Stage::kEncode, gateway.address());
  worker.Pull(2, Stage::kPrefill, gateway.address());
  REQUIRE(gateway.asked.WaitForCount(2));
  worker.puller.ForgetGateway(kGateway);
  REQUIRE(worker.inputs.WaitForCount(2));
  for (const auto& [task, code] : worker.inputs.values()) {
    CHECK(code == absl::StatusCode::kUnavailable);
  }
}

TEST_CASE("InputPuller: a gateway's error is the task's", "[services][worker]") {
  ScriptedGateway gateway([](Stream* stream, const v1::PullRequest& request) {
    v1::PullAnswer answer;
    *answer.mutable_task() = request.task();
    *answer.mutable_error() = ToProto(absl::NotFoundError("over"));
    stream->Send(std::move(answer));
  });
  Worker worker;
  worker.Pull(1, Stage::kDecode, gateway.address());
  REQUIRE(worker.inputs.WaitForCount(1));
  CHECK(worker.inputs.last().second == absl::StatusCode::kNotFound);
}

TEST_CASE("InputPuller: answers that make no sense end the pull, never the worker",
          "[services][worker]") {
  const Media item{.frames = {"0123456789"}, .chunk = 4};
  using Change = std::function<void(v1::PullAnswer*)>;
  struct Row {
    Change change;
    absl::StatusCode code;
  };
  const Row rows[] = {
      {[](v1::PullAnswer* a) { a->clear_input(); }, absl::StatusCode::kUnavailable},
      {[](v1::PullAnswer* a) { a->clear_media_chunk(); }, absl::StatusCode::kUnavailable},
      {[](v1::PullAnswer* a) { a->set_media_chunk("01234567890"); },
       absl::StatusCode::kUnavailable},
      {[](v1::PullAnswer* a) { a->mutable_input()->mutable_media()->set_size_bytes(0, -1); },
       absl::StatusCode::kUnavailable},
      {[](v1::PullAnswer* a) { a->mutable_input()->mutable_media()->set_size_bytes(0, INT64_MAX); },
       absl::StatusCode::kInvalidArgument},
      {[](v1::PullAnswer* a) {
         a->mutable_input()->mutable_media()->set_kind(static_cast<v1::ItemKind>(9));
       },
       absl::StatusCode::kInvalidArgument},
      {[](v1::PullAnswer* a) { a->mutable_input()->set_max_tokens(-1); },
       absl::StatusCode::kInvalidArgument},
      {[](v1::PullAnswer* a) { a->mutable_error()->set_code(0); }, absl::StatusCode::kInternal},
  };
  const Row& row = rows[GENERATE(range(0, 8))];
  ScriptedGateway gateway([&](Stream* stream, const v1::PullRequest& request) {
    v1::PullAnswer nobody = item.Answer(request);
    nobody.mutable_task()->set_number(77);
    stream->Enqueue(std::move(nobody));
    v1::PullAnswer elsewhere = item.Answer(request);
    elsewhere.set_media_offset(5);
    stream->Enqueue(std::move(elsewhere));
    v1::PullAnswer answer = item.Answer(request);
    row.change(&answer);
    stream->Send(std::move(answer));
  });
  Worker worker;
  worker.Pull(1, Stage::kEncode, gateway.address());
  REQUIRE(worker.inputs.WaitForCount(1));
  CHECK(worker.inputs.last() == std::make_pair(uint64_t{1}, row.code));
  CHECK(worker.media.size() == 0);
}

}  // namespace
}  // namespace triptych::services
