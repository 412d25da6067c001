#include "engine/modelled/cost_model.h"

#include <cmath>
#include <fstream>
#include <iterator>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace triptych::engine {
namespace {

struct Field {
  const char* name;
  double CostModel::*value;
};

constexpr Field kFields[] = {
    {"step_fixed", &CostModel::step_fixed},
    {"encode_fixed", &CostModel::encode_fixed},
    {"encode_per_patch", &CostModel::encode_per_patch},
    {"prefill_per_token", &CostModel::prefill_per_token},
    {"prefill_per_token_context", &CostModel::prefill_per_token_context},
    {"decode_per_sequence", &CostModel::decode_per_sequence},
    {"decode_per_context_token", &CostModel::decode_per_context_token},
    {"transfer_per_token", &CostModel::transfer_per_token},
};

absl::Status ParseLine(absl::string_view line, CostModel* cost) {
  const size_t equals = line.find('=');
  if (equals == absl::string_view::npos) return absl::InvalidArgumentError("expected name = value");
  const absl::string_view name = absl::StripAsciiWhitespace(line.substr(0, equals));
  const absl::string_view text = absl::StripAsciiWhitespace(line.substr(equals + 1));
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !std::isfinite(value) || value < 0) {
    return absl::InvalidArgumentError(absl::StrCat("not a time in seconds: ", text));
  }
  for (const Field& field : kFields) {
    if (name != field.name) continue;
    cost->*field.value = value;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown cost: ", name));
}

}  // namespace

double StepSeconds(const CostModel& cost, const scheduler::StepPlan& plan) {
  double seconds = cost.step_fixed;
  for (const auto& row : plan.encodes) {
    seconds += cost.encode_fixed + cost.encode_per_patch * static_cast<double>(row.grid.patches());
  }
  for (const auto& row : plan.rows) {
    const auto count = static_cast<double>(row.token_ids.size());
    const double context = row.token_begin + count;
    if (row.token_ids.size() == 1) {
      seconds += cost.decode_per_sequence + cost.decode_per_context_token * context;
    } else {
      seconds += cost.prefill_per_token * count + cost.prefill_per_token_context * count * context;
    }
  }
  return seconds;
}

absl::StatusOr<CostModel> ParseCostModel(const std::string& text) {
  CostModel cost;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const absl::string_view content =
        absl::StripAsciiWhitespace(absl::string_view(line).substr(0, line.find('#')));
    if (content.empty()) continue;
    const absl::Status status = ParseLine(content, &cost);
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", status.message()));
    }
  }
  return cost;
}

absl::StatusOr<CostModel> ReadCostModel(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path));
  return ParseCostModel(std::string(std::istreambuf_iterator<char>(file), {}));
}

}  // namespace triptych::engine
