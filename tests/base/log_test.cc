// Defended: a log line is always one bounded, parseable JSON object, whatever a client put into it,
// and lines of several threads never mix. A JSON library reads the lines back.
#include "base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/random.h"

namespace triptych::base {
namespace {

using Json = nlohmann::json;

class LogFixture {
 protected:
  Json OnlyLine() {
    REQUIRE(logger.lines().size() == 1);
    return Json::parse(logger.lines()[0]);
  }

  SimulatedClock clock;
  CapturingLogger logger{clock};
};

TEST_CASE_METHOD(LogFixture, "Log: a line about a request carries id, epoch and stage",
                 "[base][log]") {
  const LogContext context{.stage = "prefill", .request_id = "r-1", .epoch = 3};
  logger.Warning("task refused", context, {{"free_blocks", 12}, {"reason", "full"}, {"age", 0.5}});
  const Json line = OnlyLine();
  CHECK(line["level"] == "warning");
  CHECK(line["process"] == "test");
  CHECK(line["stage"] == "prefill");
  CHECK(line["request_id"] == "r-1");
  CHECK(line["epoch"] == 3);
  CHECK(line["message"] == "task refused");
  CHECK(line["free_blocks"] == 12);
  CHECK(line["reason"] == "full");
  CHECK(line["age"] == 0.5);
  CHECK(line["monotonic_ns"] == clock.Now().time_since_epoch().count());
  // RFC 3339, as people and log stores read it.
  const std::string ts = line["ts"];
  CHECK(ts.size() == std::string("2026-12-01T10:40:00.123456Z").size());
  CHECK(ts[10] == 'T');
  CHECK(ts.back() == 'Z');
  CHECK(ts > "2026-");
}

TEST_CASE_METHOD(LogFixture, "Log: quotes, newlines and control bytes cannot forge a line",
                 "[base][log]") {
  const std::string evil = "a\"},\n{\"level\":\"error\"\\\r\t\x01\x7f";
  logger.Info(evil, {.request_id = evil}, {{evil, evil}});
  REQUIRE(logger.lines()[0].find('\n') == std::string::npos);
  const Json line = OnlyLine();
  CHECK(line["level"] == "info");
  CHECK(line["message"] == evil);
  CHECK(line["request_id"] == evil);
  CHECK(line[evil] == evil);
}

TEST_CASE_METHOD(LogFixture, "Log: bytes that are not UTF-8 are replaced", "[base][log]") {
  logger.Info("ok \xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82 bad \xff \xc0\xaf \xed\xa0\x80 \xe2\x82");
  const std::string replaced = "\xef\xbf\xbd";
  const std::string twice = replaced + replaced;
  CHECK(OnlyLine()["message"] == "ok \xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82 bad " + replaced + " " +
                                     twice + " " + twice + replaced + " " + twice);
}

TEST_CASE_METHOD(LogFixture, "Log: numbers that JSON lacks do not break the line", "[base][log]") {
  logger.Info("x", {}, {{"nan", std::nan("")}, {"inf", 1.0 / 0.0}});
  CHECK(OnlyLine()["nan"].is_string());
  CHECK(OnlyLine()["inf"].is_string());
}

TEST_CASE_METHOD(LogFixture, "Log: random bytes of any length give one bounded JSON line",
                 "[base][log]") {
  const uint64_t seed = 20260101;
  INFO("seed " << seed);
  SeededRandom random(seed);
  const auto text = [&random] {
    std::string bytes(random.Below(3000), '\0');
    for (char& c : bytes) c = static_cast<char>(random.Next());
    return bytes;
  };
  for (int round = 0; round < 300; ++round) {
    CapturingLogger rounds(clock);
    const std::string a = text(), b = text(), c = text();
    rounds.Info(a, {.process = b, .stage = c, .request_id = a, .epoch = random.Next()},
                {{"b", b}, {"c", c}, {"a", a}, {"last", round}});
    const std::string line = rounds.lines().at(0);
    CHECK(line.size() < kMaxLogLineBytes);
    const Json parsed = Json::parse(line);
    CHECK((parsed.contains("last") || parsed["truncated"] == true));
  }
}

TEST_CASE("Log: lines below the minimum level are not written", "[base][log]") {
  SimulatedClock clock;
  CapturingLogger logger(clock, LogLevel::kWarning);
  logger.Info("no");
  logger.Warning("yes");
  REQUIRE(logger.lines().size() == 1);
}

TEST_CASE("StreamLogger: lines of several threads never mix", "[base][log]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  RealClock clock;
  StreamLogger logger(clock, "p", LogLevel::kInfo, ends[1]);
  std::string all;
  std::thread reader([&] {
    char buffer[4096];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof(buffer))) > 0;) all.append(buffer, n);
  });
  std::vector<std::thread> writers;
  for (int w = 0; w < 4; ++w) {
    writers.emplace_back([&logger, w] {
      for (int i = 0; i < 200; ++i) logger.Info(std::string(100, 'a' + w), {}, {{"i", i}});
    });
  }
  for (std::thread& writer : writers) writer.join();
  close(ends[1]);
  reader.join();
  close(ends[0]);
  std::istringstream lines(all);
  uint64_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) REQUIRE(Json::accept(line));
  CHECK(count + logger.dropped_lines() == 800);
}

TEST_CASE("StreamLogger: a reader that stopped does not stop the process", "[base][log]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  RealClock clock;
  StreamLogger logger(clock, "p", LogLevel::kInfo, ends[1]);
  for (int i = 0; i < 2000; ++i) logger.Info(std::string(200, 'x'));
  CHECK(logger.dropped_lines() > 0);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("StreamLogger: a reader that is gone does not kill the process", "[base][log]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  close(ends[0]);
  RealClock clock;
  StreamLogger logger(clock, "p", LogLevel::kInfo, ends[1]);
  logger.Info("to nobody");
  CHECK(logger.dropped_lines() == 1);
  close(ends[1]);
}

TEST_CASE("Log: each level's name stands for it, and what is below is not written", "[base][log]") {
  const RealClock clock;
  CHECK(LogLevelOf(LogLevelNames().front()) == LogLevel::kInfo);
  CHECK(LogLevelOf("debug") < LogLevelOf("info"));
  CHECK(LogLevelOf("warning") < LogLevelOf("error"));
  for (const std::string& name : LogLevelNames()) {
    CapturingLogger log(clock, LogLevelOf(name));
    for (const std::string& other : LogLevelNames()) log.Log(LogLevelOf(other), other);
    for (const std::string& line : log.lines()) CHECK(line.find("\"level\"") != std::string::npos);
    CHECK(log.Writes(LogLevelOf(name)));
    CHECK(log.lines().size() == 4 - static_cast<size_t>(LogLevelOf(name)));
  }
}

}  // namespace
}  // namespace triptych::base
