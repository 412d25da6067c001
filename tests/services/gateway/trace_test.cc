// Traces: a request joins its caller's, its parts become spans that lie within it, and a collector
// gets them or does not; nobody waits for it.

// Asio uses std::exchange without including it.
// clang-format off
#include <utility>
#include <boost/asio.hpp>
// clang-format on
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/mutex.h"
#include "base/random.h"
#include "services/gateway/trace/span_exporter.h"
#include "services/gateway/trace/spans.h"
#include "services/gateway/trace/trace_context.h"
#include "tests/support/eventually.h"

namespace triptych::services {
namespace {

using nlohmann::json;

constexpr char kHeader[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

std::function<uint64_t()> Counting() {
  return [next = uint64_t{0}]() mutable { return ++next; };
}

TEST_CASE("ParseTraceParent: what is not one is ignored", "[gateway][trace]") {
  const auto trace = ParseTraceParent(kHeader);
  REQUIRE(trace.has_value());
  CHECK(TraceIdText(*trace) == "0af7651916cd43dd8448eb211c80319c");
  CHECK(SpanIdText(trace->parent) == "b7ad6b7169203331");
  CHECK(trace->sampled);
  CHECK_FALSE(ParseTraceParent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")->sampled);
  // A later version may say more.
  CHECK(ParseTraceParent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more"));
  for (const char* header : {"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
                             "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                             "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
                             "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                             "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                             "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                             "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                             "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
                             "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01"}) {
    INFO(header);
    CHECK_FALSE(ParseTraceParent(header).has_value());
  }
}

TEST_CASE("Tracer: a caller's trace is joined as it says, others are sampled", "[gateway][trace]") {
  const TraceContext joined = Tracer(0, Counting()).Join(kHeader);
  CHECK(TraceParent(joined) == "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01");
  CHECK(SpanIdText(joined.parent) == "b7ad6b7169203331");
  CHECK_FALSE(Tracer(0, Counting()).Join("").exists());
  CHECK_FALSE(Tracer(0, Counting()).Join("nonsense").exists());
  const Tracer all(1, Counting());
  CHECK(all.Join("").sampled);
  CHECK(all.Join("").parent == 0);
  CHECK_FALSE(all.Join("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").sampled);
  base::SeededRandom random(1);
  const Tracer some(0.25, [&] { return random.Next(); });
  int sampled = 0;
  for (int i = 0; i < 4000; ++i) sampled += some.Join("").sampled ? 1 : 0;
  CHECK(std::abs(sampled - 1000) < 150);
}

EndedRequest Ended() {
  EndedRequest request{.request_id = "g.1",
                       .client_id = "chatcmpl-1",
                       .tag = "mine",
                       .result = "stop",
                       .usage = {.prompt_tokens = 30, .output_tokens = 5},
                       .timeline = {.queue_us = 10,
                                    .media_decode_us = 20,
                                    .encode_us = 30,
                                    .prefill_us = 50,
                                    .kv_transfer_us = 5,
                                    .first_token_us = 200,
                                    .total_us = 300}};
  request.trace = Tracer(0, [] { return uint64_t{9}; }).Join(kHeader);
  return request;
}

TEST_CASE("SpansOf: each part that took place is a span within the request's", "[gateway][trace]") {
  const std::vector<Span> spans = SpansOf(Ended(), 1'000'000, Counting());
  struct Row {
    const char* name;
    int64_t start_us, end_us;
  };
  const Row rows[] = {{"request", 0, 300}, {"queue", 0, 10},      {"media", 10, 30},
                      {"encode", 30, 60},  {"prefill", 150, 200}, {"KV transfer", 200, 205},
                      {"decode", 200, 300}};
  REQUIRE(spans.size() == std::size(rows));
  for (size_t i = 0; i < spans.size(); ++i) {
    INFO(rows[i].name);
    CHECK(spans[i].name == rows[i].name);
    CHECK(spans[i].start_ns == 700'000 + rows[i].start_us * 1000);
    CHECK(spans[i].end_ns == 700'000 + rows[i].end_us * 1000);
    if (i > 0) CHECK(spans[i].parent == spans[0].id);
  }
  CHECK(spans[0].id == 9);
  CHECK(SpanIdText(spans[0].parent) == "b7ad6b7169203331");
  // Whatever workers tell, no part leaves its request.
  EndedRequest odd = Ended();
  odd.timeline.prefill_us = 100'000'000;
  odd.timeline.encode_us = 100'000'000;
  for (const Span& span : SpansOf(odd, 1'000'000, Counting())) {
    CHECK(span.start_ns >= 700'000);
    CHECK(span.end_ns <= 1'000'000);
  }
}

// A collector that keeps what it is sent, or takes connections and says nothing.
class Collector {
 public:
  enum class Manner { kAnswers, kRefuses, kIsSilent };
  explicit Collector(Manner manner) : manner_(manner) {
    thread_ = std::thread([this] { Serve(); });
  }
  ~Collector() {
    boost::asio::post(context_, [this] {
      boost::system::error_code ignored;
      acceptor_.close(ignored);
      held_.clear();
    });
    thread_.join();
  }
  std::string endpoint() const {
    return "http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port());
  }
  size_t bodies() const {
    base::MutexLock lock(&mutex_);
    return bodies_.size();
  }
  std::string Body(size_t i) const {
    base::MutexLock lock(&mutex_);
    return bodies_.at(i);
  }

 private:
  using Tcp = boost::asio::ip::tcp;
  using Request = boost::beast::http::request<boost::beast::http::string_body>;

  void Serve() {
    Accept();
    context_.run();
  }
  void Accept() {
    acceptor_.async_accept([this](boost::system::error_code error, Tcp::socket socket) {
      if (error) return;
      if (manner_ == Manner::kIsSilent) {
        held_.push_back(std::move(socket));
      } else {
        Answer(std::move(socket));
      }
      Accept();
    });
  }
  void Answer(Tcp::socket socket) {
    namespace http = boost::beast::http;
    boost::beast::flat_buffer buffer;
    Request request;
    boost::system::error_code error;
    http::read(socket, buffer, request, error);
    if (error) return;
    const bool good = manner_ == Manner::kAnswers && request.target() == "/v1/traces" &&
                      request[http::field::content_type] == "application/json";
    if (good) {
      base::MutexLock lock(&mutex_);
      bodies_.push_back(request.body());
    }
    http::response<http::string_body> response(
        good ? http::status::ok : http::status::service_unavailable, 11);
    response.body() = "{}";
    response.prepare_payload();
    http::write(socket, response, error);
  }

  const Manner manner_;
  boost::asio::io_context context_;
  Tcp::acceptor acceptor_{context_, {boost::asio::ip::make_address("127.0.0.1"), 0}};
  std::vector<Tcp::socket> held_;
  mutable base::Mutex mutex_;
  std::vector<std::string> bodies_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses everything above
};

double CountOf(const base::Registry& registry, const std::string& metric) {
  const std::string text = registry.Serialize();
  const size_t at = text.find("\n" + metric + " ");
  REQUIRE(at != std::string::npos);
  return std::stod(text.substr(at + metric.size() + 2));
}

TEST_CASE("SpanExporter: a collector gets spans as OTLP has them in JSON", "[gateway][trace]") {
  Collector collector(Collector::Manner::kAnswers);
  const base::RealClock clock;
  base::Registry registry;
  auto exporter = SpanExporter::Start(collector.endpoint(), clock, Counting(),
                                      SpanExporter::CountersIn(&registry));
  REQUIRE(exporter.ok());
  (*exporter)->Put({Ended(), 1'700'000'000'123'456'789});
  REQUIRE(triptych::testing::Eventually(std::chrono::seconds(30),
                                        [&] { return collector.bodies() == 1; }));
  const json body = json::parse(collector.Body(0));
  const json& resource = body.at("resourceSpans").at(0);
  CHECK(resource.at("resource").at("attributes").at(0) ==
        json::parse(R"({"key":"service.name","value":{"stringValue":"triptych"}})"));
  const json& spans = resource.at("scopeSpans").at(0).at("spans");
  REQUIRE(spans.size() == 7);
  CHECK(spans[0].at("traceId") == "0af7651916cd43dd8448eb211c80319c");
  CHECK(spans[0].at("spanId") == "0000000000000009");
  CHECK(spans[0].at("parentSpanId") == "b7ad6b7169203331");
  CHECK(spans[0].at("kind") == 2);
  CHECK(spans[0].at("endTimeUnixNano") == "1700000000123456789");
  CHECK(spans[0].at("startTimeUnixNano") == "1700000000123156789");
  CHECK_FALSE(spans[0].contains("status"));
  CHECK(spans[6].at("name") == "decode");
  CHECK(spans[6].at("parentSpanId") == "0000000000000009");
  CHECK(spans[6].at("traceId") == "0af7651916cd43dd8448eb211c80319c");
  exporter->reset();
  CHECK(CountOf(registry, "triptych_traces_sent_total") == 1);
  CHECK(CountOf(registry, "triptych_traces_lost_total") == 0);
}

TEST_CASE("SpanExporter: a collector that refuses or is silent costs spans and no time",
          "[gateway][trace]") {
  for (const auto manner : {Collector::Manner::kRefuses, Collector::Manner::kIsSilent}) {
    Collector collector(manner);
    const base::RealClock clock;
    base::Registry registry;
    auto exporter = SpanExporter::Start(collector.endpoint(), clock, Counting(),
                                        SpanExporter::CountersIn(&registry));
    REQUIRE(exporter.ok());
    // More than the queue and one export hold: nobody waits for room.
    constexpr int kMany = 3 * SpanExporter::kQueueCapacity;
    for (int i = 0; i < kMany; ++i) (*exporter)->Put({Ended(), 1});
    exporter->reset();
    CHECK(CountOf(registry, "triptych_traces_sent_total") == 0);
    CHECK(CountOf(registry, "triptych_traces_lost_total") == kMany);
  }
}

TEST_CASE("SpanExporter: an endpoint that is none is refused at the start", "[gateway][trace]") {
  const base::RealClock clock;
  for (const char* endpoint : {"localhost:4318", "https://host:4318", "http://host", "http://"}) {
    INFO(endpoint);
    CHECK(SpanExporter::Start(endpoint, clock, Counting(), {}).status().code() ==
          absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace triptych::services
