// Defended: what a client can influence (label values) neither breaks the exposition format nor
// grows our memory without end. The text itself is the evidence.
#include "base/metrics.h"

#include <catch2/catch.hpp>
#include <sstream>
#include <thread>

namespace triptych::base {
namespace {

bool HasLine(const std::string& text, const std::string& wanted) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line == wanted) return true;
  }
  return false;
}

int CountLinesWith(const std::string& text, const std::string& start) {
  std::istringstream lines(text);
  int count = 0;
  for (std::string line; std::getline(lines, line);) count += line.rfind(start, 0) == 0;
  return count;
}

TEST_CASE("Metrics: counters, gauges and histograms appear in the text format", "[base][metrics]") {
  Registry registry;
  const Counter counter =
      registry.GetCounter({"triptych_refusals_total", "refused"}, {{"reason", "full"}});
  counter.Increment();
  counter.Increment(2);
  const Gauge gauge = registry.GetGauge({"triptych_held_requests", "held"});
  gauge.Set(5);
  gauge.Add(-1);
  registry.GetHistogram({"triptych_ttft_seconds", "ttft"}, {}, {0.1, 1}).Observe(0.5);
  const std::string text = registry.Serialize();
  CHECK(HasLine(text, "# TYPE triptych_refusals_total counter"));
  CHECK(HasLine(text, "triptych_refusals_total{reason=\"full\"} 3"));
  CHECK(HasLine(text, "triptych_held_requests 4"));
  CHECK(HasLine(text, "triptych_ttft_seconds_bucket{le=\"0.1\"} 0"));
  CHECK(HasLine(text, "triptych_ttft_seconds_bucket{le=\"1\"} 1"));
  CHECK(HasLine(text, "triptych_ttft_seconds_count 1"));
}

TEST_CASE("Metrics: asking twice gives the same series", "[base][metrics]") {
  Registry registry;
  registry.GetCounter({"triptych_a_total", "a"}, {{"kind", "kv"}}).Increment();
  registry.GetCounter({"triptych_a_total", "a"}, {{"kind", "kv"}}).Increment();
  CHECK(HasLine(registry.Serialize(), "triptych_a_total{kind=\"kv\"} 2"));
}

TEST_CASE("Metrics: a label value cannot forge a series", "[base][metrics][robustness]") {
  Registry registry;
  const std::string evil = "x\"} 1\ntriptych_forged_total 7\n\\";
  registry.GetCounter({"triptych_tenants_total", "t"}, {{"tenant", evil}}).Increment();
  registry.GetCounter({"triptych_tenants_total", "t"}, {{"tenant", "\xff\xfe"}}).Increment();
  const std::string text = registry.Serialize();
  CHECK(CountLinesWith(text, "triptych_forged_total") == 0);
  CHECK(CountLinesWith(text, "triptych_tenants_total{") == 2);
  CHECK(HasLine(text, R"(triptych_tenants_total{tenant="x\"} 1?triptych_forged_total 7?\\"} 1)"));
  CHECK(HasLine(text, R"(triptych_tenants_total{tenant="??"} 1)"));
}

TEST_CASE("Metrics: 10,000 tenants become 64 and other", "[base][metrics][robustness]") {
  Registry registry(64);
  for (int i = 0; i < 10000; ++i) {
    registry.GetCounter({"triptych_tenants_total", "t"}, {{"tenant", "t" + std::to_string(i)}})
        .Increment();
  }
  const std::string text = registry.Serialize();
  CHECK(CountLinesWith(text, "triptych_tenants_total{") == 65);
  CHECK(HasLine(text, "triptych_tenants_total{tenant=\"other\"} 9936"));
  CHECK(HasLine(text, "triptych_tenants_total{tenant=\"t0\"} 1"));
}

TEST_CASE("Metrics: a long label value is cut", "[base][metrics][robustness]") {
  Registry registry;
  registry.GetCounter({"triptych_a_total", "a"}, {{"tenant", std::string(1 << 20, 'x')}});
  CHECK(registry.Serialize().size() < 1024);
}

TEST_CASE("Metrics: a handle without a registry counts nothing", "[base][metrics]") {
  Counter().Increment();
  Gauge().Set(1);
  Histogram().Observe(1);
}

TEST_CASE("Metrics: increments of several threads are all counted", "[base][metrics]") {
  Registry registry;
  const Counter counter = registry.GetCounter({"triptych_a_total", "a"});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([counter] {
      for (int i = 0; i < 10000; ++i) counter.Increment();
    });
  }
  for (int i = 0; i < 20; ++i) registry.Serialize();
  for (std::thread& thread : threads) thread.join();
  CHECK(HasLine(registry.Serialize(), "triptych_a_total 40000"));
}

}  // namespace
}  // namespace triptych::base
