#include "base/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "base/check.h"
#include "base/mutex.h"

namespace triptych::base {
namespace {

constexpr size_t kMaxLabelValueBytes = 128;
constexpr char kOther[] = "other";

bool IsMetricName(absl::string_view name) {
  for (const char c : name) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '_') return false;
  }
  return absl::StartsWith(name, "triptych_") && name.size() > 9;
}

bool IsLabelName(absl::string_view name) {
  for (const char c : name) {
    if (!absl::ascii_islower(c) && c != '_') return false;
  }
  return !name.empty() && !absl::StartsWith(name, "_");
}

// Printable ASCII stays, every other byte becomes '?': a scrape must not fail over one tenant's
// name. The serializer escapes quotes and backslashes.
std::string CleanLabelValue(absl::string_view value) {
  std::string clean(value.substr(0, kMaxLabelValueBytes));
  for (char& c : clean) {
    if (!absl::ascii_isprint(c)) c = '?';
  }
  return clean;
}

enum class Kind { kCounter, kGauge, kHistogram };

// What is known of one metric name: its shape, the values seen of each label, and the family of its
// kind (the other two stay null; the registry owns all).
struct Family {
  Kind kind;
  std::set<std::string> label_names;
  std::map<std::string, std::set<std::string>> seen_values;
  prometheus::Family<prometheus::Counter>* counters = nullptr;
  prometheus::Family<prometheus::Gauge>* gauges = nullptr;
  prometheus::Family<prometheus::Histogram>* histograms = nullptr;
};

std::set<std::string> NamesOf(const Labels& labels) {
  std::set<std::string> names;
  for (const auto& [name, value] : labels) {
    CHECK_TRUE(IsLabelName(name));
    CHECK_TRUE(names.insert(name).second);
  }
  return names;
}

}  // namespace

struct Registry::State {
  explicit State(size_t max_values) : max_label_values(max_values) {}

  Family& FamilyOf(Kind kind, const MetricSpec& spec, const Labels& labels)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    CHECK_TRUE(IsMetricName(spec.name));
    std::set<std::string> names = NamesOf(labels);
    const auto [found, created] = families.try_emplace(spec.name);
    Family& family = found->second;
    if (created) {
      family.kind = kind;
      family.label_names = std::move(names);
    } else {
      CHECK_TRUE(family.kind == kind);
      CHECK_TRUE(family.label_names == names);
    }
    return family;
  }

  // The label values that the series really gets: cleaned, and "other" beyond the cap.
  prometheus::Labels Capped(const Labels& labels, Family* family) const {
    prometheus::Labels capped;
    for (const auto& [name, value] : labels) {
      std::string clean = CleanLabelValue(value);
      std::set<std::string>& seen = family->seen_values[name];
      if (!seen.contains(clean)) {
        if (seen.size() >= max_label_values) {
          clean = kOther;
        } else {
          seen.insert(clean);
        }
      }
      capped.emplace(name, std::move(clean));
    }
    return capped;
  }

  const size_t max_label_values;
  prometheus::Registry registry;
  Mutex mutex;
  std::map<std::string, Family> families ABSL_GUARDED_BY(mutex);
};

void Counter::Increment(double amount) const {
  if (counter_ != nullptr) counter_->Increment(amount);
}

void Gauge::Set(double value) const {
  if (gauge_ != nullptr) gauge_->Set(value);
}

void Gauge::Add(double amount) const {
  if (gauge_ != nullptr) gauge_->Increment(amount);
}

void Histogram::Observe(double value) const {
  if (histogram_ != nullptr) histogram_->Observe(value);
}

std::vector<double> LatencyBuckets() {
  return {0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
          0.5,   0.75,  1,     1.5,  2,    3,    5,    10,    20,  30,   60};
}

Registry::Registry(size_t max_label_values) : state_(std::make_unique<State>(max_label_values)) {}

Registry::~Registry() = default;

Counter Registry::GetCounter(const MetricSpec& spec, const Labels& labels) {
  MutexLock lock(&state_->mutex);
  Family& family = state_->FamilyOf(Kind::kCounter, spec, labels);
  if (family.counters == nullptr) {
    family.counters =
        &prometheus::BuildCounter().Name(spec.name).Help(spec.help).Register(state_->registry);
  }
  return Counter(&family.counters->Add(state_->Capped(labels, &family)));
}

Gauge Registry::GetGauge(const MetricSpec& spec, const Labels& labels) {
  MutexLock lock(&state_->mutex);
  Family& family = state_->FamilyOf(Kind::kGauge, spec, labels);
  if (family.gauges == nullptr) {
    family.gauges =
        &prometheus::BuildGauge().Name(spec.name).Help(spec.help).Register(state_->registry);
  }
  return Gauge(&family.gauges->Add(state_->Capped(labels, &family)));
}

Histogram Registry::GetHistogram(const MetricSpec& spec, const Labels& labels,
                                 const std::vector<double>& upper_bounds) {
  MutexLock lock(&state_->mutex);
  Family& family = state_->FamilyOf(Kind::kHistogram, spec, labels);
  if (family.histograms == nullptr) {
    family.histograms =
        &prometheus::BuildHistogram().Name(spec.name).Help(spec.help).Register(state_->registry);
  }
  return Histogram(&family.histograms->Add(state_->Capped(labels, &family), upper_bounds));
}

std::string Registry::Serialize() const {
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace triptych::base
