#include "scheduler/cluster/forecast.h"

#include <algorithm>

namespace triptych::scheduler {
namespace {

// Beyond so many the mean of these stands for all.
constexpr int kMostWorkers = 64;

struct StageTime {
  double fixed = 0, unit = 0;  // of a step, mean
  double load = 0;             // of a worker, mean
  double tasks = 0;            // of all workers
  double workers = 0;
  double Seconds(double cost) const { return fixed + unit * cost; }
};

std::optional<StageTime> TimeOf(const ClusterView& view, Stage stage) {
  StageTime time;
  int known = 0, met = 0;
  for (const auto& [incarnation, worker] : view.of(stage).members()) {
    if (++met > kMostWorkers) break;
    const WorkerView::Speed& speed = worker->speed[static_cast<int>(stage)];
    time.load += static_cast<double>(worker->ledger.load(stage));
    time.tasks += worker->ledger.tasks(stage);
    if (speed.seconds_per_unit <= 0) continue;
    ++known;
    time.fixed += speed.fixed_seconds;
    time.unit += speed.seconds_per_unit;
  }
  if (known == 0) return std::nullopt;
  time.fixed /= known;
  time.unit /= known;
  const double seen = std::min(met, kMostWorkers);
  time.workers = static_cast<double>(view.of(stage).members().size());
  time.load /= seen;
  time.tasks *= time.workers / seen;
  return time;
}

}  // namespace

std::optional<Forecast> ForecastOf(const ClusterView& view, const SubmitRequest& submit,
                                   int32_t answer_tokens, const QueueCost& ahead) {
  Forecast forecast;
  // Whatever is before decode now will be beside it there.
  auto beside = static_cast<double>(ahead.requests);
  const auto add = [&](Stage stage, int64_t own, int64_t waiting) {
    const std::optional<StageTime> time = TimeOf(view, stage);
    if (!time.has_value()) return false;
    const auto cost = static_cast<double>(own);
    if (stage == Stage::kPrefill) beside += time->tasks;
    forecast.alone += time->Seconds(cost);
    forecast.seconds +=
        time->Seconds(cost + time->load + static_cast<double>(waiting) / time->workers);
    return true;
  };
  int64_t patches = 0;
  for (const ItemCost& item : submit.items) patches += item.patches;
  if (patches > 0 && !add(Stage::kEncode, patches, ahead.patches)) return std::nullopt;
  const int64_t prompt = int64_t{submit.prompt_tokens} + submit.tokens_sent;
  if (!add(Stage::kPrefill, prompt, ahead.prefill_tokens)) return std::nullopt;
  // The first token comes from prefill.
  if (answer_tokens <= 1) return forecast;
  const std::optional<StageTime> token = TimeOf(view, Stage::kDecode);
  if (!token.has_value()) return std::nullopt;
  const double steps = answer_tokens - 1;
  forecast.alone += steps * token->Seconds(1);
  forecast.seconds += steps * token->Seconds(1 + token->load + beside / token->workers);
  return forecast;
}

}  // namespace triptych::scheduler
