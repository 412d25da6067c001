#include "services/cli/arrivals.h"

#include <cmath>
#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/random.h"
#include "base/status.h"

namespace triptych::services {
namespace {

// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Howard Hinnant's
// days_from_civil).
int64_t DaysFromCivil(int64_t year, int month, int day) {
  year -= month <= 2 ? 1 : 0;
  const int64_t era = (year >= 0 ? year : year - 399) / 400;
  const int64_t year_of_era = year - era * 400;
  const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  const int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + day_of_era - 719468;
}

// "2023-11-16 18:17:03.9799600", or plain seconds.
bool ParseTimestamp(absl::string_view text, double* seconds) {
  if (absl::SimpleAtod(text, seconds)) return true;
  int year = 0, month = 0, day = 0, hour = 0, minute = 0;
  double second = 0;
  const std::string copy(text);
  if (std::sscanf(copy.c_str(), "%d-%d-%d%*[ T]%d:%d:%lf", &year, &month, &day, &hour, &minute,
                  &second) != 6) {
    return false;
  }
  *seconds =
      static_cast<double>(DaysFromCivil(year, month, day) * 86400 + hour * 3600 + minute * 60) +
      second;
  return true;
}

struct TraceRow {
  double seconds = 0;
  int context_tokens = 0;
  int generated_tokens = 0;
};

absl::StatusOr<std::vector<TraceRow>> ReadRows(absl::string_view csv) {
  std::vector<TraceRow> rows;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(csv, '\n')) {
    ++line_number;
    line = absl::StripAsciiWhitespace(line);
    if (line_number == 1 || line.empty()) continue;
    const std::vector<absl::string_view> cells = absl::StrSplit(line, ',');
    TraceRow row;
    const bool good = cells.size() == 3 && ParseTimestamp(cells[0], &row.seconds) &&
                      absl::SimpleAtoi(cells[1], &row.context_tokens) &&
                      absl::SimpleAtoi(cells[2], &row.generated_tokens) &&
                      row.context_tokens >= 0 && row.generated_tokens >= 0;
    if (!good || (!rows.empty() && row.seconds < rows.back().seconds)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--trace: line ", line_number,
                       ": want TIMESTAMP,ContextTokens,GeneratedTokens in order"));
    }
    rows.push_back(row);
  }
  if (rows.empty()) return absl::InvalidArgumentError("--trace: no rows");
  return rows;
}

}  // namespace

std::vector<Arrival> PoissonArrivals(double rate, base::Duration duration, uint64_t seed) {
  base::SeededRandom random(seed);
  std::vector<Arrival> arrivals;
  double seconds = 0;
  while (true) {
    seconds += -std::log1p(-random.Uniform()) / rate;
    if (seconds >= base::ToSeconds(duration)) return arrivals;
    arrivals.push_back({.at = base::FromSeconds(seconds)});
  }
}

absl::StatusOr<std::vector<Arrival>> TraceArrivals(absl::string_view csv, double rate,
                                                   base::Duration duration) {
  ASSIGN_OR_RETURN(const std::vector<TraceRow> rows, ReadRows(csv));
  const double first = rows.front().seconds;
  const double span = rows.back().seconds - first;
  const double own_rate = span > 0 ? static_cast<double>(rows.size()) / span : 0;
  const double stretch = rate > 0 && own_rate > 0 ? own_rate / rate : 1;
  std::vector<Arrival> arrivals;
  for (const TraceRow& row : rows) {
    const base::Duration at = base::FromSeconds((row.seconds - first) * stretch);
    if (at >= duration) break;
    arrivals.push_back({at, row.context_tokens, row.generated_tokens});
  }
  return arrivals;
}

}  // namespace triptych::services
