#pragma once

// Metrics, behind a facade: the only place that knows prometheus-cpp, and no header includes it. A
// registry is built by main and injected; handles are two words, copied freely, and cost one atomic
// operation a call. A default-constructed handle counts nothing, so tests need no registry.
// Thread-safe. A registry must outlive its handles.

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace triptych::base {

// Only grows.
class Counter {
 public:
  Counter() = default;
  // `amount` >= 0.
  void Increment(double amount = 1) const;

 private:
  friend class Registry;
  explicit Counter(prometheus::Counter* counter) : counter_(counter) {}
  prometheus::Counter* counter_ = nullptr;
};

// A level that goes up and down.
class Gauge {
 public:
  Gauge() = default;
  void Set(double value) const;
  void Add(double amount) const;

 private:
  friend class Registry;
  explicit Gauge(prometheus::Gauge* gauge) : gauge_(gauge) {}
  prometheus::Gauge* gauge_ = nullptr;
};

// Counts of observations in fixed buckets.
class Histogram {
 public:
  Histogram() = default;
  void Observe(double value) const;

 private:
  friend class Registry;
  explicit Histogram(prometheus::Histogram* histogram) : histogram_(histogram) {}
  prometheus::Histogram* histogram_ = nullptr;
};

// Label names are fixed in code ([a-z_]+); values may come from outside.
using Labels = std::vector<std::pair<std::string, std::string>>;

struct MetricSpec {
  std::string name;  // triptych_<what>[_<unit>][_total]
  std::string help;  // One line.
};

// Upper bounds in seconds from 1 ms to 60 s, close together where targets for TTFT and ITL lie.
std::vector<double> LatencyBuckets();

class Registry {
 public:
  // Of each label of each metric, values beyond the first `max_label_values` become "other": a
  // client that invents tenants cannot grow our memory.
  explicit Registry(size_t max_label_values = 64);
  ~Registry();

  // The metric of this name and these labels, created when it is not there. The same name always
  // comes with the same kind and the same label names (CHECKed). Label values are made UTF-8 and
  // cut to 128 bytes. Takes a lock: ask once and keep the handle, or ask a request, not a token.
  Counter GetCounter(const MetricSpec& spec, const Labels& labels = {});
  Gauge GetGauge(const MetricSpec& spec, const Labels& labels = {});
  // `upper_bounds` ascending, without infinity.
  Histogram GetHistogram(const MetricSpec& spec, const Labels& labels = {},
                         const std::vector<double>& upper_bounds = LatencyBuckets());

  // Everything, in the Prometheus text exposition format 0.0.4.
  std::string Serialize() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace triptych::base
