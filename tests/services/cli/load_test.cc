// Defends the numbers of the load generator: arrivals that do not depend on answers, latencies from
// the scheduled time, percentiles that mean what they say.

#include <unistd.h>

// Asio uses std::exchange without including it.
// clang-format off
#include <utility>
#include <boost/asio.hpp>
// clang-format on
#include <catch2/catch.hpp>
#include <cstdio>
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include "services/cli/arrivals.h"
#include "services/cli/http_load_client.h"
#include "services/cli/load_report.h"
#include "services/cli/openai_chat.h"
#include "services/cli/request_mix.h"
#include "services/cli/timeline.h"
#include "services/runtime/http_call.h"

namespace triptych::services {
namespace {

using std::chrono::seconds;

absl::StatusOr<RequestMix> MixOf(const std::string& text) {
  const std::string path = "/tmp/triptych-mix-" + std::to_string(getpid()) + ".json";
  std::ofstream(path) << text;
  auto mix = ReadMix(path);
  std::remove(path.c_str());
  return mix;
}

TEST_CASE("Arrivals: a Poisson process keeps its rate and its seed", "[services][cli]") {
  const auto first = PoissonArrivals(100, seconds(50), 7);
  const auto again = PoissonArrivals(100, seconds(50), 7);
  // 5,000 expected with a standard deviation of 71.
  CHECK(first.size() > 4600);
  CHECK(first.size() < 5400);
  REQUIRE(again.size() == first.size());
  for (size_t i = 0; i < first.size(); ++i) {
    REQUIRE(first[i].at == again[i].at);
    REQUIRE(first[i].at < seconds(50));
    REQUIRE((i == 0 || first[i].at >= first[i - 1].at));
  }
  CHECK(PoissonArrivals(100, seconds(50), 8)[0].at != first[0].at);
}

TEST_CASE("Arrivals: a trace is stretched to the rate that is asked for", "[services][cli]") {
  const char csv[] =
      "TIMESTAMP,ContextTokens,GeneratedTokens\n"
      "2023-11-16 23:59:58.0000000,100,5\n"
      "2023-11-16 23:59:59.5000000,200,6\n"
      "2023-11-17 00:00:01.0000000,300,7\n";
  const auto own = TraceArrivals(csv, 0, seconds(10));
  REQUIRE(own.ok());
  REQUIRE(own->size() == 3);
  CHECK(base::ToSeconds((*own)[1].at) == Approx(1.5));
  CHECK(base::ToSeconds((*own)[2].at) == Approx(3));
  CHECK((*own)[2].context_tokens == 300);
  CHECK((*own)[2].generated_tokens == 7);
  const auto faster = TraceArrivals(csv, 2, seconds(10));
  CHECK(base::ToSeconds((*faster)[2].at) == Approx(1.5));
  CHECK(TraceArrivals(csv, 0, seconds(2))->size() == 2);
}

TEST_CASE("Arrivals: a bad trace is refused by its line", "[services][cli]") {
  for (const char* csv : {"header\n", "header\nx,1,2\n", "header\n1,2\n", "header\n2,1,1\n1,1,1\n",
                          "header\n1,-5,1\n"}) {
    CAPTURE(csv);
    CHECK(TraceArrivals(csv, 0, seconds(1)).status().code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("Mix: entries are drawn by weight", "[services][cli]") {
  const auto mix = MixOf(R"({"requests": [{"name": "a", "text": "x", "weight": 3},
                                          {"name": "b", "text": "y", "weight": 1}]})");
  REQUIRE(mix.ok());
  base::SeededRandom random(3);
  std::map<std::string, int> drawn;
  for (int i = 0; i < 4000; ++i) ++drawn[Draw(*mix, &random).name];
  CHECK(drawn["a"] > 2850);
  CHECK(drawn["a"] < 3150);
}

TEST_CASE("Mix: no two requests of one entry have the same prompt", "[services][cli]") {
  const MixEntry entry{.name = "a", .text = "{n}?", .max_tokens = 9};
  const v1::GenerateRequest request = MakeRequest(entry, 12, 0, 0);
  CHECK(request.messages(0).content(0).text() == "12?");
  CHECK(request.max_tokens() == 9);
  const v1::GenerateRequest traced = MakeRequest(entry, 12, 3, 4);
  CHECK(traced.messages(0).content(0).text() == "12 the the the");
  CHECK(traced.max_tokens() == 4);
}

TEST_CASE("Mix: a file that cannot be meant is refused", "[services][cli]") {
  for (const char* text : {"", "[]", R"({"requests": []})", R"({"requests": [{"name": "a"}]})",
                           R"({"requests": [{"name": "a", "text": "x", "weight": 0}]})",
                           R"({"requests": [{"name": "a", "text": "x", "max_tokens": 0}]})"}) {
    CAPTURE(text);
    CHECK(MixOf(text).status().code() == absl::StatusCode::kInvalidArgument);
  }
  const char missing[] = R"({"requests": [{"name": "a", "text": "x", "images": ["none.png"]}]})";
  CHECK(MixOf(missing).status().code() == absl::StatusCode::kNotFound);
}

TEST_CASE("Load report: percentiles are nearest ranks", "[services][cli]") {
  std::vector<double> samples;
  for (int i = 100; i >= 1; --i) samples.push_back(i);
  const Percentiles p = PercentilesOf(samples);
  CHECK(p.p50 == 50);
  CHECK(p.p90 == 90);
  CHECK(p.p99 == 99);
  CHECK(p.max == 100);
  CHECK(PercentilesOf({}).max == 0);
}

TEST_CASE("Load report: only requests after the warm-up count, and errors are no goodput",
          "[services][cli]") {
  RequestOutcome good{.status = absl::OkStatus(),
                      .scheduled = seconds(3),
                      .first_token = 0.2,
                      .last_token = 1.2,
                      .end = 1.3,
                      .tokens = 11,
                      .gaps = {0.5f, 0.5f}};
  RequestOutcome early = good, slow = good, refused = good;
  early.scheduled = seconds(1);
  slow.first_token = 0.9;
  refused.status = absl::ResourceExhaustedError("429 the server is full");
  const LoadReport report =
      Summarise({good, early, slow, refused}, {.ttft_seconds = 0.5, .tpot_seconds = 0.11},
                seconds(2), seconds(4));
  CHECK(report.requests == 3);
  CHECK(report.completed == 2);
  CHECK(report.within_objectives == 1);
  CHECK(report.errors.at("RESOURCE_EXHAUSTED") == 1);
  CHECK(report.tpot.max == Approx(0.1));
  CHECK(report.itl.p50 == Approx(0.5));
  CHECK(report.measured_seconds == Approx(2));
  CHECK(ReportTable(report).find("RESOURCE_EXHAUSTED") != std::string::npos);
  CHECK(ReportTable(report).find("429 the server is full") != std::string::npos);
}

TEST_CASE("Timeline: a phase that did not occur shows as a dash", "[services][cli]") {
  CHECK(FormatMicroseconds(0) == "-");
  CHECK(FormatMicroseconds(12'340) == "12.3 ms");
  CHECK(FormatMicroseconds(1'500'000) == "1.50 s");
  CHECK(FormatBytes(812) == "812 B");
  CHECK(FormatBytes(2 << 20) == "2.0 MiB");
  CHECK_THAT(FormatTimeline(v1::Timeline()), Catch::Contains("KV transfer - |"));
}

TEST_CASE("OpenAiBody: carries text, picture, length and the wish for usage", "[services][cli]") {
  v1::GenerateRequest request;
  v1::Message* message = request.add_messages();
  message->set_role("user");
  message->add_content()->mutable_image()->set_data("\x89PNG");
  message->add_content()->set_text("what \"is\" it?");
  request.set_max_tokens(7);
  CHECK(OpenAiBody(request, "m") ==
        R"({"max_tokens":7,"messages":[{"content":[{"image_url":)"
        R"({"url":"data:image/png;base64,iVBORw=="},"type":"image_url"},)"
        R"({"text":"what \"is\" it?","type":"text"}],"role":"user"}],)"
        R"("model":"m","stream":true,"stream_options":{"include_usage":true}})");
}

TEST_CASE("EventStreamReader: events are the same however the bytes are cut", "[services][cli]") {
  const std::string stream =
      "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
      ": a comment\r\n"
      "data:{\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\r\n\r\n"
      "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"
      "data: {\"choices\":[],\"usage\":{\"completion_tokens\":5}}\n\n"
      "data: [DONE]\n\n";
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    EventStreamReader reader;
    reader.Feed(stream.substr(0, cut));
    reader.Feed(stream.substr(cut));
    REQUIRE(reader.events().parts == 2);
    REQUIRE(reader.events().output_tokens == 5);
    REQUIRE(reader.events().done);
    REQUIRE_FALSE(reader.events().failed);
  }
}

TEST_CASE("EventStreamReader: an error or nonsense in the stream is a failure", "[services][cli]") {
  for (const char* line :
       {"data: {\"error\":{\"code\":\"x\"}}\n", "data: nonsense\n", "data: 5\n"}) {
    EventStreamReader reader;
    reader.Feed(line);
    CHECK(reader.events().failed);
    CHECK_FALSE(reader.events().done);
  }
}

TEST_CASE("Load: codes of HTTP are those of gRPC", "[services][cli]") {
  CHECK(CodeOfHttpStatus(200) == absl::StatusCode::kOk);
  CHECK(CodeOfHttpStatus(429) == absl::StatusCode::kResourceExhausted);
  CHECK(CodeOfHttpStatus(503) == absl::StatusCode::kUnavailable);
  CHECK(CodeOfHttpStatus(504) == absl::StatusCode::kDeadlineExceeded);
  CHECK(CodeOfHttpStatus(400) == absl::StatusCode::kInvalidArgument);
  CHECK(CodeOfHttpStatus(500) == absl::StatusCode::kInternal);
}

// Answers each connection's first request with these bytes, then closes. One thread.
class CannedServer {
 public:
  explicit CannedServer(std::map<std::string, std::string> answers) : answers_(std::move(answers)) {
    acceptor_.open(Tcp::v4());
    acceptor_.bind({boost::asio::ip::address_v4::loopback(), 0});
    acceptor_.listen();
    Accept();
    thread_ = std::thread([this] { context_.run(); });
  }
  ~CannedServer() {
    context_.stop();
    thread_.join();
  }
  std::string address() const {
    return "127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port());
  }

 private:
  using Tcp = boost::asio::ip::tcp;
  void Accept() {
    acceptor_.async_accept([this](boost::system::error_code error, Tcp::socket socket) {
      if (error) return;
      boost::asio::streambuf header;
      boost::asio::read_until(socket, header, "\r\n\r\n", error);
      const std::string text(boost::asio::buffers_begin(header.data()),
                             boost::asio::buffers_end(header.data()));
      for (const auto& [path, answer] : answers_) {
        if (text.find(" " + path + " ") == std::string::npos) continue;
        boost::asio::write(socket, boost::asio::buffer(answer), error);
      }
      Accept();
    });
  }

  const std::map<std::string, std::string> answers_;
  boost::asio::io_context context_;
  Tcp::acceptor acceptor_{context_};
  std::thread thread_;
};

struct WaitForEnd final : LoadListener {
  void OnPart(int) override {}
  void OnEnd(const absl::Status& status, int) override { end.set_value(status); }
  std::promise<absl::Status> end;
};

TEST_CASE("HttpLoadClient: a refusal is told as what it is, in the server's words",
          "[services][cli]") {
  const CannedServer server(
      {{"/v1/models",
        "HTTP/1.1 200 OK\r\nContent-Length: 25\r\nConnection: close\r\n\r\n"
        "{\"data\":[{\"id\":\"model\"}]}"},
       {"/v1/chat/completions",
        "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 34\r\nConnection: close\r\n\r\n"
        "{\"error\":{\"message\":\"come later\"}}"}});
  auto client = HttpLoadClient::Connect("http://" + server.address() + "/", seconds(10));
  REQUIRE(client.ok());
  WaitForEnd listener;
  (*client)->Send({}, &listener);
  const absl::Status end = listener.end.get_future().get();
  CHECK(end.code() == absl::StatusCode::kResourceExhausted);
  CHECK(end.message() == "429 come later");
}

TEST_CASE("SplitAddress: addresses as people write them", "[services][cli]") {
  const std::pair<const char*, std::pair<const char*, const char*>> good[] = {
      {"localhost:80", {"localhost", "80"}},
      {"[::1]:80", {"::1", "80"}},
      {"http://127.0.0.1:80/", {"127.0.0.1", "80"}},
  };
  for (const auto& [address, parts] : good) {
    const auto split = SplitAddress(address);
    REQUIRE(split.ok());
    CHECK(split->host == parts.first);
    CHECK(split->port == parts.second);
  }
  for (const char* bad : {"", "localhost", "localhost:", "https://localhost:1", "grpc://a:1"}) {
    INFO(bad);
    CHECK_FALSE(SplitAddress(bad).ok());
  }
}

}  // namespace
}  // namespace triptych::services
