#include "base/config.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/status.h"
#include "base/version.h"

namespace triptych::base {
namespace {

bool IsFlagName(absl::string_view name) {
  for (const char c : name) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '-') return false;
  }
  return !name.empty() && name.front() != '-' && name != "help" && name != "version" &&
         name != "config";
}

std::string Text(int64_t value) { return absl::StrCat(value); }
std::string Text(double value) { return absl::StrFormat("%g", value); }
std::string Text(Duration value) { return FormatDuration(value); }

// "1 to 64", or "at least 1" where the type's own end is the limit.
template <typename T>
std::string RangeText(T min, T max, T no_limit) {
  if (max == no_limit) return absl::StrCat("at least ", Text(min));
  return absl::StrCat(Text(min), " to ", Text(max));
}

template <typename T>
absl::Status CheckRange(const std::string& name, T value, T min, T max) {
  // Written so that NaN fails.
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--", name, "=", Text(value), " is out of range: ", Text(min), " to ", Text(max)));
}

absl::Status NotA(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("is not ", what));
}

}  // namespace

FlagSet::FlagSet(std::string usage, Positional positional)
    : usage_(std::move(usage)), keep_positional_(positional) {}

void FlagSet::Add(Flag flag) {
  CHECK_TRUE(IsFlagName(flag.name));
  CHECK_TRUE(!flag.doc.empty());
  CHECK_TRUE(index_of_.emplace(flag.name, flags_.size()).second);
  flags_.push_back(std::move(flag));
}

void FlagSet::AddInt(int64_t* value, const IntFlag& flag) {
  *value = flag.default_value;
  Add({.name = flag.name,
       .doc = flag.doc,
       .type = "int",
       .default_text = Text(flag.default_value),
       .range_text = RangeText(flag.min, flag.max, std::numeric_limits<int64_t>::max()),
       .parse =
           [value](absl::string_view text) {
             int64_t parsed = 0;
             if (!absl::SimpleAtoi(text, &parsed)) return NotA("a whole number");
             *value = parsed;
             return absl::OkStatus();
           },
       .validate = [value, flag] { return CheckRange(flag.name, *value, flag.min, flag.max); }});
}

void FlagSet::AddDouble(double* value, const DoubleFlag& flag) {
  *value = flag.default_value;
  Add({.name = flag.name,
       .doc = flag.doc,
       .type = "number",
       .default_text = Text(flag.default_value),
       .range_text = RangeText(flag.min, flag.max, std::numeric_limits<double>::max()),
       .parse =
           [value](absl::string_view text) {
             double parsed = 0;
             if (!absl::SimpleAtod(text, &parsed)) return NotA("a number");
             *value = parsed;
             return absl::OkStatus();
           },
       .validate = [value, flag] { return CheckRange(flag.name, *value, flag.min, flag.max); }});
}

void FlagSet::AddBool(bool* value, const BoolFlag& flag) {
  *value = flag.default_value;
  Add({.name = flag.name,
       .doc = flag.doc,
       .type = "bool",
       .default_text = flag.default_value ? "true" : "false",
       .parse =
           [value](absl::string_view text) {
             bool parsed = false;
             if (!absl::SimpleAtob(text, &parsed)) return NotA("true or false");
             *value = parsed;
             return absl::OkStatus();
           },
       .validate = [] { return absl::OkStatus(); }});
}

void FlagSet::AddDuration(Duration* value, const DurationFlag& flag) {
  *value = flag.default_value;
  Add({.name = flag.name,
       .doc = flag.doc,
       .type = "duration",
       .default_text = Text(flag.default_value),
       .range_text = RangeText(flag.min, flag.max, Duration::max()),
       .parse = [value](absl::string_view text) -> absl::Status {
         ASSIGN_OR_RETURN(*value, base::ParseDuration(text));
         return absl::OkStatus();
       },
       .validate = [value, flag] { return CheckRange(flag.name, *value, flag.min, flag.max); }});
}

void FlagSet::AddString(std::string* value, const StringFlag& flag) {
  *value = flag.default_value;
  const bool required = flag.presence == Presence::kRequired;
  Add({.name = flag.name,
       .doc = flag.doc,
       .type = "text",
       .default_text = absl::StrCat("\"", flag.default_value, "\""),
       .range_text = required ? "required" : "",
       .parse =
           [value](absl::string_view text) {
             *value = std::string(text);
             return absl::OkStatus();
           },
       .validate =
           [value, required, name = flag.name] {
             if (!required || !value->empty()) return absl::OkStatus();
             return absl::InvalidArgumentError(absl::StrCat("--", name, " is required"));
           }});
}

void FlagSet::AddChoice(std::string* value, const ChoiceFlag& flag) {
  CHECK_TRUE(!flag.choices.empty());
  *value = flag.choices.front();
  Add({.name = flag.name,
       .doc = flag.doc,
       .type = "choice",
       .default_text = flag.choices.front(),
       .range_text = absl::StrJoin(flag.choices, " | "),
       .parse =
           [value](absl::string_view text) {
             *value = std::string(text);
             return absl::OkStatus();
           },
       .validate =
           [value, flag] {
             const auto& choices = flag.choices;
             if (std::find(choices.begin(), choices.end(), *value) != choices.end()) {
               return absl::OkStatus();
             }
             return absl::InvalidArgumentError(absl::StrCat(
                 "--", flag.name, "=", *value, " is not one of ", absl::StrJoin(choices, " | ")));
           }});
}

absl::Status FlagSet::SetValue(Flag& flag, absl::string_view text, Rank rank) {
  if (rank < flag.rank) return absl::OkStatus();
  flag.rank = rank;
  const absl::Status status = flag.parse(text);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag.name, "=", text, ": ", status.message()));
}

absl::Status FlagSet::ParseFlags(int argc, const char* const* argv) {
  bool flags_ended = false;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (!flags_ended && argument == "-h") argument = "--help";
    if (flags_ended || !absl::StartsWith(argument, "--")) {
      if (keep_positional_ == Positional::kRefuse) {
        return absl::InvalidArgumentError(absl::StrCat("unexpected argument: ", argument));
      }
      positional_.emplace_back(argument);
      continue;
    }
    argument.remove_prefix(2);
    if (argument.empty()) {
      flags_ended = true;
      continue;
    }
    if (argument == "help") {
      help_requested_ = true;
      continue;
    }
    if (argument == "version") {
      version_requested_ = true;
      continue;
    }
    if (absl::ConsumePrefix(&argument, "config=")) {
      config_file_ = std::string(argument);
      continue;
    }
    const size_t equals = argument.find('=');
    const absl::string_view name = argument.substr(0, equals);
    const auto found = index_of_.find(name);
    if (found == index_of_.end()) {
      return absl::InvalidArgumentError(absl::StrCat("--", name, ": no such flag"));
    }
    Flag& flag = flags_[found->second];
    if (equals != absl::string_view::npos) {
      RETURN_IF_ERROR(SetValue(flag, argument.substr(equals + 1), kCommandLine));
    } else if (flag.type == "bool") {
      RETURN_IF_ERROR(SetValue(flag, "true", kCommandLine));
    } else if (i + 1 < argc) {
      RETURN_IF_ERROR(SetValue(flag, argv[++i], kCommandLine));
    } else {
      return absl::InvalidArgumentError(absl::StrCat("--", name, ": a value is missing"));
    }
  }
  return absl::OkStatus();
}

absl::Status FlagSet::ReadVariables(
    const std::function<const char*(const std::string&)>& value_of) {
  for (Flag& flag : flags_) {
    std::string name = absl::StrCat("TRIPTYCH_", absl::AsciiStrToUpper(flag.name));
    std::replace(name.begin(), name.end(), '-', '_');
    if (const char* value = value_of(name)) RETURN_IF_ERROR(SetValue(flag, value, kVariable));
  }
  return absl::OkStatus();
}

absl::Status FlagSet::ReadLine(absl::string_view line) {
  line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
  if (line.empty()) return absl::OkStatus();
  const size_t sign = line.find_first_of("=:");
  if (sign == absl::string_view::npos) return absl::InvalidArgumentError("want name = value");
  absl::string_view name = absl::StripAsciiWhitespace(line.substr(0, sign));
  absl::ConsumePrefix(&name, "--");
  const auto found = index_of_.find(name);
  if (found == index_of_.end()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": no such flag"));
  }
  return SetValue(flags_[found->second], absl::StripAsciiWhitespace(line.substr(sign + 1)), kFile);
}

absl::Status FlagSet::ReadFile(absl::string_view text) {
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    const absl::Status status = ReadLine(line);
    if (status.ok()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(config_file_, ", line ", number, ": ", status.message()));
  }
  return absl::OkStatus();
}

absl::Status FlagSet::Validate() const {
  for (const Flag& flag : flags_) RETURN_IF_ERROR(flag.validate());
  return absl::OkStatus();
}

std::string FlagSet::Help() const {
  std::string help = absl::StrCat(
      usage_,
      "\n\nA flag may also come from the variable TRIPTYCH_<NAME>, or from a line `name = value` "
      "of the\n"
      "file that --config=FILE names; the command line counts first, then the variable.\n\n");
  for (const Flag& flag : flags_) {
    absl::StrAppendFormat(&help, "  --%s (%s, default %s", flag.name, flag.type, flag.default_text);
    if (!flag.range_text.empty()) absl::StrAppend(&help, "; ", flag.range_text);
    absl::StrAppend(&help, ")\n      ", flag.doc, "\n");
  }
  return help;
}

absl::StatusOr<Duration> ParseDuration(absl::string_view text) {
  const size_t unit_at = text.find_first_not_of("0123456789.");
  double number = 0;
  if (unit_at == absl::string_view::npos || !absl::SimpleAtod(text.substr(0, unit_at), &number)) {
    return NotA("a duration such as 250ms, 1.5s, 2m or 1h");
  }
  const absl::string_view unit = text.substr(unit_at);
  double seconds = 0;
  if (unit == "ms") seconds = number * 1e-3;
  if (unit == "s") seconds = number;
  if (unit == "m") seconds = number * 60;
  if (unit == "h") seconds = number * 3600;
  const bool known = unit == "ms" || unit == "s" || unit == "m" || unit == "h";
  // 2^63 nanoseconds are 292 years.
  if (!known || seconds > 9e9) return NotA("a duration such as 250ms, 1.5s, 2m or 1h");
  return Duration(std::llround(seconds * 1e9));
}

std::string FormatDuration(Duration duration) {
  const int64_t milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
  if (milliseconds == 0) return "0s";
  if (milliseconds % 3600000 == 0) return absl::StrCat(milliseconds / 3600000, "h");
  if (milliseconds % 60000 == 0) return absl::StrCat(milliseconds / 60000, "m");
  if (milliseconds % 1000 == 0) return absl::StrCat(milliseconds / 1000, "s");
  return absl::StrCat(milliseconds, "ms");
}

int ParseCommandLine(int argc, const char* const* argv, FlagSet* flags) {
  absl::Status status = flags->ParseFlags(argc, argv);
  if (flags->help_requested()) {
    std::fputs(flags->Help().c_str(), stdout);
    return 0;
  }
  if (flags->version_requested()) {
    std::printf("triptych %s\n", kVersion);
    return 0;
  }
  const auto variable = [](const std::string& name) { return std::getenv(name.c_str()); };
  if (status.ok()) status = flags->ReadVariables(variable);
  if (status.ok() && !flags->config_file().empty()) {
    std::ifstream file(flags->config_file());
    const std::string text((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
    status = file ? flags->ReadFile(text)
                  : absl::InvalidArgumentError(
                        absl::StrCat("--config=", flags->config_file(), ": cannot be read"));
  }
  if (status.ok()) status = flags->Validate();
  if (status.ok()) return -1;
  std::fprintf(stderr, "%s: %s (--help lists the flags)\n", argc > 0 ? argv[0] : "triptych",
               std::string(status.message()).c_str());
  return 2;
}

}  // namespace triptych::base
